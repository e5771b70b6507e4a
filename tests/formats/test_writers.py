"""What every writer does with a table, and what is particular to each; see also `test_round_trips`."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
import zarr

from storagering.errors import NotFoundError, OutputError, SchemaError, SpecError
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.formats.writers import FORMATS, ExportFormat, writer_class
from storagering.formats.writers.output import Written, check_output, write_output
from storagering.formats.writers.writer import WriteOptions
from storagering.testing.contracts import make_batch, sample_columns, sample_unions
from storagering.types import Batch

JETS = {
    "run": np.array([1, 2, 3], np.uint32),
    "Jet_pt": ak.Array([[1.5, 2.5], [], [3.5]]),
    "Jet_eta": ak.Array([[0.5, -0.5], [], [1.0]]),
    "image": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
}


def write(path: Path, kind: ExportFormat, *batches: Batch, options: WriteOptions | None = None) -> Written:
    return write_output(writer_class(kind), path, batches[0].schema, lambda: batches, options or WriteOptions())


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
class TestEveryWriter:
    def test_a_file_appears_whole_or_not_at_all(self, tmp_path: Path, kind: ExportFormat) -> None:
        batch = make_batch(JETS)

        def failing() -> Iterator[Batch]:
            yield batch
            assert [name[:13] for name in left_in(tmp_path) if not name.endswith(".folder")] in ([".storagering-"], [])
            raise OSError("the source is gone")

        with pytest.raises(OSError, match="gone"):
            write_output(writer_class(kind), tmp_path / "out", batch.schema, failing, WriteOptions())
        assert left_in(tmp_path) == []
        written = write(tmp_path / "out", kind, batch, batch)
        assert left_in(tmp_path) == ["out"]
        assert written.entries == 6
        assert written.raw_bytes == 2 * sum(a.nbytes for arrays in batch.arrays.values() for a in arrays)

    def test_what_is_there_stays_unless_it_may_go(self, tmp_path: Path, kind: ExportFormat) -> None:
        batch = make_batch(JETS)
        out = tmp_path / "out"
        out.write_text("precious")
        with pytest.raises(OutputError, match="--force"):
            write(out, kind, batch)
        assert out.read_text() == "precious"
        assert left_in(tmp_path) == ["out"]
        for _ in range(2):  # over a file, and over what was written
            write_output(writer_class(kind), out, batch.schema, lambda: [batch], WriteOptions(), force=True)
        assert left_in(tmp_path) == ["out"]
        assert out.is_dir() == (kind == "zarr")

    def test_every_compression_is_read_by_the_library(self, tmp_path: Path, kind: ExportFormat) -> None:
        columns = {"x": np.arange(1000) % 7, "Jet_pt": ak.unflatten(np.arange(1000.0), np.full(500, 2))}
        columns["Jet_pt"] = ak.concatenate([columns["Jet_pt"], columns["Jet_pt"]])
        batch = make_batch(columns)
        sizes = {}
        for codec, level in writer_class(kind).compressions.items():
            for text in (codec, f"{codec}:{level}")[: 1 + (level is not None)]:
                out = tmp_path / text.replace(":", "-")
                sizes[codec] = write(out, kind, batch, options=WriteOptions(compression=text)).nbytes
                x = read_with_library(out, kind)
                assert x.dtype == np.int64
                assert np.array_equal(x, columns["x"])
        assert sizes["none"] == max(sizes.values())
        assert len(set(sizes.values())) > 1
        with pytest.raises(SpecError, match=f"{kind} has .*none"):
            write(tmp_path / "out", kind, batch, options=WriteOptions(compression="rar"))
        with pytest.raises(SpecError, match="no levels"):
            write(tmp_path / "out", kind, batch, options=WriteOptions(compression="none:3"))
        assert "out" not in left_in(tmp_path)

    def test_refusals_are_reasons(self, kind: ExportFormat) -> None:
        batch = make_batch(sample_columns(9) | sample_unions(9))
        refusals = writer_class(kind).refusals(batch.schema)
        assert "empty_record" in refusals
        assert kind in ("hdf5", "zarr") or "union" in refusals
        assert all(len(why) > 10 and "\n" not in why for why in refusals.values())
        assert not set(refusals) & {f"flat_{t}" for t in ("bool", "u1", "i2", "u4", "u8", "f4", "f8")} - {"bytes"}
        assert not set(refusals) & {f"jagged_{t}" for t in ("bool", "u1", "i2", "u4", "u8", "f4", "f8")}

    def test_the_librarys_errors_are_ours(self, tmp_path: Path, kind: ExportFormat) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write it"):
            write(tmp_path / "file" / "out", kind, make_batch(JETS))


def read_with_library(path: Path, kind: ExportFormat) -> Any:
    """The column ``x``, read by the field's own library alone."""
    if kind in ("root", "rntuple"):
        with uproot.open(path) as file:
            return ak.to_numpy(file["events"]["x"].array())
    if kind == "parquet":
        return pq.read_table(path, page_checksum_verification=True)["x"].to_numpy()
    if kind == "arrow":
        return pa.ipc.open_file(path).read_all()["x"].to_numpy()
    if kind == "hdf5":
        with h5py.File(path) as file:
            return file["events/x"][:]
    return zarr.open_group(path, mode="r")["x"][:] if kind == "zarr" else np.load(path)["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("kind", ["parquet", "arrow"])  # the other libraries need a file that they can seek in
def test_a_full_disk_is_said_to_be_full(kind: ExportFormat) -> None:
    def fill() -> None:
        batch = make_batch({"x": np.random.default_rng(1).random(300_000)})
        writer = writer_class(kind)(Path("/dev/full"), batch.schema, WriteOptions())
        for _ in range(20):
            writer.write(batch)

    with pytest.raises(OutputError, match="/dev/full: the disk is full"):
        fill()


def described(columns: dict[str, Any], docs: dict[str, str]) -> Batch:
    arrays = {name: ak.Array(array) for name, array in columns.items()}
    schema = assign_keys([describe_column(n, a, doc=docs.get(n, "")) for n, a in arrays.items()])
    return to_batch(schema, arrays, len(next(iter(arrays.values()))))


def test_titles_and_units_find_their_place(tmp_path: Path) -> None:
    batch = described(JETS, {"run": "run number", "Jet_pt": "transverse momentum [GeV]"})
    for kind in FORMATS:
        write(tmp_path / kind, kind, batch, batch)
    with uproot.open(tmp_path / "root") as file:
        assert file["events"]["Jet_pt"].title == "transverse momentum [GeV]"
        assert file["events"]["run"].title == "run number"
        assert file["events"]["Jet_pt"].array().tolist() == [[1.5, 2.5], [], [3.5]] * 2
    with uproot.open(tmp_path / "rntuple") as file:
        assert file["events"]["Jet_pt"].description == "transverse momentum [GeV]"
    for schema in (pq.read_schema(tmp_path / "parquet"), pa.ipc.open_file(tmp_path / "arrow").schema):
        assert schema.field("Jet_pt").metadata == {b"doc": b"transverse momentum [GeV]", b"unit": b"GeV"}
    with h5py.File(tmp_path / "hdf5") as file:
        assert dict(file["events/Jet_pt"].attrs) == {
            "storagering": "jagged",
            "doc": "transverse momentum [GeV]",
            "units": "GeV",
        }
        assert list(file["events"]) == list(JETS)
    group = zarr.open_group(tmp_path / "zarr", mode="r")
    assert group["Jet_pt"].attrs["units"] == "GeV"
    assert group["run"].attrs["doc"] == "run number"


def test_a_jagged_column_is_offsets_and_values(tmp_path: Path) -> None:
    batch = make_batch(JETS)
    offsets, values = [0, 2, 2, 3, 5, 5, 6], [1.5, 2.5, 3.5] * 2
    for kind in ("hdf5", "zarr", "npz"):
        write(tmp_path / kind, kind, batch, batch)
    with h5py.File(tmp_path / "hdf5") as file:
        assert file["events/Jet_pt/offsets"][:].tolist() == offsets
        assert file["events/Jet_pt/values"][:].tolist() == values
        assert file["events/image"].shape == (6, 2, 2)
        assert file["events/image"].fletcher32
    group = zarr.open_group(tmp_path / "zarr", mode="r")
    assert group["Jet_pt/offsets"][:].tolist() == offsets
    assert group["Jet_pt/values"][:].tolist() == values
    with np.load(tmp_path / "npz") as arrays:
        assert arrays["Jet_pt.offsets"].tolist() == offsets
        assert arrays["Jet_pt.values"].tolist() == values
        assert sorted(arrays) == sorted(
            ["run", "image", "Jet_pt.offsets", "Jet_pt.values", "Jet_eta.offsets", "Jet_eta.values"]
        )


def test_zarr_packs_itself_into_a_zip_file(tmp_path: Path) -> None:
    write(tmp_path / "out.zip", "zarr", make_batch(JETS))
    assert left_in(tmp_path) == ["out.zip"]
    assert {m.compress_type for m in zipfile.ZipFile(tmp_path / "out.zip").infolist()} == {zipfile.ZIP_STORED}
    store = zarr.storage.ZipStore(tmp_path / "out.zip", mode="r")
    assert zarr.open_group(store, mode="r")["run"][:].tolist() == [1, 2, 3]


class TestCounters:
    """Branches that count the lists of a TTree."""

    def keys(self, tmp_path: Path, *tables: dict[str, Any]) -> list[str]:
        write(tmp_path / "out", "root", *map(make_batch, tables))
        with uproot.open(tmp_path / "out") as file:
            tree = file["events"]
            for name in tables[0]:
                want = ak.concatenate([ak.Array(t[name]) for t in tables])
                got = tree[name].array()
                assert ak.array_equal(got, want, same_content_types=True), name
            return [key for key in tree.keys() if key not in tables[0]]  # noqa: SIM118

    def test_a_collection_has_one(self, tmp_path: Path) -> None:
        assert self.keys(tmp_path, JETS, JETS) == ["nJet"]

    def test_the_datasets_own_is_used(self, tmp_path: Path) -> None:
        assert self.keys(tmp_path, JETS | {"nJet": np.array([2, 0, 1], np.int32)}) == []

    @pytest.mark.parametrize("own", [np.array([2, 0, 1], np.uint32), np.array([2, 0, 2], np.int32), np.ones((3, 2))])
    def test_another_column_of_its_name_stays_as_it_is(self, tmp_path: Path, own: Any) -> None:
        assert self.keys(tmp_path, JETS | {"nJet": own}) == ["nJet_"]

    def test_columns_of_other_lengths_have_their_own(self, tmp_path: Path) -> None:
        tags = ak.Array([[1], [2], [3]])
        assert self.keys(tmp_path, JETS | {"Jet_tags": tags}) == ["nJet", "nJet_tags"]

    def test_columns_that_differ_later_get_their_own(self, tmp_path: Path) -> None:
        own = {"nJet": np.array([2, 0, 1], np.int32)}
        later = {"Jet_eta": ak.Array([[0.5], [], [1.0]])}
        assert sorted(self.keys(tmp_path, JETS, JETS | later)) == ["nJet_eta", "nJet_pt"]
        (tmp_path / "out").unlink()
        assert self.keys(tmp_path, JETS | own, JETS | {"nJet": np.array([2, 0, 9], np.int32)}) == ["nJet_"]

    def test_without_entries(self, tmp_path: Path) -> None:
        batch = make_batch({name: ak.Array(array)[:0] for name, array in JETS.items()})
        write(tmp_path / "out", "root", batch)
        with uproot.open(tmp_path / "out") as file:
            assert file["events"].num_entries == 0
            assert set(JETS) < set(file["events"].keys())


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("root", ["a/b", "x[3]", "a;1", "", "a\0b"]),
        ("rntuple", ["a.b", "a/b", "", "a\\b"]),
        ("parquet", ["a\0b"]),
        ("arrow", ["a\0b"]),
        ("hdf5", ["a\0b", ""]),
        ("zarr", [""]),
        ("npz", ["../up", "/abs", "a/b", "a/../b", "", "a\0b", ".", "a\\b", "x" * 300]),
    ],
)
def test_names_that_a_format_cannot_have(kind: ExportFormat, names: list[str]) -> None:
    batch = make_batch({name: np.zeros(1) for name in [*names, "fine"]})
    refusals = writer_class(kind).refusals(batch.schema)
    assert sorted(refusals) == sorted(names)
    assert all(repr(name) in why for name, why in refusals.items())


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_names_like_paths_lead_nowhere(tmp_path: Path, kind: ExportFormat) -> None:
    names = ["../up", "/abs", "a/b", ".", "..", "zarr.json", "a", "A", "col000000"]
    write(tmp_path / "out", kind, make_batch({name: np.full(1, n) for n, name in enumerate(names)}))
    assert left_in(tmp_path) == ["out"]
    group = h5py.File(tmp_path / "out")["events"] if kind == "hdf5" else zarr.open_group(tmp_path / "out", mode="r")
    found = {group[key].attrs.get("storagering_name", key): int(group[key][0]) for key in group}
    assert found == {name: number for number, name in enumerate(names)}


def test_members_of_an_npz_file_are_told_apart() -> None:
    batch = make_batch({"x": JETS["Jet_pt"], "x.values": np.zeros(3), "x.offsets": np.zeros(3), "y": np.zeros(3)})
    refusals = writer_class("npz").refusals(batch.schema)
    assert sorted(refusals) == ["x.offsets", "x.values"]
    assert "'x.values.npy'" in refusals["x.values"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_text_that_is_not_utf8_makes_no_file(tmp_path: Path, kind: ExportFormat) -> None:
    batch = make_batch({"s": ak.Array(["é", "a"])})
    offsets, letters = batch.arrays["s"]
    broken = Batch(batch.schema, 2, {"s": (offsets, np.where(letters == 0xC3, 0x41, letters).astype(np.uint8))})
    with pytest.raises(SchemaError, match=r"column 's' cannot be a column of Arrow.*UTF8"):
        write(tmp_path / "out", kind, broken)
    assert left_in(tmp_path) == []


def test_levels_of_npz(tmp_path: Path) -> None:
    batch = make_batch({"x": np.random.default_rng(1).integers(0, 30, 20_000)})
    sizes = [
        write(tmp_path / level, "npz", batch, options=WriteOptions(compression=f"zlib:{level}")).nbytes
        for level in ("0", "1", "9")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    with pytest.raises(SpecError, match="'zlib:12': zlib has the levels 0 to 9"):
        write(tmp_path / "x", "npz", batch, options=WriteOptions(compression="zlib:12"))


def test_strings_that_hdf5_would_cut_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"'s' has a string with a NUL.*--exclude"):
        write(tmp_path / "out", "hdf5", make_batch({"s": ak.Array(["a", "b\0c"])}))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["root", "rntuple", "hdf5"])
@pytest.mark.parametrize("tree", ["", "a//b", "..\0", "a\nb"])
def test_trees_that_cannot_be(tmp_path: Path, kind: ExportFormat, tree: str) -> None:
    with pytest.raises(SpecError, match="--tree"):
        write(tmp_path / "out", kind, make_batch(JETS), options=WriteOptions(tree))
    assert left_in(tmp_path) == []


def test_a_tree_in_a_folder(tmp_path: Path) -> None:
    for kind in ("root", "rntuple", "hdf5"):
        write(tmp_path / kind, kind, make_batch(JETS), options=WriteOptions("nominal/jets"))
    for kind in ("root", "rntuple"):
        with uproot.open(tmp_path / kind) as file:
            assert file["nominal/jets"].num_entries == 3
    with h5py.File(tmp_path / "hdf5") as file:
        assert len(file["nominal/jets/run"]) == 3


def test_formats_are_known_by_name() -> None:
    with pytest.raises(SpecError, match=r"'csv'.*'root', 'rntuple', 'parquet', 'hdf5', 'zarr', 'arrow', 'npz'"):
        writer_class("csv")


def test_outputs_are_local(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="local paths only") as caught:
        check_output("root://user:secret@host//file.root", force=False)
    assert "secret" not in str(caught.value)
    with pytest.raises(NotFoundError, match="no folder"):
        check_output(tmp_path / "absent" / "out", force=True)
    assert check_output(f"file://{tmp_path}/out", force=False) == tmp_path / "out"


def test_a_folder_that_no_export_made_stays(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    check_output(folder, force=True)  # an empty one may go
    (folder / "thesis.tex").write_text("years")
    batch = make_batch(JETS)
    for kind in FORMATS:
        with pytest.raises(OutputError, match="work is a folder that no export made"):
            check_output(folder, force=True)
        with pytest.raises(OutputError, match="work is a folder that no export made"):
            write_output(writer_class(kind), folder, batch.schema, lambda: [batch], WriteOptions(), force=True)
        assert (left_in(tmp_path), left_in(folder)) == (["work"], ["thesis.tex"])
