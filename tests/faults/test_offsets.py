"""Lists of a source that fall, overrun, or end elsewhere than their values: never a dataset that nobody can read."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from storagering.api import convert
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.errors import CorruptDataError
from storagering.formats.forms import assign_keys, describe_column, to_awkward, to_batch
from storagering.formats.readers import open_source
from storagering.formats.readers.pages import list_pages
from storagering.formats.readers.rntuple import NtupleSource
from storagering.testing.contracts import make_batch
from storagering.testing.toys import write_toy_rntuple
from storagering.types import Batch

LISTS = ("Jet_pt", "hits", "Muon", "trigger")


def pages_of_lists(path: Path) -> Iterator[tuple[str, int, int]]:
    """Column, start and stop of every page of numbers that cut lists."""
    with closing(open_source(str(path), None, load_settings())) as source:
        assert isinstance(source, NtupleSource)
        model = source._model
        columns = [n for n, record in enumerate(model.column_records) if record.nbits == 64 and record.type == 15]
        for page in list_pages(model, range(1), columns):
            yield page.field.partition(".")[0], page.start, page.stop


@pytest.mark.scenario(45)
def test_an_ntuple_without_checksums(tmp_path: Path) -> None:
    path, damaged = tmp_path / "sound.root", tmp_path / "damaged.root"
    write_toy_rntuple(path, entries=60, cluster_entries=60, compression=None)
    sound, refused = path.read_bytes(), set()
    cache = open_cache(load_settings())
    for column, start, stop in pages_of_lists(path):
        for change in (0, 0xFF, 0x7F):
            data = bytearray(sound)
            data[(start + stop) // 2] = change
            damaged.write_bytes(data)
            try:
                dataset = convert(str(damaged), name="x", workers=1)
            except CorruptDataError as error:
                refused.add(column)
                told = f"{damaged}: column {column!r}"
                assert str(error).startswith(told), error  # noqa: PT017
            else:
                assert not dataset.manifest.sources[0].verified
                assert len(dataset.arrays().tolist()) == 60
                cache.remove("x")
    assert refused == {*LISTS, "Jet_eta", "Jet_id"}


BAD_OFFSETS = {
    "falling": [0, 2, 1, 3],
    "overrunning": [0, 1, 2, 9],
    "beginning late": [1, 2, 2, 3],
    "ending early": [0, 1, 1, 2],
}


@pytest.mark.scenario(45, 21)
@pytest.mark.parametrize("offsets", BAD_OFFSETS.values(), ids=BAD_OFFSETS)
def test_arrays_that_do_not_fit_their_lists(offsets: list[int]) -> None:
    batch = make_batch({"x": ak.Array([[1.0], [], [2.0, 3.0]])})
    values = batch.arrays["x"][1]
    with pytest.raises(CorruptDataError, match="column 'x': its lists do not add up to its 3 values"):
        Batch(batch.schema, 3, {"x": (np.array(offsets), values)}).check()


@pytest.mark.scenario(45)
@pytest.mark.parametrize("offsets", [BAD_OFFSETS["falling"], BAD_OFFSETS["overrunning"]])
def test_lists_of_records(offsets: list[int]) -> None:
    content = ak.contents.RecordArray([ak.contents.NumpyArray(np.zeros(3))], ["pt"])
    array = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(np.array([0, 1, 2, 3])), content))
    schema = assign_keys([describe_column("x", array)])
    array.layout.offsets.data[:] = offsets
    with pytest.raises(CorruptDataError, match="column 'x' is damaged"):
        to_batch(schema, {"x": array}, 3)


@pytest.mark.scenario(21, 45)
def test_stored_arrays_that_do_not_fit_together() -> None:
    batch = make_batch({"x": ak.zip({"a": ak.Array([[1.0], [], [2.0, 3.0]])})})
    short = tuple(array[:-1] for array in batch.arrays["x"])
    with pytest.raises(CorruptDataError, match="column 'x': its arrays do not fit together"):
        to_awkward(Batch(batch.schema, 3, {"x": short}))
    assert to_awkward(batch).x.a.tolist() == [[1.0], [], [2.0, 3.0]]
