"""`inspect` against what uproot and the writers know, and what it costs over a real server."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

import storagering as sr
from storagering.config import load_settings
from storagering.errors import FormatError, NotFoundError
from storagering.formats import blob, readers
from storagering.formats.blob import Blob
from storagering.formats.inspect import TableReport
from storagering.formats.readers import open_source
from storagering.formats.source import SeveralTablesError, Storage
from storagering.testing import xrootd
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree

ENTRIES = 1000
WIDE_COLUMNS, WIDE_ENTRIES = 900, 4000


def only_table(path: Path) -> TableReport:
    report = sr.inspect(str(path))
    assert (report.url, report.nbytes) == (str(path), path.stat().st_size)
    assert report.version
    (table,) = report.tables
    return table


@pytest.mark.parametrize("compression", ["zstd", "zlib", "lz4", "lzma", None])
def test_a_tree(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=ENTRIES, basket_entries=300, compression=compression)
    table = only_table(path)
    assert (table.name, table.format, table.title) == ("Events", "ttree", "Toy events of Storagering")
    assert (table.entries, table.bounds, table.clusters) == (ENTRIES, (0, 300, 600, 900, 1000), (300, 300, 300, 100))
    assert not table.self_checked
    with uproot.open(path) as file:
        tree = file["Events"]
        assert [c.name for c in table.columns] == tree.keys()
        for column in table.columns:
            branch, storage = tree[column.name], column.storage
            assert column.typename == branch.typename
            assert (storage.blocks, storage.stored_bytes) == (4, branch.compressed_bytes)
            assert storage.decoded_bytes == branch.uncompressed_bytes
            squeezed = branch.compressed_bytes < branch.uncompressed_bytes
            assert storage.compression.partition(" ")[0] == (compression if squeezed and compression else "")
    assert table.stored_bytes == sum(c.storage.stored_bytes or 0 for c in table.columns)


@pytest.mark.parametrize("compression", ["zstd", "zlib", None])
def test_an_rntuple(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "toy.root"
    write_toy_rntuple(path, entries=ENTRIES, cluster_entries=300, compression=compression)
    table = only_table(path)
    assert (table.name, table.format, table.title) == ("Events", "rntuple", "Toy events of Storagering")
    assert table.bounds == (0, 300, 600, 900, 1000)
    columns = {c.name: c for c in table.columns}
    want = toy_columns(ENTRIES, nested=True)
    assert list(columns) == list(want)
    assert columns["Muon"].storage.blocks == 4 * 3  # offsets, pt and charge in each cluster
    muon = want["Muon"]
    decoded = 8 * ENTRIES + sum(ak.to_numpy(ak.flatten(muon[field])).nbytes for field in ("pt", "charge"))
    assert columns["Muon"].storage.decoded_bytes == decoded
    assert columns["passed"].storage.decoded_bytes == sum(-(-n // 8) for n in table.clusters)
    assert {c.storage.compression.partition(" ")[0] for c in table.columns} == {compression or ""}
    if compression is None:
        assert table.stored_bytes == table.decoded_bytes


def test_titles_units_and_types_of_a_nanoaod_by_cms(shared_data: Path) -> None:
    report = sr.inspect(str(shared_data / "coffea" / "nano_dy.root"))
    assert [t.name for t in report.tables][:2] == ["Events", "Runs"]
    columns = {c.name: c for c in report.tables[0].columns}
    assert len(columns) == 1499
    assert columns["HTXS_Higgs_pt"].doc == "pt of the Higgs boson as identified in HTXS"
    assert columns["HTXS_Higgs_pt"].storage == Storage("zlib 1", 1, 103, 242)
    assert (columns["event"].typename, columns["run"].doc) == ("uint64_t", "")
    dataset = sr.convert(
        shared_data / "coffea" / "nano_dy.root", tree="Events", columns=["HTXS_Higgs_*", "run"], name="nano"
    )
    assert dataset.schema.columns[-1].doc == columns["HTXS_Higgs_y"].doc


def test_pages_by_root_are_checked_and_counted(shared_data: Path) -> None:
    table = only_table(shared_data / "rootfiles" / "ntpl001_staff_rntuple_v1-0-0-0.root")
    assert table.self_checked
    assert {c.storage.compression for c in table.columns} == {"zstd 5"}
    nation = next(c for c in table.columns if c.name == "Nation")
    assert (nation.typename, nation.storage.blocks) == ("std::string", 2)


def test_field_descriptions_become_titles_and_units(tmp_path: Path) -> None:
    numbers = ak.contents.NumpyArray(np.arange(5.0), parameters={"__doc__": "jet mass [GeV]"})
    events = ak.contents.RecordArray([numbers, ak.contents.NumpyArray(np.arange(5))], ["mass", "n"])
    with uproot.recreate(tmp_path / "doc.root") as file:
        file.mkrntuple("Events", events.form).extend(ak.Array(events))
    assert [c.doc for c in only_table(tmp_path / "doc.root").columns] == ["jet mass [GeV]", ""]
    mass, number = sr.convert(tmp_path / "doc.root", name="doc").schema.columns
    assert (mass.doc, mass.unit, number.doc, number.unit) == ("jet mass [GeV]", "GeV", "", "")


@pytest.mark.parametrize(
    ("title", "doc"),
    [
        ("missing momentum [GeV]", "missing momentum [GeV]"),
        ("MET", ""),
        ("MET/F", ""),
        ("pt/F:eta/F", ""),
        ("x[3]/D", ""),
        ("[6]/D", ""),
        ("MET[nJet]", ""),
    ],
)
def test_titles_that_only_repeat_name_and_type_are_no_docs(tmp_path: Path, title: str, doc: str) -> None:
    with uproot.recreate(tmp_path / "t.root") as file:
        file.mktree("Events", {"MET": np.float32}).extend({"MET": np.zeros(3, np.float32)})
    with closing(open_source(str(tmp_path / "t.root"), None, load_settings())) as source:
        branch: Any = source._branches["MET"]  # type: ignore[attr-defined]
        branch._members["fTitle"] = title  # uproot cannot write one
        assert source.doc("MET") == doc


def test_several_tables_or_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "two.root"
    with uproot.recreate(path) as file:
        for number, name in enumerate(("a", "folder/b")):
            file.mktree(name, {"x": np.int64}).extend({"x": np.arange(3 + number)})
    assert [(t.name, t.entries) for t in sr.inspect(str(path)).tables] == [("a", 3), ("folder/b", 4)]
    assert [t.name for t in sr.inspect(str(path), tree="folder/b").tables] == ["folder/b"]
    with pytest.raises(NotFoundError, match="no tree 'c'"):
        sr.inspect(str(path), tree="c")
    with pytest.raises(SeveralTablesError, match="holds 2 trees: a, folder/b; choose one with --tree"):
        sr.convert(path, name="x")


def test_an_empty_tree_and_a_file_without_tables(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "empty.root", entries=0)
    table = only_table(tmp_path / "empty.root")
    assert (table.entries, table.clusters) == (0, ())
    assert len(table.columns) == 11
    (tmp_path / "text.root").write_text("none of these")
    with pytest.raises(FormatError):
        sr.inspect(str(tmp_path / "text.root"))


def test_tables_of_an_hdf5_file(tmp_path: Path) -> None:
    jets = np.zeros(1000, dtype=[("pt", "f4"), ("eta", "f8")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("jets", data=jets, chunks=(100,), compression="gzip", compression_opts=4, shuffle=True)
        file.create_dataset("images", data=np.ones((1000, 4, 4)), chunks=(100, 2, 4), compression="lzf")
        file["other/x"] = np.arange(10.0)
    report = sr.inspect(str(tmp_path / "a.h5"))
    tables = {table.entries: table for table in report.tables}
    columns = {column.name: column for column in tables[1000].columns}
    with h5py.File(tmp_path / "a.h5") as file:
        stored = file["images"].id.get_storage_size()
    assert columns["images"].storage == Storage("lzf", 20, stored, 1000 * 16 * 8)
    assert columns["jets/pt"].storage == Storage("gzip 4", 10, None, 4000)
    assert tables[1000].clusters == (100,) * 10
    assert (tables[1000].stored_bytes, tables[1000].decoded_bytes) == (None, 1000 * (16 * 8 + 12))
    assert tables[10].columns[0].storage == Storage("", 1, 80, 80)


def test_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(1000.0), "lists": [[1, 2]] * 1000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300, compression="zstd")
    found = only_table(tmp_path / "a.parquet")
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    sizes = [metadata.row_group(n).column(0).total_compressed_size for n in range(4)]
    assert (found.format, found.name, found.clusters) == ("parquet", "", (300, 300, 300, 100))
    storage = found.columns[0].storage
    assert (storage.compression, storage.blocks, storage.stored_bytes) == ("zstd", 4, sum(sizes))


def test_a_format_without_sizes_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{n},{n / 2}\n" for n in range(50)))
    found = only_table(tmp_path / "a.csv")
    assert (found.format, found.entries, [c.name for c in found.columns]) == ("csv", 50, ["x", "y"])
    assert (found.stored_bytes, found.columns[0].storage) == (None, Storage())


class Counted:
    """A blob that counts the bytes that are read."""

    def __init__(self, blob: Blob, ranges: list[tuple[int, int]]) -> None:
        self._blob, self._ranges = blob, ranges

    def read(self, start: int, stop: int) -> Any:
        self._ranges.append((start, stop))
        return self._blob.read(start, stop)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> Any:
        self._ranges += ranges
        return self._blob.read_ranges(ranges)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blob, name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every range that the readers ask for."""
    ranges: list[tuple[int, int]] = []
    original: Callable[..., Blob] = blob.open_blob
    monkeypatch.setattr(readers, "open_blob", lambda *args: Counted(original(*args), ranges))
    return ranges


@pytest.mark.xrootd
@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_900_columns_over_xrootd_in_a_second(tmp_path: Path, counted: list[tuple[int, int]], kind: str) -> None:
    if not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    path, values = tmp_path / "wide.root", np.random.default_rng(1).random((WIDE_COLUMNS, WIDE_ENTRIES), np.float32)
    columns = {f"column{number}": values[number] for number in range(WIDE_COLUMNS)}
    with uproot.recreate(path, compression=None) as file:
        if kind == "ttree":
            file.mktree("Events", dict.fromkeys(columns, np.float32)).extend(columns)
        else:
            file.mkrntuple("Events", columns)
    with xrootd.xrootd_server(tmp_path) as server:
        start = time.perf_counter()
        (table,) = sr.inspect(server.url("wide.root")).tables
        seconds = time.perf_counter() - start
    assert len(table.columns) == WIDE_COLUMNS
    assert (table.stored_bytes or 0) >= values.nbytes
    read = sum(stop - start for start, stop in counted)
    assert read < 0.05 * path.stat().st_size
    assert seconds < 5  # alone it takes less than one; a busy machine may take more
