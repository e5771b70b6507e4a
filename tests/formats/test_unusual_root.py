"""Files that ROOT writes now and then (see tests/data/make.py) and that uproot reads wrongly, or not at all."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.config import load_settings
from storagering.formats.inspect import inspect
from storagering.formats.readers import open_source

DATA = Path(__file__).resolve().parents[1] / "data"
WORDS = ("muon", "", "electron", "", "", "tau", "jet")
PIECES = ((0, 30), (0, 10), (10, 20), (20, 30), (15, 25), (29, 30))
TRUTH: dict[tuple[str, str], Callable[[int], Any]] = {
    ("late_array", "a"): lambda e: [float(e), 2.0, 3.0] if e >= 50 else [0.0, 0.0, 0.0],
    ("variant", "v"): lambda e: e if e % 2 else chr(97 + e % 26),
    ("several_ways", "px"): float,
    ("several_ways", "s"): lambda e: chr(97 + e % 20) * (e % 4),
    ("several_ways", "v"): lambda e: [float(e)] * (e % 3),
    ("empty_text", "text"): lambda e: WORDS[e % 7],
    ("computed_places", "a"): lambda e: [float(e)] * (e % 4),
}


def made(name: str, **options: Any) -> Dataset:
    return convert(str(DATA / f"{name}.root"), name="x", workers=1, **options)


@pytest.mark.parametrize(("name", "column"), TRUTH)
def test_values_are_those_that_were_written(name: str, column: str) -> None:
    with closing(open_source(str(DATA / f"{name}.root"), None, load_settings())) as source:
        scale = source.entries // 30
        want = [TRUTH[name, column](entry) for entry in range(source.entries)]
        for start, stop in PIECES:
            found = source.read([column], start * scale, stop * scale)[column].to_list()
            assert found == want[start * scale : stop * scale], (start, stop)


@pytest.mark.parametrize("name", ["late_array", "several_ways", "empty_text"])
def test_the_same_in_a_dataset(name: str) -> None:
    dataset = made(name)
    for (file, column), truth in TRUTH.items():
        if file == name:
            assert dataset.arrays()[column].to_list() == [truth(entry) for entry in range(len(dataset))]


@pytest.mark.scenario(49)
@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [("short_branch", "y", "it has 50 entries, its tree 100"), ("computed_places", "text", "IndexError")],
)
def test_what_cannot_be_read_is_skipped_with_its_reason(name: str, column: str, reason: str) -> None:
    dataset = made(name)
    (skipped,) = dataset.manifest.skipped
    assert skipped.name == column
    assert reason in skipped.reason
    assert column not in dataset.schema.names


def test_text_that_is_not_utf_8() -> None:
    (column,) = made("latin1").schema.columns
    assert (column.name, column.doc) == ("pt_µ", "momentum [µm]")
    (table,) = inspect(str(DATA / "latin1.root")).tables
    assert table.title == "title µm café"
