"""Conversion through the Python API: what comes out is what the sources hold."""

import io
import itertools
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from storagering.api import append, convert
from storagering.cache.dataset import open_dataset
from storagering.cache.inspection import inspect_sources
from storagering.cache.layout import open_cache
from storagering.cache.opened import KeptSource
from storagering.cache.statistics import describe_batch
from storagering.cache.tasks import plan_build
from storagering.config import load_settings
from storagering.errors import CorruptDataError, InputError, NotFoundError, SchemaError, SpecError
from storagering.formats.source import Location
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree
from storagering.types import ConversionSpec, Manifest, sha256_hex

ENTRIES = 1000


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=100)
    return str(tmp_path / "toy.root")


@pytest.fixture
def toys(tmp_path: Path) -> list[str]:
    for number in range(3):
        write_toy_tree(tmp_path / f"toy{number}.root", entries=300 + number, seed=number)
    return [str(tmp_path / f"toy{number}.root") for number in range(3)]


def same(got: Any, want: Any) -> bool:
    return bool(ak.array_equal(got, ak.Array(want), equal_nan=True, dtype_exact=True))


@pytest.mark.parametrize("profile", ["small", "fast"])
@pytest.mark.parametrize("store", ["zarr", "parquet"])
@pytest.mark.parametrize("kind", ["tree", "rntuple"])
def test_every_column_equals_its_source(tmp_path: Path, kind: str, store: Any, profile: Any) -> None:
    write = write_toy_tree if kind == "tree" else write_toy_rntuple
    write(tmp_path / "toy.root", entries=ENTRIES)
    path = str(tmp_path / "toy.root")
    dataset = convert(path, name="toy", format=store, profile=profile, chunk_bytes=20_000, workers=1)
    assert len(dataset) == dataset.num_entries == ENTRIES
    assert len(dataset.manifest.chunks) > 3
    arrays = dataset.arrays()
    columns = toy_columns(ENTRIES, nested=kind == "rntuple")
    assert set(arrays.fields) == set(columns)
    for name, want in columns.items():
        assert same(arrays[name], want), name
    assert same(dataset.arrays(["Jet_pt"], 10, 700).Jet_pt, columns["Jet_pt"][10:700])
    assert same(dataset.arrays(["run", "event"], 999, 5000).event, columns["event"][999:])
    assert dataset.arrays(start=ENTRIES).type == dataset.arrays(start=0, stop=0).type
    assert len(dataset.arrays(start=5000)) == 0
    with pytest.raises(SpecError, match="count from the start"):
        dataset.arrays(start=-1)
    assert repr(dataset) == f"<Dataset 'toy': 1,000 entries, {len(columns)} columns>"
    again = open_dataset("toy")
    assert again.manifest == dataset.manifest


def test_chunks_have_about_the_size_asked_for(toy: str) -> None:
    manifest = convert(toy, name="toy", chunk_bytes=40_000, workers=1).manifest
    sizes = [chunk.raw_bytes for chunk in manifest.chunks]
    assert all(0.3 * 40_000 < size < 1.5 * 40_000 for size in sizes[:-1]), sizes
    assert [c.file for c in manifest.chunks] == [f"chunk-{n:06d}.zarr.zip" for n in range(len(sizes))]
    spans = [s for c in manifest.chunks for s in c.spans]
    assert spans[0].start == 0
    assert spans[-1].stop == ENTRIES
    assert all(a.stop == b.start or a == b for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_any_number_of_workers_makes_the_same_dataset(toys: list[str], store: Any) -> None:
    """Byte for byte: chunks, statistics and manifest."""
    cache = open_cache(load_settings())
    found: list[tuple[Manifest, dict[str, bytes]]] = []
    for workers in (1, 2, 3):
        manifest = convert(
            toys, name="toy", workers=workers, chunk_bytes=8192, where="nJet > 1", define={"ht": "sum(Jet_pt)"},
            format=store,
        ).manifest  # fmt: skip
        found.append((manifest, {p.name: p.read_bytes() for p in sorted(cache.path("toy").iterdir())}))
        cache.remove("toy")
    assert len(found[0][0].chunks) > 10
    for manifest, files in found[1:]:
        assert manifest == found[0][0]
        assert files == found[0][1]


def test_several_files_are_joined_in_order(toys: list[str]) -> None:
    dataset = convert(toys, name="toy", workers=1, chunk_bytes=5000)
    want = np.concatenate([toy_columns(300 + n, n)["event"] for n in range(3)])
    assert same(dataset.arrays().event, want)
    assert [f.entries for f in dataset.manifest.sources] == [300, 301, 302]
    assert [f.url for f in dataset.manifest.sources] == toys


def test_statistics_are_those_of_all_entries(toys: list[str]) -> None:
    manifest = convert(toys, name="toy", workers=1, chunk_bytes=5000).manifest
    cache = open_cache(load_settings())
    cache.remove("toy")
    one = convert(toys, name="toy", workers=1)
    whole = describe_batch(next(one.batches()))
    for column, found, want in zip(manifest.schema.columns, manifest.statistics, whole, strict=True):
        assert found is not None
        assert want is not None
        assert replace(found, mean=None, sum_squares=0) == replace(want, mean=None, sum_squares=0), column.name
        assert found.mean == pytest.approx(want.mean, rel=1e-9)
        assert found.std == pytest.approx(want.std, rel=1e-6, abs=1e-16 * abs(want.mean or 0))


def test_columns_and_exclude_take_patterns(toy: str) -> None:
    def names(name: str, **options: Any) -> tuple[str, ...]:
        return convert(toy, name=name, workers=1, **options).schema.names

    assert names("a", columns=["Jet_*", "run"], exclude=["*_id"]) == ("run", "Jet_pt", "Jet_eta")
    assert set(names("b", exclude=["Jet_*", "image"])) == set(toy_columns(1)) - {"Jet_pt", "Jet_eta", "Jet_id", "image"}
    assert names("c", columns=["run"], define={"x": "run + 1", "y": "x * 2"}) == ("run", "x", "y")
    assert names("d", columns=[], define={"x": "sum(Jet_pt)"}) == ("x",)
    with pytest.raises(SchemaError, match="'Jet_pT' matches no column; nearest names: 'Jet_pt'"):
        names("e", columns=["Jet_pT"])
    with pytest.raises(SchemaError, match="no column is left"):
        names("f", exclude=["*"])
    with pytest.raises(SpecError, match="has a column 'run' already"):
        names("g", define={"run": "event"})
    assert open_cache(load_settings()).names() == list("abcd")


@pytest.mark.parametrize("workers", [1, 2])
def test_selection_and_definitions_equal_awkwards(toy: str, workers: int) -> None:
    columns = toy_columns(ENTRIES)
    dataset = convert(
        toy,
        name="toy",
        columns=["event", "Jet_pt", "image"],
        where="any(Jet_pt > 60) & (nVtx < 35) & passed",
        define={"ht": "sum(Jet_pt)", "central": "abs(Jet_eta) < 1"},
        chunk_bytes=4096,
        workers=workers,
    )
    keep = ak.any(columns["Jet_pt"] > 60, axis=1) & (columns["nVtx"] < 35) & columns["passed"]
    assert 0 < len(dataset) == ak.sum(keep) < ENTRIES
    arrays = dataset.arrays()
    assert set(arrays.fields[:3]) == {"event", "Jet_pt", "image"}
    assert arrays.fields[3:] == ["ht", "central"]
    for name in ("event", "Jet_pt", "image"):
        assert same(arrays[name], columns[name][keep]), name
    assert ak.array_equal(arrays.central, abs(columns["Jet_eta"][keep]) < 1)
    np.testing.assert_allclose(arrays.ht, ak.sum(columns["Jet_pt"][keep], axis=1), rtol=1e-5)


@pytest.mark.scenario(44)
def test_no_survivor_makes_a_valid_empty_dataset(toy: str) -> None:
    dataset = convert(toy, name="toy", where="nVtx < 0", workers=1)
    assert len(dataset) == 0
    assert dataset.manifest.chunks == ()
    arrays = dataset.arrays(["Jet_pt", "run"])
    assert len(arrays) == 0
    assert str(arrays.type) == "0 * {Jet_pt: var * float32, run: uint32}"
    assert len(open_dataset("toy").arrays()) == 0


def test_labels_count_the_classes_in_order(toys: list[str]) -> None:
    want = [1] * 0 + [0] * 300 + [1] * 301 + [1] * 302
    by_mapping = convert({"sig": toys[0], "bkg": toys[1:]}, name="a", workers=1, chunk_bytes=4096)
    by_option = convert(labels={"sig": toys[:1], "bkg": toys[1:]}, name="b", workers=1)
    by_list = convert(toys, labels=["sig", "bkg", "bkg"], name="c", workers=1)
    for dataset in (by_mapping, by_option, by_list):
        assert dataset.manifest.spec.classes == ("sig", "bkg")
        assert dataset.arrays(["label"]).label.to_list() == want
        assert [f.label for f in dataset.manifest.sources] == ["sig", "bkg", "bkg"]
    with pytest.raises(SpecError, match="one class name for each source"):
        convert(toys, labels=["sig"], name="d")
    with pytest.raises(SpecError, match="every source needs its class"):
        convert(toys[0], labels={"sig": toys[1]}, name="d")


def test_the_same_spec_returns_the_same_dataset(toy: str) -> None:
    first = convert(toy, name="toy", workers=1, where="nVtx > 20")
    before = {p.name: p.stat().st_mtime_ns for p in first.path.iterdir()}
    again = convert([toy], name="toy", workers=2, where="nVtx > 20")
    assert again.manifest == first.manifest
    assert {p.name: p.stat().st_mtime_ns for p in first.path.iterdir()} == before


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"where": "nVtx > 21"}, "where: None there, nVtx > 21 asked for"),
        ({"profile": "fast"}, "profile: small there, fast"),
        ({"format": "parquet"}, "format: zarr there, parquet"),
        ({"chunk_bytes": 4096}, "chunk_bytes: 16777216 there, 4096"),
    ],
)
def test_another_spec_is_refused_with_the_differences(toy: str, option: dict[str, Any], text: str) -> None:
    convert(toy, name="toy", workers=1)
    with pytest.raises(SpecError, match=f"'toy' is there already, made otherwise .{text}.*storagering remove toy"):
        convert(toy, name="toy", workers=1, **option)


@pytest.mark.scenario(47)
@pytest.mark.parametrize(
    "name", ["", ".x", "-x", "a/b", "a b", "x" * 101, "datasets", "Columns", "é", "a\n", "..", "a\0b"]
)
def test_names_that_cannot_be(toy: str, name: str) -> None:
    with pytest.raises(InputError, match="dataset name"):
        convert(toy, name=name)
    assert not open_cache(load_settings()).names()


@pytest.mark.scenario(47)
def test_names_that_sql_must_quote(toy: str) -> None:
    for name in ("a-b", "a.b", "1st", "select", "x" * 100, "_", "UPPER"):
        assert convert(toy, name=name, workers=1).name == name


@pytest.mark.scenario(50)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunk_bytes": 100}, SpecError),
        ({"where": "nope > 1"}, SpecError),
        ({"where": "Jet_pt > 1"}, SpecError),
        ({"where": "__import__('os')"}, SpecError),
        ({"where": ""}, SpecError),
        ({"define": {"x": "1 +"}}, SpecError),
        ({"tree": "Evnts"}, NotFoundError),
    ],
)
def test_what_cannot_be_carried_out(toy: str, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        convert(toy, name="toy", workers=1, **options)
    cache = open_cache(load_settings())
    assert not cache.names()
    assert not list((cache.root / "staging").iterdir())


@pytest.mark.parametrize("workers", [0, -1])
def test_there_must_be_a_worker(toy: str, workers: int) -> None:
    with pytest.raises(SpecError, match="workers is a number of processes, at least 1"):
        convert(toy, name="toy", workers=workers)
    with pytest.raises(SpecError, match="at least 1"):
        append("toy", toy, workers=workers)


def test_workers_run_no_modules_of_the_folder_they_are_in(
    toys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "msgspec.py").write_text("from pathlib import Path; Path('ran').touch()")
    monkeypatch.chdir(tmp_path / "cwd")
    assert len(convert(toys, name="toys", workers=2, chunk_bytes=4096)) == 903
    assert not (tmp_path / "cwd" / "ran").exists()


def test_entries_that_grow_after_the_first_ones_are_read_in_small_pieces(tmp_path: Path) -> None:
    """What is read at once must fit into memory, whatever the first entries look like."""
    path, step, chunk_bytes = str(tmp_path / "grows.root"), 1000, 1 << 16
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"x": "var * float32"})
        for block in range(20):
            tree.extend({"x": ak.from_regular(np.zeros((step, 20 if block else 0), np.float32))})
    settings, spec = load_settings(), ConversionSpec(((path, None),), chunk_bytes=chunk_bytes)
    with closing(KeptSource()) as kept:
        inspection = inspect_sources([Location(path)], spec, settings, "", kept)
        plan = plan_build(inspection, spec, settings, str(tmp_path), "", kept)
    assert {span.stop - span.start for task in plan.tasks for span in task.pieces} == {step}
    assert max(sum(s.stop - s.start for s in task.pieces) for task in plan.tasks) * 80 < 6 * chunk_bytes


def test_absent_chunks_are_filled_as_in_the_dataset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", (100,), "f4", chunks=(10,), fillvalue=-1)[:50] = 1
    a, b = str(tmp_path / "a.h5"), str(tmp_path / "b.h5")
    made = convert(a, name="x", settings=load_settings(fill_absent_chunks=True, workers=1))
    assert made.manifest.spec.fill_absent_chunks
    with pytest.raises(SpecError, match="fill_absent_chunks: True there, False asked for"):
        convert(a, name="x", workers=1)
    assert append("x", b, workers=1).arrays().x.to_list() == ([1] * 50 + [-1] * 50) * 2
    with pytest.raises(CorruptDataError, match="never written"):
        convert(a, name="strict", workers=1)


def test_titles_and_units_are_kept(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "x.root") as file:
        file.mktree("t", {"pt": "f4", "n": "i4"}, title="t")
        file["t"].extend({"pt": np.zeros(3), "n": np.zeros(3)})
    columns = convert(str(tmp_path / "x.root"), name="x", workers=1).schema.columns
    assert [(c.name, c.unit, c.doc) for c in columns] == [("pt", "", ""), ("n", "", "")]


@pytest.mark.scenario(47)
@pytest.mark.parametrize("kind", ["tree", "rntuple"])
def test_evil_column_names_are_only_names(tmp_path: Path, kind: str) -> None:
    names = ["../x", "'; DROP TABLE datasets; --", "zarr.json", "c/0", "pt", "Pt", "a\nb", ".", "__x", "CON", '"']
    columns = {name: np.arange(5) + number * 1.0 for number, name in enumerate(names)}
    with uproot.recreate(tmp_path / "x.root") as file:
        if kind == "tree":
            file.mktree("t", dict.fromkeys(names, "f8"))
            file["t"].extend(columns)
        else:
            file.mkrntuple("t", ak.zip({n: np.zeros(0) for n in names}, depth_limit=1).layout.form)
            file["t"].extend(ak.zip(columns, depth_limit=1))
    for store in ("zarr", "parquet"):
        dataset = convert(str(tmp_path / "x.root"), name=store, workers=1, format=store)
        assert set(dataset.schema.names) == set(names)
        for name, want in columns.items():
            assert dataset.arrays([name])[name].to_list() == want.tolist(), name
        assert {p.name for p in dataset.path.parent.iterdir()} <= {"zarr", "parquet"}


def test_the_statistics_of_every_chunk_lie_beside_the_manifest(toy: str) -> None:
    dataset = convert(toy, name="x", columns=["MET_pt", "Jet_pt"], chunk_bytes=4096)
    file, digest = dataset.manifest.chunk_statistics
    data = (dataset.path / file).read_bytes()
    assert sha256_hex(data) == digest
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert len(rows) == 2 * (len(dataset.manifest.chunks) + 1) > 4
    for row in rows[:-2]:
        chunk = dataset.manifest.chunks[row["chunk"]]
        numbers = ak.flatten(dataset.arrays([row["column"]], chunk.start, chunk.stop)[row["column"]], axis=None)
        assert (row["count"], row["min"], row["max"]) == (len(numbers), min(numbers), max(numbers))
    assert [row["chunk"] for row in rows[-2:]] == [None, None]
    assert [sum(row["bucket_counts"]) for row in rows[-2:]] == [row["count"] for row in rows[-2:]]
