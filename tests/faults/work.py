"""Work on a cache that tests strike with faults, and what must be true of the cache after each."""

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from storagering.cache.append import Addition, append_sources
from storagering.cache.build import Job, build_dataset
from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import PARTIAL_NAME, Cache, open_cache
from storagering.cache.progress import BuildProgress
from storagering.cache.repair import repair_dataset
from storagering.cache.residency import is_partial, resident_files
from storagering.cache.space import disk_room, sync_ledger, unfinished_bytes
from storagering.cache.verify import verify_dataset
from storagering.config import Settings
from storagering.errors import NotFoundError
from storagering.formats.source import Location
from storagering.testing.crashes import END, Trial
from storagering.testing.toys import write_toy_tree
from storagering.types import ConversionSpec

ENTRIES = (140, 70, 70)
_CHUNK_BYTES = 13_000


def write_sources(folder: Path) -> None:
    """The files that all work reads: beside the cache."""
    for number, entries in enumerate(ENTRIES):
        write_toy_tree(folder / f"toy-{number}.root", entries=entries, seed=number, basket_entries=50)


def cache_at(root: Path, lock_timeout_seconds: float = 3600.0) -> Cache:
    return open_cache(Settings(root, workers=1, threads=1, lock_timeout_seconds=lock_timeout_seconds))


def build(root: Path, name: str = "toy", numbers: Sequence[int] = (0, 1), lock_timeout_seconds: float = 3600.0) -> str:
    """Three chunks in two tasks."""
    urls = [str(root.parent / f"toy-{number}.root") for number in numbers]
    spec = ConversionSpec(sources=tuple((url, None) for url in urls), chunk_bytes=_CHUNK_BYTES)
    return _build(cache_at(root, lock_timeout_seconds), Job(name, spec, [Location(url) for url in urls]))


def build_mixed(root: Path) -> str:
    """Two tasks that deal, and two that mix what was dealt."""
    urls = [str(root.parent / f"toy-{number}.root") for number in (0, 1)]
    spec = ConversionSpec(sources=tuple((url, None) for url in urls), chunk_bytes=_CHUNK_BYTES // 4, mix=1)
    return _build(cache_at(root), Job("toy", spec, [Location(url) for url in urls]))


def _build(cache: Cache, job: Job) -> str:
    manifest, _ = build_dataset(cache, job, BuildProgress())
    return manifest.digest


def build_other(root: Path) -> None:
    """A dataset that nothing may touch."""
    build(root, "other", (2,))


def build_both(root: Path) -> None:
    build_other(root)
    build(root)


def add(root: Path) -> str:
    """One more file: two chunks."""
    url = str(root.parent / "toy-2.root")
    manifest, _ = append_sources(cache_at(root), Addition("toy", [((url, None), Location(url))]), BuildProgress())
    return manifest.digest


def remove(root: Path) -> None:
    with suppress(NotFoundError):
        cache_at(root).remove("toy")
    cache_at(root).reclaim()


def build_and_damage(root: Path) -> None:
    """One chunk is damaged, one lost."""
    build_both(root)
    folder = root / "datasets" / "toy"
    first = folder / "chunk-000000.zarr.zip"
    first.write_bytes(bytes(100) + first.read_bytes()[100:])
    (folder / "chunk-000002.zarr.zip").unlink()


def repair(root: Path) -> list[str]:
    _, left = repair_dataset(cache_at(root), "toy", (), BuildProgress())
    return [fault.file for fault in left]


def evict(root: Path) -> int:
    """All chunks go; how many are left."""
    found = cache_at(root)
    sync_ledger(found)
    disk_room(found).evict(to_bytes=0, of=["toy"])
    return len(resident_files(found.path("toy"), found.manifest("toy")))


def evict_both(root: Path) -> None:
    build_both(root)
    evict(root)


def fetch(root: Path) -> int:
    """All chunks come back; how many are there."""
    found = cache_at(root)
    found.reclaim()
    manifest = found.manifest("toy")
    with closing(ChunkFetcher(found, manifest)) as fetcher:
        fetcher.ensure(range(len(manifest.chunks)))
    return len(resident_files(found.path("toy"), manifest))


def check_present_or_evicted(trial: Trial) -> None:
    """Every chunk is there, sound, or gone on purpose; the ledger can be made to say which."""
    found = cache_at(trial.root)
    _check_sound(found)
    manifest, folder = found.manifest("toy"), found.path("toy")
    there = resident_files(folder, manifest)
    assert is_partial(folder) or len(there) == len(manifest.chunks)
    sync_ledger(found)
    here = sum(chunk.nbytes for chunk in manifest.chunks if chunk.file in there)
    other = sum(chunk.nbytes for chunk in found.manifest("other").chunks)
    assert disk_room(found).used_bytes() == here + other + unfinished_bytes(found)
    if trial.finished is not None:
        assert trial.finished.result == len(there)
        _check_finished(found)
        assert not list((found.root / "locks").glob("*.fetch"))


def check_absent_or_whole(trial: Trial) -> None:
    """The dataset is not there, or all of it is; once the work was repeated, nothing else is left."""
    found = cache_at(trial.root)
    assert found.names() in (["other"], ["other", "toy"])
    _check_sound(found)
    assert "toy" in found.names() or trial.point.operation != END
    if trial.finished is not None:
        _check_finished(found)


def check_whole_or_absent(trial: Trial) -> None:
    """The dataset is there, or nothing of it; once the work was repeated, nothing is."""
    found = cache_at(trial.root)
    _check_sound(found)
    assert "toy" not in found.names() or trial.point.operation != END
    if trial.finished is not None:
        assert [path.name for path in (found.root / "datasets").iterdir()] == ["other"]


def check_old_or_new(trial: Trial) -> None:
    """The dataset is there in one version or the other, whole."""
    found = cache_at(trial.root)
    _check_sound(found)
    assert found.manifest("toy").version == 2 or trial.point.operation != END
    assert found.manifest("toy").version == 1 or found.manifest("toy", 1).version == 1
    if trial.finished is not None:
        assert found.manifest("toy").version == 2
        _check_finished(found)


def check_readable_as_before(trial: Trial) -> None:
    """No chunk that was sound has come to harm; the others are damaged still, or as they were made."""
    found = cache_at(trial.root)
    files = {fault.file for fault in verify_dataset(found, "toy", BuildProgress())}
    assert files <= {"chunk-000000.zarr.zip", "chunk-000002.zarr.zip"}
    _check_other(found)
    if trial.finished is not None or trial.point.operation == END:
        assert not files
    if trial.finished is not None:
        _check_finished(found)


def _check_sound(found: Cache) -> None:
    for name in found.names():
        assert not verify_dataset(found, name, BuildProgress())
    _check_other(found)


def _check_other(found: Cache) -> None:
    """What nothing has touched is there to the byte."""
    assert not verify_dataset(found, "other", BuildProgress())
    files = sorted(path.name for path in found.path("other").iterdir())
    manifest = found.manifest("other")
    assert files == sorted(
        ["first-epoch.json", "manifest.json", "statistics.parquet", *(chunk.file for chunk in manifest.chunks)]
    )


def _check_finished(found: Cache) -> None:
    """Nothing lies about that no manifest knows of."""
    assert found.names() == ["other", "toy"]
    assert not list((found.root / "staging").iterdir())
    assert sorted(path.name for path in (found.root / "datasets").iterdir()) == ["other", "toy"]
    manifests = [found.manifest("toy", version + 1) for version in range(found.manifest("toy").version)]
    known = {chunk.file for chunk in manifests[-1].chunks} | {manifest.chunk_statistics[0] for manifest in manifests}
    known |= {
        *(["first-epoch.json"] if manifests[-1].spec.mix is None else []),
        "manifest.json",
        *(f"manifest-{manifest.version:06d}.json" for manifest in manifests[:-1]),
    }
    names = {path.name for path in found.path("toy").iterdir()}
    if PARTIAL_NAME in names:
        known = {name for name in known if not name.startswith("chunk")} | {PARTIAL_NAME}
        names = {name for name in names if not name.startswith("chunk")}
    assert names == known
