"""``sparse=``: smaller on disk, and the same to everybody who looks."""

import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pytest
import zarr

import storagering as sr
from storagering.config import load_settings
from storagering.errors import SchemaError, SpecError
from storagering.formats.readers import open_source
from storagering.formats.source import Location
from storagering.formats.writers import FORMATS, ExportFormat
from storagering.testing.contracts import bits
from storagering.testing.schemas import random_numbers
from storagering.types import Array

ENTRIES = 300
SHAPE = (6, 5, 4)


def showers(dtype: str, seed: int) -> Array:
    """Images with one in ten places lit, by any bits; some of them dark."""
    rng = np.random.default_rng(seed)
    lit = rng.random((ENTRIES, *SHAPE)) < 0.1
    lit[::7] = False
    images = np.zeros((ENTRIES, *SHAPE), dtype)
    images[lit] = random_numbers(rng, dtype, int(lit.sum()))
    return images


@pytest.fixture
def source(tmp_path: Path) -> str:
    energy = np.random.default_rng(9).uniform(1, 500, ENTRIES).astype("f4")
    with h5py.File(tmp_path / "showers.h5", "w") as file:
        file.create_dataset("images", data=showers("f4", 0), chunks=(16, *SHAPE), compression="gzip")
        file.create_dataset("adc", data=showers("u2", 1), chunks=(50, *SHAPE))
        file.create_dataset("calm", data=np.abs(np.nan_to_num(showers("f4", 2), posinf=9, neginf=9)) % 100)
        file.create_dataset("energy", data=energy)
    return str(tmp_path / "showers.h5")


SPARSE = ("images", "adc", "calm")


def pair(source: Any, **options: Any) -> tuple[sr.Dataset, sr.Dataset]:
    usual: dict[str, Any] = {"workers": 1, "chunk_bytes": 30_000}
    dense = sr.convert(source, name="dense", **usual | options)
    return dense, sr.convert(source, name="sparse", sparse=SPARSE, **usual | options)


def assert_same_arrays(dense: sr.Dataset, sparse: sr.Dataset, start: int = 0, stop: int | None = None) -> None:
    got, want = sparse.arrays(start=start, stop=stop), dense.arrays(start=start, stop=stop)
    assert str(got.type) == str(want.type)
    for name in want.fields:
        assert bits((np.asarray(got[name]),)) == bits((np.asarray(want[name]),)), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"profile": "fast", "where": "energy > 250"},
        {"define": {"twice": "energy * 2"}, "precision": {"*": 6}},
        {"format": "parquet"},
    ],
    ids=str,
)
def test_arrays_and_statistics_are_those_of_the_dense_ones(source: str, options: dict[str, Any]) -> None:
    dense, sparse = pair(source, **options)
    assert {c.name for c in sparse.schema.columns if c.kind == "sparse"} == set(SPARSE)
    assert len(sparse.manifest.chunks) > 1
    assert_same_arrays(dense, sparse)
    assert_same_arrays(dense, sparse, 33, 101)
    for got, want in zip(sparse.manifest.statistics, dense.manifest.statistics, strict=True):
        assert got is not None
        assert want is not None
        assert (got.count, got.nan_count, got.inf_count) == (want.count, want.nan_count, want.inf_count)
        assert (got.zero_count, got.min, got.max) == (want.zero_count, want.min, want.max)
        assert got.mean == pytest.approx(want.mean, rel=1e-10)
    if "format" not in options:
        assert sum(c.nbytes for c in sparse.manifest.chunks) < sum(c.nbytes for c in dense.manifest.chunks)
    assert sum(c.raw_bytes for c in sparse.manifest.chunks) == sum(c.raw_bytes for c in dense.manifest.chunks)


QUERIES = (
    "SELECT count(*), max(energy) FROM {}",
    "SELECT adc, images FROM {} LIMIT 20",
    "SELECT min(calm[2][3][4]), max(calm[6][5][1]), count(adc) FROM {}",
    "SELECT sum(list_sum(flatten(flatten(adc::BIGINT[][][])))) FROM {}",
)


def test_sql_and_exports_are_the_same(source: str, tmp_path: Path) -> None:
    pair(source)
    for query in QUERIES:
        answers = [repr(sr.sql(query.format(name)).to_pydict()) for name in ("dense", "sparse")]
        assert answers[0] == answers[1], query
    kinds = sr.sql("SELECT kind FROM columns WHERE dataset = 'sparse' AND name = 'images'").to_pydict()
    assert kinds == {"kind": ["sparse"]}
    for to in FORMATS:
        back = [
            _exported(name, tmp_path / f"{name}.{'zip' if to == 'zarr' else to}", to) for name in ("dense", "sparse")
        ]
        assert back[0] == back[1], to


def _exported(name: str, out: Path, to: ExportFormat) -> dict[str, Any]:
    """What an export of a dataset holds, to its reader."""
    written = sr.export(name, out, to=to, where="energy > 100")
    assert not [s for s in written.skipped if s.name in SPARSE]
    with closing(open_source(Location(str(out)), None, load_settings())) as source:
        arrays = source.read([*SPARSE, "energy"], 0, source.entries)
        return {n: bits((np.asarray(a),)) for n, a in arrays.items()}


def test_a_tree_with_classes_grows_and_is_mended(toy: Callable[[int], str]) -> None:
    """ROOT's baskets are read without Awkward Array; the label is added on the way."""
    options: dict[str, Any] = {"workers": 1, "chunk_bytes": 20_000, "exclude": ["Jet_*"]}
    first = {"a": [toy(0)], "b": [toy(1)]}
    dense = sr.convert({"a": [toy(0), toy(2)], "b": [toy(1)]}, name="dense", **options)
    sparse = sr.convert(first, name="sparse", sparse=["im*"], **options)
    grown = sr.append("sparse", labels={"a": toy(2)})
    assert grown.schema == sparse.schema
    assert_same_arrays(sr.convert(first, name="dense-first", **options), grown, 0, len(sparse))
    by_weight = [a[ak.argsort(a.weight)].image for a in (grown.arrays(), dense.arrays())]
    assert ak.array_equal(*by_weight)
    assert not sr.verify("sparse")
    for number in (0, -1):
        path = grown.path / grown.manifest.chunks[number].file
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    assert len(sr.verify("sparse")) == 2
    assert not sr.verify("sparse", repair=True)
    assert not sr.verify("sparse")


@pytest.fixture
def toy(tmp_path: Path) -> Callable[[int], str]:
    from storagering.testing.toys import write_toy_tree

    def make(seed: int) -> str:
        path = tmp_path / f"toy{seed}.root"
        if not path.exists():
            write_toy_tree(path, entries=400, seed=seed, basket_entries=100)
        return str(path)

    return make


def test_workers_make_the_same_dataset(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for workers in (1, 2):
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / f"cache{workers}"))
        made = sr.convert(source, name="x", sparse=SPARSE, chunk_bytes=10_000, profile="fast", workers=workers)
        digests.add(made.manifest.digest)
    assert len(digests) == 1


def test_plain_zarr_and_parquet_hold_what_the_attributes_say(source: str) -> None:
    import pyarrow.parquet as pq

    image = showers("f4", 0)
    made = sr.convert(source, name="x", sparse=["images"], profile="fast", workers=1)
    with warnings.catch_warnings():  # numcodecs' codecs are not part of the Zarr specification yet
        warnings.simplefilter("ignore")
        group = zarr.open_group(zarr.storage.ZipStore(made.path / made.manifest.chunks[0].file, mode="r"), mode="r")
        node = group["images"]
        assert dict(node.attrs) == {"storagering": "sparse", "shape": list(SHAPE)}
        counts, places, values = (np.asarray(node[name]) for name in ("counts", "places", "values"))
    entries = len(counts)
    dense = np.zeros((entries, *SHAPE), values.dtype)
    dense.reshape(entries, -1)[np.repeat(np.arange(entries), counts), places] = values
    assert bits((dense,)) == bits((image[:entries],))

    other = sr.convert(source, name="y", sparse=["images"], format="parquet", workers=1)
    table = pq.read_table(other.path / other.manifest.chunks[0].file)
    assert table.schema.field("images").metadata == {b"shape": b"6,5,4"}
    rows = table["images"].to_pylist()[1]
    assert [row["place"] for row in rows] == np.flatnonzero(image[1].reshape(-1).view("u4")).tolist()


def test_a_chunk_is_bounded_also_when_it_is_dense(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file.create_dataset("images", data=np.zeros((1000, 32, 32), "f4"), chunks=(500, 32, 32), compression="gzip")
    made = sr.convert(str(tmp_path / "dark.h5"), name="dark", sparse=["*"], chunk_bytes=100_000, workers=1)
    assert {c.kind for c in made.schema.columns} == {"sparse"}
    assert max(c.raw_bytes for c in made.manifest.chunks) <= 1.25 * 4 * 100_000
    assert not np.asarray(made.arrays().images).any()


def test_refusals(source: str) -> None:
    with pytest.raises(SpecError, match=r"sparse 'image' matches no column of fixed shape.*'images'"):
        sr.convert(source, name="x", sparse=["image"], workers=1)
    with pytest.raises(SpecError, match="no column of fixed shape"):
        sr.convert(source, name="x", sparse=["energy"], workers=1)
    sr.convert(source, name="x", workers=1)
    with pytest.raises(SpecError, match=r"made otherwise \(sparse"):
        sr.convert(source, name="x", sparse=["images"], workers=1)


def test_append_refuses_another_shape(source: str, tmp_path: Path) -> None:
    sr.convert(source, name="x", sparse=["images"], columns=["images"], workers=1)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("images", data=np.zeros((10, 6, 5, 5), "f4"))
    with pytest.raises(SchemaError, match="images"):
        sr.append("x", str(tmp_path / "other.h5"))
