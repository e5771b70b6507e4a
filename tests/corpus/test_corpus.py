"""Real ROOT files of many experiments and ROOT versions: every tree of each is converted.

No crash and no hang; every column is equal to uproot's own array, or reported with a reason. A table of the
counts is printed at the end of the run (see `tests/conftest.py`).
"""

import resource
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import pytest
import uproot

import storagering as sr
from storagering.config import load_settings
from storagering.errors import CorruptDataError, FormatError, NoColumnsError
from storagering.formats.readers.root import list_trees

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = ("rootfiles", "coffea", "hep_samples", "higgs_uci_10k", "flatness_40k")
FILES = sorted(path for folder in FOLDERS for path in (DATA / folder).glob("*.root"))
MOST_MEMORY_BYTES = 4 << 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]


def test_the_sample_files_are_there(shared_data: Path) -> None:
    assert shared_data == DATA
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_tree_converts(path: Path, record_property: Callable[[str, Any], None]) -> None:
    counts: Counter[str] = Counter()
    with uproot.open({path: None}, array_cache=None) as file:
        trees = [key.rpartition(";")[0] for key in list_trees(file)]
        counts["files"] += 1
        counts["files without trees"] += not trees
        for number, tree in enumerate(trees):
            _check_tree(path, tree, file[tree], f"tree{number}", counts)
    if not trees:
        with pytest.raises(FormatError, match="no TTree or RNTuple"):
            sr.convert(path, name="none")
    record_property("corpus", dict(counts))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_MEMORY_BYTES


def _check_tree(path: Path, tree: str, original: Any, name: str, counts: Counter[str]) -> None:
    counts["trees"] += 1
    if original.num_entries == 0:
        with pytest.raises(FormatError, match="no entries"):
            sr.convert(path, tree=tree, name=name)
        counts["trees without entries"] += 1
        return
    try:
        dataset = sr.convert(path, tree=tree, name=name, settings=load_settings(workers=1))
    except NoColumnsError:
        counts["trees without a readable column"] += 1
        return
    except CorruptDataError as error:
        counts[f"trees that are damaged: {type(error).__name__}"] += 1
        return
    assert dataset.num_entries == original.num_entries
    _compare(dataset, _fields(original), counts)


def _compare(dataset: sr.Dataset, fields: dict[str, Any], counts: Counter[str]) -> None:
    arrays = dataset.arrays()
    for column in dataset.schema.columns:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = fields[column.name].array()
        assert ak.array_equal(arrays[column.name], expected, equal_nan=True), column.name
        counts[f"columns, {column.kind}"] += 1
    for skipped in dataset.manifest.skipped:
        assert skipped.reason
        counts[f"columns skipped: {skipped.reason.split(':')[0]}"] += 1
    leaves = {name for name, field in fields.items() if not len(getattr(field, "branches", ()))}
    assert {*dataset.schema.names, *(s.name for s in dataset.manifest.skipped)} >= leaves


def _fields(original: Any) -> dict[str, Any]:
    """Every branch by its path, the first column of each name; of an RNTuple the top-level fields."""
    if "RNTuple" in type(original).__name__:
        return dict(original.iteritems(recursive=False))
    fields: dict[str, Any] = {}
    for name, branch in original.iteritems(recursive=True):
        if not _is_group(branch):
            fields.setdefault(name, branch)
    return fields


def _is_group(branch: Any) -> bool:
    """A branch that only holds other branches."""
    try:
        kind = type(branch.interpretation).__name__
    except uproot.interpretation.identify.UnknownInterpretation:
        kind = "UnknownInterpretation"
    return len(branch.branches) > 0 and kind in ("AsGrouped", "UnknownInterpretation")
