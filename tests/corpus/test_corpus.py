"""Real ROOT files of many experiments and ROOT versions: every tree of each is converted.

No crash and no hang. Every column that uproot reads as an array is converted and equal to it, bit for bit; every
other one is skipped with a reason, and uproot itself is asked again whether it cannot read it. ``make corpus``
converts all columns, and prints what became of each file (see `tests.corpus.report`); ``make test`` converts some of
each type where a tree has hundreds.
"""

import glob
import resource
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import pytest
import uproot

import storagering as sr
from storagering.config import load_settings
from storagering.errors import FormatError, NoColumnsError
from storagering.formats.limits import bounded_memory
from storagering.formats.readers.root import list_trees

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = sorted(DATA.rglob("*.root"))
MOST_MEMORY_BYTES = 4 << 30
#: Of trees with more columns, and so many of each type.
MANY_COLUMNS, OF_A_TYPE = 100, 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def test_the_sample_files_are_there(shared_data: Path) -> None:
    assert shared_data == DATA
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_tree_converts(
    path: Path, record_property: Callable[[str, Any], None], pytestconfig: pytest.Config
) -> None:
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    every = bool(pytestconfig.getoption("--corpus-report"))
    with uproot.open({path: None}, array_cache=None) as file:
        trees = [key.rpartition(";")[0] for key in list_trees(file)]
        for number, tree in enumerate(trees):
            fields = dict(_fields(file[tree]))
            some = len(fields) > MANY_COLUMNS and not every
            fields = _some_of_each_type(fields) if some else fields
            options = {"columns": [glob.escape(column) for column in fields] if some else None, "tree": tree}
            entries = int(file[tree].num_entries)
            dataset = _check_tree(path, options, entries, fields, f"tree{number}", (counts, kinds, reasons))
            if dataset is not None:
                _compare(dataset, fields)
    if not trees:
        with pytest.raises(FormatError, match="no TTree or RNTuple"):
            sr.convert(path, name="none")
    found = {"file": f"{path.parent.name}/{path.name}", "trees": len(trees)}
    record_property("corpus", {**found, **counts, "kinds": dict(kinds), "reasons": dict(reasons)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_MEMORY_BYTES


def _some_of_each_type(fields: dict[str, Any]) -> dict[str, Any]:
    """The same ones each time, from anywhere in the tree."""
    names = defaultdict(list)
    for name, field in fields.items():
        names[field.typename].append(name)
    taken = {name for found in names.values() for name in found[:: -(-len(found) // OF_A_TYPE)]}
    return {name: field for name, field in fields.items() if name in taken}


def _check_tree(
    path: Path, options: Any, entries: int, fields: dict[str, Any], name: str, found: tuple[Counter[str], ...]
) -> sr.Dataset | None:
    """Convert these columns of a tree; the dataset, if anything in it can be read."""
    counts, kinds, reasons = found
    dataset = None
    if entries == 0:
        with pytest.raises(FormatError, match="no entries"):
            sr.convert(path, name=name, **options)
        counts["empty_trees"] += 1
        return None
    try:
        dataset = sr.convert(path, name=name, settings=load_settings(workers=1), **options)
    except NoColumnsError:
        skipped = dict.fromkeys(fields, "no column of this tree can be read")
    else:
        assert dataset.num_entries == entries
        counts["identical"] += len(dataset.schema.columns)
        kinds.update(column.kind for column in dataset.schema.columns)
        skipped = {column.name: column.reason for column in dataset.manifest.skipped}
        assert all(skipped.values())
        assert {*dataset.schema.names, *skipped} == set(fields)
    for column, reason in skipped.items():
        reasons[_reason_of(fields[column], reason)] += 1
    counts["entries"] += entries
    counts["columns"] += len(fields)
    counts["skipped"] += len(skipped)
    return dataset


def _compare(dataset: sr.Dataset, fields: dict[str, Any]) -> None:
    arrays = dataset.arrays()
    for column in dataset.schema.columns:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = fields[column.name].array()
        assert ak.array_equal(arrays[column.name], expected, equal_nan=True, dtype_exact=True), column.name


def _reason_of(field: Any, ours: str) -> str:
    """Why uproot cannot read it as an array either, in one of few phrases."""
    theirs = _failure(lambda: field.array(library="ak"))
    assert theirs, f"uproot reads {field.name!r}, which was skipped: {ours}"
    for text, phrase in (
        ("none of the rules matched", "uproot has no rule for its type"),
        ("leaf-list with zero leaves", "it has no leaves: a base class without members"),
        ("memberwise serialization", "memberwise serialization, which uproot does not read"),
        ("DeserializationError", "uproot cannot deserialize its class"),
        ("has the wrong number of", "its bytes do not fit the type that uproot takes it for"),
        ("MemoryError", "uproot takes it for larger than memory"),
    ):
        if text in theirs:
            return phrase
    if "cannot produce Awkward Arrays" in theirs:
        objects = _failure(lambda: field.array(library="np")) == ""
        return "pointers or histograms: Python objects, no arrays" if objects else "uproot cannot deserialize its class"
    return f"uproot fails with {theirs.partition(':')[0]}"


def _failure(read: Callable[[], Any]) -> str:
    try:
        with bounded_memory():
            read()
    except Exception as error:  # noqa: BLE001  (whatever uproot raises)
        return f"{type(error).__name__}: {error}"
    return ""


def _fields(original: Any) -> Iterator[tuple[str, Any]]:
    """Every branch by its path, ``path#2`` for a second one of a name; of an RNTuple the top-level fields."""
    if "RNTuple" in type(original).__name__:
        yield from original.iteritems(recursive=False)
        return
    seen: Counter[str] = Counter()
    for name, branch in original.iteritems(recursive=True):
        if not _is_group(branch):
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), branch


def _is_group(branch: Any) -> bool:
    """A branch that only holds other branches."""
    try:
        kind = type(branch.interpretation).__name__
    except uproot.interpretation.identify.UnknownInterpretation:
        kind = "UnknownInterpretation"
    return len(branch.branches) > 0 and kind in ("AsGrouped", "UnknownInterpretation")
