"""Mixed datasets: every entry once, as it was, in an order that is random and always the same."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cache.test_resume import damage

from storagering import sql
from storagering.api import append, convert, fill, verify
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.deals import read_piles
from storagering.cache.entries import entry_ids
from storagering.cache.entry_keys import mixing_keys, source_keys, split_ids
from storagering.cache.layout import Cache, open_cache
from storagering.cache.messages import Deal
from storagering.cache.progress import BuildProgress
from storagering.cache.space import disk_room, sync_ledger
from storagering.config import load_settings
from storagering.errors import CacheFullError, ChecksumError, SpecError
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree
from storagering.types import Manifest

ENTRIES = (700, 350, 1)
TOTAL = sum(ENTRIES)
CHUNK_BYTES = 5_000
#: Where it does not matter which there are.
COLUMNS = ["MET_pt", "nVtx", "event", "Jet_pt"]

SELECTIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda t: t.MET_pt >= 0,
    "MET_pt > 60": lambda t: t.MET_pt > 60,
    "nVtx == 30": lambda t: t.nVtx == 30,
    "MET_pt < 0": lambda t: t.MET_pt < 0,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("in")
    for number, entries in enumerate(ENTRIES):
        write_toy_rntuple(folder / f"{number}.root", entries=entries, seed=number, cluster_entries=90)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def truth() -> Any:
    return [ak.zip(toy_columns(n, seed, nested=True), depth_limit=1) for seed, n in enumerate(ENTRIES)]


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


def mixed(files: Any, name: str = "x", **options: Any) -> Dataset:
    usual: dict[str, Any] = {"mix": 7, "columns": COLUMNS, "chunk_bytes": CHUNK_BYTES, "workers": 1}
    return convert(files, name=name, **usual | options)


def check_against(dataset: Dataset, truth: Any, count: int) -> None:
    """Every entry is there once, and is that of its source to the bit."""
    found, ids = dataset.arrays(), entry_ids(dataset)
    assert len(ids) == len(set(ids.tolist())) == count
    sources, entries = split_ids(ids)
    for number, columns in enumerate(truth):
        mine = sources == number
        want = columns[entries[mine]]
        for name in dataset.schema.names:
            if name not in ("entry_id", "label", "double"):
                assert ak.array_equal(found[name][mine], want[name], same_content_types=True), name


def unnamed(manifest: Manifest) -> Manifest:
    return replace(manifest, name="", digest="")


def contents(dataset: Dataset) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in dataset.path.iterdir() if p.name != "manifest.json"}


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "parquet", "sparse": ["image"]}, {"where": "MET_pt > 30", "sparse": ["image"], "layout": "rows"}],
)
def test_every_kind_of_column_comes_back(files: list[str], truth: Any, options: dict[str, Any]) -> None:
    dataset = mixed(files, columns=None, chunk_bytes=16_000, **options)
    kept = sum(int(ak.sum(t.MET_pt > 30)) for t in truth) if "where" in options else TOTAL
    check_against(dataset, truth, kept)
    assert len(dataset.manifest.chunks) > 5
    assert max(c.raw_bytes for c in dataset.manifest.chunks) < 25_000
    assert dataset.manifest.spec.mix == 7
    assert not verify("x")


def test_labels_and_definitions_go_with_their_entries(files: list[str], truth: Any) -> None:
    dataset = mixed({"a": files[0], "b": files[1:]}, define={"double": "2 * MET_pt"}, where="nVtx > 25")
    check_against(dataset, truth, sum(int(ak.sum(t.nVtx > 25)) for t in truth))
    sources, _ = split_ids(entry_ids(dataset))
    found = dataset.arrays()
    assert found.label.to_list() == (sources > 0).astype(int).tolist()
    assert ak.all(found.double == 2 * found.MET_pt)


@given(
    chunk_bytes=st.sampled_from([4096, 5000, 20_000, 1 << 20]),
    seed=st.integers(0, 2**63 - 1),
    where=st.sampled_from(list(SELECTIONS)),
    chosen=st.lists(st.integers(0, 2), min_size=1, unique=True),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut(
    files: list[str],
    truth: Any,
    opened: Cache,
    chunk_bytes: int,
    seed: int,
    where: str | None,
    chosen: list[int],
) -> None:
    kept = sum(int(ak.sum(SELECTIONS[where](truth[number]))) for number in chosen)
    dataset = mixed([files[n] for n in chosen], mix=seed, where=where, chunk_bytes=chunk_bytes)
    check_against(dataset, [truth[number] for number in chosen], kept)
    opened.remove("x")


def test_the_order_is_that_of_the_keys(files: list[str]) -> None:
    """Whatever the chunks' size, format and selection are."""
    keys = source_keys(7, files)
    ids = [np.arange(n, dtype=np.uint64) | np.uint64(source << 40) for source, n in enumerate(ENTRIES)]
    expected = np.concatenate(ids)
    expected = expected[np.argsort(mixing_keys(expected, keys))]
    np.testing.assert_array_equal(entry_ids(mixed(files)), expected)
    np.testing.assert_array_equal(entry_ids(mixed(files, "y", chunk_bytes=20_000, format="parquet")), expected)
    some = entry_ids(mixed(files, "z", where="MET_pt > 40"))
    np.testing.assert_array_equal(some, expected[np.isin(expected, some)])
    assert (entry_ids(mixed(files, "other", mix=8)) != expected).any()


def test_any_number_of_workers_makes_the_same(files: list[str]) -> None:
    one, two = mixed(files, "one"), mixed(files, "two", workers=2)
    assert unnamed(one.manifest) == unnamed(two.manifest)
    assert contents(one) == contents(two)


def test_piles_that_are_too_large_are_mixed_in_parts(tmp_path: Path, opened: Cache) -> None:
    """As where the first entries, by which the piles are planned, are far smaller than the others."""
    counts = np.where(np.arange(5000) < 1200, 0, 60)
    values = np.random.default_rng(0).normal(size=int(counts.sum())).astype(np.float32)
    table = ak.zip({"hits": ak.unflatten(values, counts), "n": np.arange(5000)}, depth_limit=1)
    ak.to_parquet(table, tmp_path / "grows.parquet", row_group_size=500)
    dataset = mixed(str(tmp_path / "grows.parquet"), columns=None, chunk_bytes=20_000)
    assert max(c.raw_bytes for c in dataset.manifest.chunks) < 40_000
    found, ids = dataset.arrays(), entry_ids(dataset)
    assert ak.array_equal(found.hits, table.hits[ids.astype(np.int64)])
    assert sorted(found.n.to_list()) == list(range(5000))
    assert (np.diff(mixing_keys(ids, source_keys(7, [dataset.manifest.sources[0].url])).astype(float)) >= 0).all()


class Told(BuildProgress):
    def __init__(self, stop_at: int = -1) -> None:
        self.messages: list[str] = []
        self.starts: list[int] = []
        self.left = stop_at

    def start(self, total_entries: int) -> None:
        self.starts.append(total_entries)

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        if len(self.starts) == 2:  # the second pass
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def tell(self, message: str) -> None:
        self.messages.append(message)


def test_both_passes_are_shown(files: list[str]) -> None:
    told = Told()
    mixed(files, progress=told)
    assert told.starts == [TOTAL, TOTAL]
    assert any(message.startswith(f"mixing {TOTAL:,} entries in ") for message in told.messages)


def test_an_interrupted_second_pass_goes_on(files: list[str], opened: Cache) -> None:
    whole = mixed(files, "whole")
    with pytest.raises(KeyboardInterrupt):
        mixed(files, progress=Told(stop_at=6))
    assert opened.names() == ["whole"]
    told = Told()
    again = mixed(files, progress=told)
    assert told.starts[0] == 0
    assert 0 < told.starts[1] < TOTAL
    assert unnamed(again.manifest) == unnamed(whole.manifest)
    assert contents(again) == contents(whole)
    assert not list((opened.root / "staging").iterdir())


KILLED = """
import os, signal, sys
import storagering as sr
from storagering.cache.progress import BuildProgress
class Killed(BuildProgress):
    starts = chunks = 0
    def start(self, total): self.starts += 1
    def advance(self, entries, nbytes):
        self.chunks += self.starts == 2
        if self.chunks == 3:
            os.kill(os.getpid(), signal.SIGKILL)
columns = sys.argv[1].split()
sr.convert(sys.argv[2:], name="x", columns=columns, mix=7, chunk_bytes=5000, workers=1, progress=Killed())
"""


def test_a_second_pass_that_was_killed_goes_on(files: list[str], opened: Cache) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, " ".join(COLUMNS), *files], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not opened.contains("x")
    assert contents(mixed(files)) == contents(mixed(files, "whole"))
    assert not list((opened.root / "staging").iterdir())


def test_what_was_dealt_is_checked(files: list[str], opened: Cache) -> None:
    """A bit that flips between the passes is an error, and dealt anew by the next run."""
    whole = mixed(files, "whole")

    class Damaging(Told):
        def start(self, total_entries: int) -> None:
            super().start(total_entries)
            if len(self.starts) == 2:
                path = max((opened.root / "staging").glob("*/*.deal"), key=lambda p: p.stat().st_size)
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)

    with pytest.raises(ChecksumError, match="damaged on the disk; run the same command again"):
        mixed(files, progress=Damaging())
    told = Told()
    assert contents(mixed(files, progress=told)) == contents(whole)
    assert 0 < told.starts[0] < TOTAL


@pytest.fixture
def dealt(files: list[str], opened: Cache) -> tuple[Path, Dataset]:
    """A deal as a build leaves it, and what became of it."""
    whole = mixed(files, "whole", columns=COLUMNS[:1], chunk_bytes=1 << 20)
    with pytest.raises(KeyboardInterrupt):
        mixed(files, columns=COLUMNS[:1], chunk_bytes=1 << 20, progress=Told(stop_at=1))
    (path,) = (opened.root / "staging").glob("*/*.deal")
    return path, whole


def test_no_flipped_bit_of_a_deal_is_read(dealt: tuple[Path, Dataset]) -> None:
    path, whole = dealt
    data = path.read_bytes()
    deal = Deal(path.name, len(data), (0, 1, 2))
    (good,) = read_piles(path.parent, deal, 0, 0, 0, whole.schema)
    assert len(good) == TOTAL
    rng = np.random.default_rng(0)
    for bit in [*rng.integers(0, 8 * len(data), 60), *range(8 * len(data) - 40 * 8, 8 * len(data) - 8 * 8, 11)]:
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        try:
            found = list(read_piles(path.parent, deal, 0, 0, 0, whole.schema))
        except ChecksumError:
            continue
        assert [len(batch) for batch in found] in ([TOTAL], [])  # counted by whoever asked; or of the index's checksum
        assert not found or found[0].arrays["entry_id"][0].tobytes() == good.arrays["entry_id"][0].tobytes()


def test_labels_are_mixed_as_by_chance(tmp_path: Path) -> None:
    """Of sources of one class each, every chunk holds the share that a draw without replacement gives it."""
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", x=np.arange(40_000 - 20_000 * number, dtype=np.float32))
    dataset = convert(
        {"a": str(tmp_path / "0.npz"), "b": str(tmp_path / "1.npz")}, name="x", mix=1, chunk_bytes=8000, workers=1
    )
    sizes = np.array([c.num_entries for c in dataset.manifest.chunks])
    labels = np.asarray(dataset.arrays(["label"]).label)
    ones = np.add.reduceat(labels, [c.start for c in dataset.manifest.chunks])
    total, share = len(labels), labels.mean()
    variance = sizes * share * (1 - share) * (total - sizes) / (total - 1)  # hypergeometric
    pulls = (ones - sizes * share) / np.sqrt(variance)
    assert len(pulls) > 100
    assert 0.5 < pulls.var() < 1.6  # 1 +- 0.12; the order depends on the files' paths, which differ each time
    assert abs(pulls).max() < 6


def test_keys_are_uniform_and_independent() -> None:
    entries = 200_000
    ids = np.concatenate([np.arange(entries, dtype=np.uint64) | np.uint64(s << 40) for s in range(3)])
    keys = mixing_keys(ids, source_keys(1, ["/a.root", "/b.root", "root://c//d.root"]))
    assert len(np.unique(keys)) == len(keys)
    unit = keys / 2.0**64
    counts = np.histogram(unit, 1000, (0, 1))[0]
    assert abs(((counts - 600) ** 2 / 600).sum() - 999) < 5 * np.sqrt(2 * 999)
    for lag in (1, 2, 7, entries):
        assert abs(np.corrcoef(unit[:-lag], unit[lag:])[0, 1]) < 5 / np.sqrt(len(unit))
    other = mixing_keys(ids, source_keys(2, ["/a.root", "/b.root", "root://c//d.root"])) / 2.0**64
    assert abs(np.corrcoef(unit, other)[0, 1]) < 5 / np.sqrt(len(unit))
    low_bits = np.bincount((keys & np.uint64(255)).astype(int), minlength=256)
    expected = len(keys) / 256
    assert abs(((low_bits - expected) ** 2 / expected).sum() - 255) < 5 * np.sqrt(2 * 255)


def test_what_is_appended_is_mixed_by_itself(files: list[str], truth: Any) -> None:
    old = mixed(files[:2])
    new = append("x", files[2:], workers=1)
    assert new.manifest.chunks[: len(old.manifest.chunks)] == old.manifest.chunks
    check_against(new, truth, TOTAL)
    assert entry_ids(new)[-1] == 2 << 40
    assert not verify("x")


@pytest.mark.parametrize("late", [False, True])
def test_a_bad_source_is_left_out(tmp_path: Path, *, late: bool) -> None:
    """The numbers of those after it change, also where it is found out half way."""
    files = [str(tmp_path / f"{number}.root") for number in range(4)]
    for number, file in enumerate(files):
        write_toy_tree(Path(file), entries=40, seed=number)
    if late:
        damage(files[1])
    else:
        Path(files[1]).write_bytes(b"root, but no more")
    dataset = mixed(files, columns=["event", "image"], on_bad_source="skip")
    assert [s.url for s in dataset.manifest.sources] == [files[0], *files[2:]]
    check_against(dataset, [ak.zip(toy_columns(40, seed), depth_limit=1) for seed in (0, 2, 3)], 120)


def test_a_column_of_that_name_is_in_the_way(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(10.0), entry_id=np.arange(10))
    with pytest.raises(SpecError, match="column 'entry_id' already; leave it out with --exclude 'entry_id'"):
        mixed(str(tmp_path / "a.npz"), columns=None)
    dataset = mixed(str(tmp_path / "a.npz"), columns=None, exclude=["entry_id"], where="entry_id > 4")
    assert sorted(entry_ids(dataset).tolist()) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_has_bounds(files: list[str], seed: int) -> None:
    with pytest.raises(SpecError, match="number from 0 to"):
        mixed(files, mix=seed)


def test_mixed_chunks_stay_and_cannot_be_made_again_alone(files: list[str], opened: Cache) -> None:
    dataset = mixed(files)
    sync_ledger(opened)
    disk_room(opened).evict(to_bytes=0, of=["x"])
    assert len(list(dataset.path.glob("chunk-*"))) == len(dataset.manifest.chunks)
    (dataset.path / dataset.manifest.chunks[2].file).write_bytes(b"damaged")
    assert [fault.chunk for fault in verify("x")] == [2]
    with pytest.raises(SpecError, match="remove x' and convert again, which makes the same one"):
        verify("x", repair=True)


def test_a_quota_that_is_too_small_is_told(files: list[str], opened: Cache) -> None:
    with pytest.raises(CacheFullError):
        mixed(files, settings=replace(load_settings(), quota="40KB", room_timeout_seconds=0.1), workers=None)
    assert opened.names() == []


def test_a_loader_that_fills_waits_for_all_of_it(files: list[str]) -> None:
    with fill(files, name="x", mix=7, columns=["MET_pt"], chunk_bytes=CHUNK_BYTES, workers=1) as data:
        data.begin(seed=1)
        schema, first = data.contents()
        assert first is None
        assert schema.names == ("MET_pt", "entry_id")
        np.testing.assert_array_equal(entry_ids(data.wait()), entry_ids(mixed(files, "y", columns=["MET_pt"])))


def test_the_catalog_tells(files: list[str]) -> None:
    mixed(files)
    mixed(files, "plain", mix=None)
    assert sql("SELECT name, mix FROM datasets ORDER BY name").to_pylist() == [
        {"name": "plain", "mix": None},
        {"name": "x", "mix": 7},
    ]
    assert sql("SELECT count(DISTINCT entry_id) AS n FROM x").to_pylist() == [{"n": TOTAL}]
    assert open_dataset("x").manifest.statistics[-1].max == (2 << 40)  # type: ignore[union-attr]
