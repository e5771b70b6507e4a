"""There and back: what a writer writes, its reader reads bit for bit, and any format copies to any other."""

from pathlib import Path

import awkward as ak
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storagering as sr
from storagering.config import load_settings
from storagering.errors import NoColumnsError
from storagering.exporting import copy
from storagering.formats.forms import describe_column, to_awkward, to_batch
from storagering.formats.readers import open_source
from storagering.formats.writers import FORMATS, ExportFormat, writer_class
from storagering.formats.writers.output import write_output
from storagering.formats.writers.writer import WriteOptions
from storagering.testing.contracts import bits
from storagering.testing.schemas import tables
from storagering.types import Batch, Schema

_QUIETLY = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def held_by(batch: Batch, kind: ExportFormat) -> Batch:
    """The columns that a format holds."""
    refused = writer_class(kind).refusals(batch.schema)
    schema = Schema(tuple(c for c in batch.schema.columns if c.name not in refused))
    return Batch(schema, len(batch), {n: batch.arrays[n] for n in schema.names})


def cut(batch: Batch, at: int) -> list[Batch]:
    """The batch in two."""
    record = to_awkward(batch)
    parts = [record[:at], record[at:]]
    return [to_batch(batch.schema, {n: part[n] for n in batch.schema.names}, len(part)) for part in parts]


def check(path: Path, want: Batch) -> None:
    """The file's table holds these columns, whatever else."""
    source = open_source(str(path), None, load_settings())
    try:
        assert source.entries == len(want)
        assert set(want.schema.names) <= set(source.columns)
        arrays = source.read(list(want.schema.names), 0, source.entries)
        for column in want.schema.columns:
            got = describe_column(column.name, ak.Array(arrays[column.name]))
            assert got.form == column.form, column.name
            back = to_batch(Schema((got,)), arrays, len(want))
            assert bits(back.arrays[column.name]) == bits(want.arrays[column.name]), column.name
    finally:
        source.close()


def place(path: Path, kind: ExportFormat) -> Path:
    """Where to write; Zarr into a zip file, which is quicker than many."""
    return path.with_suffix(".zip") if kind == "zarr" else path


def write(path: Path, kind: ExportFormat, batches: list[Batch]) -> None:
    written = write_output(writer_class(kind), path, batches[0].schema, lambda: batches, WriteOptions(), force=True)
    assert written.entries == sum(map(len, batches))


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data(), table=tables())
@settings(_QUIETLY, max_examples=25)
def test_what_is_written_is_read(tmp_path: Path, kind: ExportFormat, data: st.DataObject, table: Batch) -> None:
    held = held_by(table, kind)
    if held.schema.columns:
        write(place(tmp_path / "file", kind), kind, cut(held, data.draw(st.integers(0, len(held)))))
        check(place(tmp_path / "file", kind), held)


@pytest.mark.parametrize("second", FORMATS)
@pytest.mark.parametrize("first", FORMATS)
@given(table=tables(max_entries=9))
@settings(_QUIETLY, max_examples=3)
def test_any_format_copies_to_any(tmp_path: Path, first: ExportFormat, second: ExportFormat, table: Batch) -> None:
    held = held_by(table, first)
    if not held.schema.columns:
        return
    source, out = place(tmp_path / "first", first), place(tmp_path / "second", second)
    write(source, first, [held])
    want = held_by(held, second)
    try:
        copied = copy(source, out, to=second, force=True)
    except NoColumnsError:
        assert not want.schema.columns
        return
    assert {s.name for s in copied.skipped} >= set(held.schema.names) - set(want.schema.names)
    check(out, want)


@pytest.mark.parametrize("to", ["root", "rntuple"])
@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("coffea/nano_tt_v12.root", ["Jet_*", "nJet", "Muon_*", "PV_*", "event", "run"]),
        ("rootfiles/uproot-HZZ.root", None),
        ("rootfiles/uproot-HZZ-objects.root", None),
        ("rootfiles/uproot-stl_containers.root", None),
    ],
)
def test_root_to_cache_to_root(
    shared_data: Path, tmp_path: Path, file: str, columns: list[str] | None, to: ExportFormat
) -> None:
    tree = "Events" if columns else None
    dataset = sr.convert(shared_data / file, name="there", tree=tree, columns=columns, workers=1)
    back = sr.export("there", tmp_path / "back.root", to=to)
    refused = {s.name for s in back.skipped}
    assert back.columns + len(refused) == len(dataset.schema.columns)
    with uproot.open(shared_data / file) as original, uproot.open(tmp_path / "back.root") as written:
        first, second = original[dataset.manifest.sources[0].tree], written[dataset.manifest.sources[0].tree]
        for column in dataset.schema.columns:
            if column.name not in refused:
                want, got = first[column.name].array(), second[column.name].array()
                assert ak.array_equal(got, want, equal_nan=True, check_parameters=False), column.name
                assert parts_of(got) == parts_of(want), column.name


def parts_of(array: ak.Array) -> list[tuple[str, tuple[int, ...], bytes]]:
    """All bits of an array."""
    return bits(to_batch(Schema((describe_column("x", array),)), {"x": array}, len(array)).arrays["x"])


@pytest.mark.parametrize("kind", FORMATS)
def test_real_files_copy(shared_data: Path, tmp_path: Path, kind: ExportFormat) -> None:
    source = shared_data / "rootfiles" / "uproot-HZZ.root"
    copied = copy(source, tmp_path / "out", to=kind)
    assert not copied.skipped
    if kind == "root":
        with uproot.open(source) as first, uproot.open(tmp_path / "out") as second:
            assert set(first["events"].keys()) <= set(second["events"].keys())
    back = copy(tmp_path / "out", tmp_path / "back", to="rntuple")
    with uproot.open(source) as first, uproot.open(tmp_path / "back") as second:
        assert back.entries == first["events"].num_entries
        for name, branch in first["events"].items():
            assert ak.array_equal(second[second.keys()[0]][name].array(), branch.array(), equal_nan=True), name
