"""HDF5 files as h5py, PyTables and our exporter write them, against h5py itself."""

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tests.formats.hdf5_files import JETS, TRACKS, everything, read, same, structured, write_salt

import storagering as sr
from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, NotFoundError, SchemaError
from storagering.formats.readers import open_source
from storagering.formats.source import SeveralTablesError, UnreadableColumnsError
from storagering.formats.writers import writer_class
from storagering.formats.writers.output import write_output
from storagering.formats.writers.writer import WriteOptions
from storagering.testing.contracts import make_batch, sample_columns
from storagering.testing.source_contract import SourceContract

QUIETLY = hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def test_structured_datasets_of_one_length_are_one_table(tmp_path: Path, settings: Settings) -> None:
    jets, tracks = write_salt(tmp_path / "salt.h5")
    with closing(open_source(str(tmp_path / "salt.h5"), None, settings)) as source:
        assert (source.format, source.tree, source.entries) == ("hdf5", "", 250)
        assert list(source.columns) == [f"jets/{f[0]}" for f in JETS] + [f"tracks/{f[0]}" for f in TRACKS]
        assert source.columns["jets/p4"] == "float64[4]"
        assert source.columns["tracks/d0"] == "float32[5]"
        assert source.boundaries(["jets/pt"]) == [0, 100, 200, 250]
        assert source.boundaries(["tracks/d0"]) == [0, 50, 100, 150, 200, 250]
        assert source.boundaries(list(source.columns)) == [0, 100, 200, 250]
        for name, *_ in JETS:
            assert same(read(source, f"jets/{name}"), jets[name])
        for name, *_ in TRACKS:
            assert same(read(source, f"tracks/{name}"), tracks[name])
        some = source.read(["tracks/hits", "jets/big", "tracks/d0"], 99, 201)
        assert same(some["tracks/hits"], tracks["hits"][99:201])
        assert same(some["jets/big"], jets["big"][99:201])


def test_one_dataset_is_chosen_by_name(tmp_path: Path, settings: Settings) -> None:
    jets, _ = write_salt(tmp_path / "salt.h5")
    with closing(open_source(str(tmp_path / "salt.h5"), "jets", settings)) as source:
        assert list(source.columns) == [f[0] for f in JETS]
        assert same(read(source, "pt"), jets["pt"])
    with closing(open_source(str(tmp_path / "salt.h5"), "jets,tracks", settings)) as source:
        assert len(source.columns) == len(JETS) + len(TRACKS)
    for wrong in ("jts", "jets,none", "cutBookkeeper"):
        with pytest.raises(NotFoundError, match=wrong):
            open_source(str(tmp_path / "salt.h5"), wrong, settings)


@pytest.mark.parametrize(("tree", "name"), [("/a/jets/", "a/jets"), ("/a/jets, /b", "a/jets,b"), ("/", "")])
def test_slashes_around_a_name(tmp_path: Path, settings: Settings, tree: str, name: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/jets/pt"], file["b"] = np.arange(3), np.arange(3)
    with closing(open_source(str(tmp_path / "x.h5"), tree, settings)) as source:
        assert source.tree == name


def test_datasets_of_different_lengths_are_listed(tmp_path: Path, settings: Settings) -> None:
    write_salt(tmp_path / "salt.h5")
    with h5py.File(tmp_path / "salt.h5", "a") as file:
        file["eventwise"] = structured([("n", "i4")], (7,))
    with pytest.raises(SeveralTablesError, match=r"2 tables of different lengths: .*choose one with --tree") as caught:
        open_source(str(tmp_path / "salt.h5"), None, settings)
    assert set(caught.value.tables) == {"jets,tracks", "eventwise"}
    for tree, entries in {"jets,tracks": 250, "eventwise": 7}.items():
        with closing(open_source(str(tmp_path / "salt.h5"), tree, settings)) as source:
            assert (source.tree, source.entries) == (tree, entries)


def test_a_single_structured_dataset_gives_its_fields(tmp_path: Path) -> None:
    values = structured(JETS, (9,))
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["group/table"] = values
    assert list(everything(tmp_path / "one.h5")) == [f[0] for f in JETS]


def test_images_beside_numbers(tmp_path: Path, settings: Settings) -> None:
    rng = np.random.default_rng(3)
    images, energies = rng.random((60, 5, 4, 3), "f4"), rng.random(60)
    with h5py.File(tmp_path / "calo.h5", "w") as file:
        file.create_dataset("events/ECAL", data=images, chunks=(7, 5, 2, 3), compression="gzip", fletcher32=True)
        file["events/energy"] = energies
        file["events/energy"].attrs.update({"units": "GeV", "description": b"true energy"})
        file["events/target/xy"] = images[:, 0, :2, 0]
    with closing(open_source(str(tmp_path / "calo.h5"), None, settings)) as source:
        assert (source.tree, source.entries) == ("events", 60)
        assert list(source.columns) == ["ECAL", "energy", "target/xy"]
        assert same(read(source, "ECAL"), images)
        assert same(source.read(["ECAL"], 13, 22)["ECAL"], images[13:22])
        assert same(read(source, "target/xy"), images[:, 0, :2, 0])
        assert source.doc("energy") == "true energy [GeV]"
        assert 0 < source.nbytes_of(["energy"]) < source.nbytes_of(["ECAL"]) < source.nbytes
        assert source.boundaries(["ECAL"]) == [0, 7, 14, 21, 28, 35, 42, 49, 56, 60]
        assert source.boundaries(["energy"]) == [0, 60]


@pytest.mark.scenario(48)
@pytest.mark.parametrize("kind", ["<i2", ">i8", "<u8", ">f4", "f2", "<f8", "c8", ">c16", "?", "i1"])
@pytest.mark.parametrize("filters", [{}, {"shuffle": True, "compression": "gzip", "chunks": (3,)}])
def test_numbers_of_every_type(tmp_path: Path, kind: str, filters: dict[str, Any]) -> None:
    values = (np.arange(11) % 5).astype(kind)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "x", data=values, **filters, scaleoffset=0 if filters and values.dtype.kind in "iu" else None
        )
    assert same(everything(tmp_path / "x.h5")["x"], values)


def test_strings(tmp_path: Path) -> None:
    words = ["", "a", "naïve", "x" * 300]
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("vlen", data=words, dtype=h5py.string_dtype())
        file.create_dataset("fixed", data=[w.encode()[:5] for w in words], dtype="S8")
        file.create_dataset("utf8", data=[w.encode()[:10] for w in words], dtype=h5py.string_dtype(length=10))
        file.create_dataset("table", data=[[w, w] for w in words], dtype=h5py.string_dtype(), chunks=(3, 1))
    found = everything(tmp_path / "s.h5")
    assert found["vlen"].to_list() == words
    assert found["fixed"].to_list() == [w[:5] if w.isascii() else "naïv" for w in words]
    assert found["utf8"].to_list() == [w[:10] for w in words]
    assert found["table"].to_list() == [[w, w] for w in words]
    assert str(found["table"].type) == "4 * 2 * string"


def test_variable_length_elements(tmp_path: Path) -> None:
    lists: list[list[float]] = [[1, 2], [], [3]]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        made = file.create_dataset("v", (3,), h5py.vlen_dtype("f4"), chunks=(2,))
        for row, values in enumerate(lists):
            made[row] = values
        inner = file.create_dataset("deep", (3,), h5py.vlen_dtype(h5py.vlen_dtype("i8")))
        inner[1] = np.array([np.array([1, 2]), np.array([3])], object)
        record = np.dtype([("n", "i4"), ("word", h5py.string_dtype()), ("list", h5py.vlen_dtype("u1"))])
        rows = np.zeros(3, record)
        rows["n"], rows["word"] = [1, 2, 3], ["a", "", "bé"]
        for row in range(3):
            rows["list"][row] = np.arange(row, dtype="u1")
        file.create_dataset("r", data=rows, dtype=record)
    found = everything(tmp_path / "v.h5")
    assert (found["v"].to_list(), str(found["v"].type)) == (lists, "3 * var * float32")
    assert found["deep"].to_list() == [[], [[1, 2], [3]], []]
    assert found["r/word"].to_list() == ["a", "", "bé"]
    assert found["r/list"].to_list() == [[], [0], [0, 1]]


def test_enums_dates_and_nested_records(tmp_path: Path, settings: Settings) -> None:
    dates = np.array(["2020-01-01T00:00:01", "NaT"], "M8[ms]")
    nested = np.zeros(2, [("id", "i4"), ("p", [("x", "f4"), ("y", "f8", (2,))])])
    nested["p"]["x"] = [1, 2]
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("enum", data=np.array([1, 2], "i1"), dtype=h5py.enum_dtype({"A": 1, "B": 2}, "i1"))
        file.create_dataset("when", data=dates.astype(h5py.opaque_dtype(dates.dtype)))
        file["nested"] = nested
    with closing(open_source(str(tmp_path / "e.h5"), None, settings)) as source:
        assert read(source, "enum").to_list() == [1, 2]
        assert same(read(source, "when"), dates.view("i8"))
        assert source.doc("when") == "time since 1970-01-01 [ms]"
        assert read(source, "nested/p").to_list() == [{"x": 1, "y": [0, 0]}, {"x": 2, "y": [0, 0]}]


@pytest.mark.scenario(49)
def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.arange(3)
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file["reference"] = np.array([file["good"].ref] * 3, h5py.ref_dtype)
        file["opaque"] = np.array([b"abc"] * 3, "V3")
        file["quad"] = np.zeros(3, np.longdouble)
        file["link"] = h5py.ExternalLink("other.h5", "/secret")
        file["soft"] = h5py.SoftLink("/good")
        file["loop"] = h5py.SoftLink("/")
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (3,), "i8", external=[(str(tmp_path / "other.h5"), 0, 24)])
        file["mixed"] = np.zeros(3, [("x", "f4"), ("raw", "V2")])
    with closing(open_source(str(path), None, settings)) as source:
        assert "soft" not in source.columns
        with pytest.raises(UnreadableColumnsError) as caught:
            source.read(list(source.columns), 0, 3)
        words = {"reference": "references", "opaque": "opaque", "quad": "float128", "link": "another file",
                 "virtual": "another file", "outside": "another file", "mixed/raw": "opaque"}  # fmt: skip
        assert set(caught.value.reasons) == set(words)
        assert all(word in caught.value.reasons[name] for name, word in words.items())
        assert same(source.read(["mixed/x"], 1, 3)["mixed/x"], np.zeros(2, "f4"))
    dataset = sr.convert(path, name="odd", workers=1)
    assert set(dataset.schema.names) == {"good", "mixed/x"}
    assert {s.name for s in dataset.manifest.skipped} == set(words)
    with pytest.raises(SchemaError, match="link"):
        sr.convert(path, name="none", columns=["good", "link"], on_bad_column="fail", workers=1)


def test_an_unknown_filter_is_named(tmp_path: Path, settings: Settings) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((5,))
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 20))  # blosc
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((5,)), properties)
    with (
        closing(open_source(str(tmp_path / "f.h5"), None, settings)) as source,
        pytest.raises(UnreadableColumnsError, match="filter 32001"),
    ):
        source.read(["x"], 0, 5)


@pytest.mark.scenario(18)
@pytest.mark.parametrize("filters", [{"chunks": (4, 2)}, {"chunks": (4, 2), "compression": "gzip"}, {}])
def test_rows_never_written_are_no_fill_values(tmp_path: Path, filters: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "half.h5", "w") as file:
        made = file.create_dataset("x", (10, 3), "f4", **filters)
        if filters:
            made[:4] = 1
    with closing(open_source(str(tmp_path / "half.h5"), None, load_settings())) as source:
        if filters:
            assert same(source.read(["x"], 0, 4)["x"], np.ones((4, 3), "f4"))
        with pytest.raises(CorruptDataError, match=r"half\.h5.*'x'.*never written.*FILL_ABSENT_CHUNKS"):
            source.read(["x"], 3, 5)
    with closing(open_source(str(tmp_path / "half.h5"), None, load_settings(fill_absent_chunks=True))) as source:
        assert same(source.read(["x"], 4, 10)["x"], np.zeros((6, 3), "f4"))


@pytest.mark.parametrize("dtype", ["i4", "i8", "u8"])
def test_offsets_and_values_are_lists(tmp_path: Path, settings: Settings, dtype: str) -> None:
    counts = np.random.default_rng(5).integers(0, 4, 100)
    values = np.arange(counts.sum() * 2, dtype="f4").reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    with h5py.File(tmp_path / "j.h5", "w") as file:
        file.create_dataset("Events/Jet_p/offsets", data=offsets.astype(dtype), chunks=(10,))
        file.create_dataset("Events/Jet_p/values", data=values, chunks=(7, 2))
        file["Events/n"] = counts
    with closing(open_source(str(tmp_path / "j.h5"), None, settings)) as source:
        assert list(source.columns) == ["Jet_p", "n"]
        want = ak.unflatten(ak.to_regular(values), counts)
        for start, stop in [(0, 100), (13, 57), (99, 100), (50, 50)]:
            got = source.read(["Jet_p"], start, stop)["Jet_p"]
            assert ak.array_equal(got, want[start:stop], dtype_exact=True)


def test_groups_that_only_look_like_lists_are_not(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "j.h5", "w") as file:
        file["a/offsets"], file["a/values"] = np.arange(5), np.arange(5.0)
        file["b/counts"], file["b/values"] = np.ones(5, int), np.arange(5.0)
    assert set(everything(tmp_path / "j.h5")) == {"a/offsets", "a/values", "b/counts", "b/values"}


@pytest.mark.scenario(45)
def test_damaged_offsets(tmp_path: Path, settings: Settings) -> None:
    with h5py.File(tmp_path / "j.h5", "w") as file:
        file["x/offsets"], file["x/values"] = np.array([0, 3, 1, 4]), np.arange(4.0)
    with (
        closing(open_source(str(tmp_path / "j.h5"), None, settings)) as source,
        pytest.raises(CorruptDataError, match=r"j\.h5.*'x'.*negative"),
    ):
        source.read(["x"], 0, 3)
    with h5py.File(tmp_path / "j.h5", "a") as file:
        file["x"].attrs["storagering"] = "jagged"
        del file["x/values"]
    with pytest.raises(CorruptDataError, match="lacks some of its arrays"):
        open_source(str(tmp_path / "j.h5"), None, settings)


SCALARS = st.one_of(
    stn.integer_dtypes(endianness="?"), stn.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    stn.boolean_dtypes(), stn.byte_string_dtypes(min_len=1, max_len=5),
)  # fmt: skip
FIELDS = st.lists(
    st.tuples(st.text("aé /.%", min_size=1, max_size=3), SCALARS, stn.array_shapes(min_dims=0, max_dims=2, max_side=3)),
    min_size=1,
    max_size=4,
    unique_by=lambda field: field[0],
)


@given(fields=FIELDS, shape=stn.array_shapes(max_dims=3, max_side=4), chunked=st.booleans())
@QUIETLY
def test_any_structured_array(tmp_path: Path, fields: list[Any], shape: tuple[int, ...], chunked: bool) -> None:
    values = structured(fields, shape)
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file.create_dataset("t", data=values, chunks=tuple(max(1, n // 2) for n in values.shape) if chunked else None)
    found = everything(tmp_path / "any.h5")
    assert list(found) == list(values.dtype.names or ())
    for name, array in found.items():
        want = values[name]
        if want.dtype.kind == "S":
            raw = ak.without_parameters(array).to_list()
            assert raw == want_bytes(want.tolist())
        else:
            assert same(array, want)


def want_bytes(item: Any) -> Any:
    """Bytes as lists of numbers, at any depth."""
    return list(item) if isinstance(item, bytes) else [want_bytes(one) for one in item]


def test_a_file_without_arrays(tmp_path: Path, settings: Settings) -> None:
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["scalar"] = 1.0
        file["null"] = h5py.Empty("f4")
    with pytest.raises(FormatError, match=r"none\.h5 holds no array"):
        open_source(str(tmp_path / "none.h5"), None, settings)


def test_converting_goes_chunk_by_chunk_in_parallel(tmp_path: Path) -> None:
    jets, tracks = write_salt(tmp_path / "a.h5", 3000)
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    dataset = sr.convert([tmp_path / "a.h5", tmp_path / "b.h5"], name="salt", chunk_bytes=20_000, workers=2)
    arrays = dataset.arrays(["jets/p4", "tracks/valid"])
    assert len(dataset.manifest.chunks) > 4
    assert same(arrays["jets/p4"], np.concatenate([jets["p4"]] * 2))
    assert same(arrays["tracks/valid"], np.concatenate([tracks["valid"]] * 2))


class TestContract(SourceContract):
    format = "hdf5"
    samples = 40

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        batch = make_batch(columns)
        write_output(writer_class("hdf5"), path, batch.schema, lambda: [batch], WriteOptions(), force=True)

    def columns(self, entries: int) -> dict[str, Any]:
        columns = sample_columns(entries)
        columns["string"] = ak.str.replace_substring(columns["string"], pattern="\0", replacement="")
        return columns
