"""Appending to a dataset: a new version that shares the chunks, and leaves readers of the old one alone."""

import errno
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from storagering.api import append, convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import encode_manifest, spec_key
from storagering.cache.progress import BuildProgress
from storagering.cache.statistics import describe_batch
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import (
    CacheError,
    ChecksumError,
    CorruptDataError,
    NotFoundError,
    SchemaError,
    SourceChangedError,
    SpecError,
)
from storagering.testing.toys import toy_columns, write_toy_tree
from storagering.types import Manifest, sha256_hex

ENTRIES = 300


class Told(BuildProgress):
    """What was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def tell(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for number in range(5):
        write_toy_tree(tmp_path / f"{number}.root", entries=ENTRIES, seed=number)
    return [str(tmp_path / f"{number}.root") for number in range(5)]


def make(sources: Any, name: str = "x", **options: Any) -> Manifest:
    return convert(sources, name=name, **{"workers": 1, "chunk_bytes": 8192} | options).manifest


def events(*seeds: int) -> list[int]:
    found: list[int] = np.concatenate([toy_columns(ENTRIES, seed)["MET_pt"] for seed in seeds]).tolist()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_a_new_version_holds_old_and_new_and_shares_chunks(files: list[str], opened: Cache, store: Any) -> None:
    options = {"define": {"ht": "sum(Jet_pt)"}, "where": "nJet > 1", "exclude": ["image"], "format": store}
    old = make(files[:2], **options)
    before = {path.name: path.stat() for path in opened.path("x").iterdir()}
    new = append("x", files[2:4], workers=1).manifest
    assert open_dataset("x").manifest == new
    assert (new.version, new.parent) == (2, old.digest)
    assert new.chunks[: len(old.chunks)] == old.chunks
    assert new.schema == old.schema
    assert new.spec == replace(old.spec, sources=tuple((url, None) for url in files[:4]))
    assert new.spec_key == spec_key(new.spec)
    assert [s.url for s in new.sources] == files[:4]
    assert {span.source for chunk in new.chunks[len(old.chunks) :] for span in chunk.spans} == {2, 3}
    for name in set(before) - {"manifest.json"}:
        after = (opened.path("x") / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns), name
    whole = make(files[:4], name="whole", **options)
    assert ak.array_equal(open_dataset("x").arrays(), open_dataset("whole").arrays(), equal_nan=True)
    for one, other in zip(new.statistics, whole.statistics, strict=True):
        assert one is not None
        assert other is not None
        assert (one.count, one.min, one.max) == (other.count, other.min, other.max)
        assert one.mean == pytest.approx(other.mean)
        assert one.std == pytest.approx(other.std)
    assert not list((opened.root / "staging").iterdir())


def test_every_version_can_be_opened(files: list[str], opened: Cache) -> None:
    versions = [make(files[:1])]
    versions += [append("x", path, workers=1).manifest for path in files[1:4]]
    for number, manifest in enumerate(versions, 1):
        dataset = open_dataset("x", version=number)
        assert dataset.manifest == manifest
        assert dataset.arrays().MET_pt.to_list() == events(*range(number))
        file, digest = manifest.chunk_statistics
        table = (opened.path("x") / file).read_bytes()
        assert sha256_hex(table) == digest
        assert len(pq.read_table(io.BytesIO(table)).column("chunk").unique().drop_null()) == len(manifest.chunks)
    assert [m.parent for m in versions] == ["", *[m.digest for m in versions[:-1]]]
    assert len({m.digest for m in versions}) == 4
    for number in (0, 5, -1):
        with pytest.raises(NotFoundError, match=f"no version {number}; there are 1 to 4"):
            open_dataset("x", version=number)


def test_the_statistics_of_every_chunk_are_its_own(files: list[str]) -> None:
    make(files[:2], columns=["MET_pt"])
    dataset = append("x", files[2], workers=1)
    rows = pq.read_table(dataset.path / dataset.manifest.chunk_statistics[0]).to_pylist()
    assert [row["chunk"] for row in rows] == [*range(len(dataset.manifest.chunks)), None]
    for row, batch in zip(rows[:-1], dataset.batches(), strict=True):
        (found,) = describe_batch(batch)
        assert found is not None
        assert (row["count"], row["min"], row["mean"]) == (found.count, found.min, found.mean)


def test_any_number_of_workers_makes_the_same_version(files: list[str], opened: Cache) -> None:
    found = []
    for workers in (1, 2):
        make(files[:2], workers=workers)
        append("x", files[2:], workers=workers)
        found.append(contents(opened.path("x")))
        opened.remove("x")
    assert found[0] == found[1]


def test_a_reader_of_the_old_version_goes_on(files: list[str]) -> None:
    make(files[:2])
    old = open_dataset("x")
    first = old.open_chunk(old.manifest.chunks[0])
    append("x", files[2:], workers=1)
    assert len(first.read_column("MET_pt")[0]) == old.manifest.chunks[0].num_entries
    assert old.arrays().MET_pt.to_list() == events(0, 1)


def test_the_catalog_knows_the_new_version(files: list[str]) -> None:
    make(files[:2])
    assert sql("SELECT num_entries, version FROM datasets").to_pylist() == [{"num_entries": 600, "version": 1}]
    new = append("x", files[2], workers=1).manifest
    found = sql("SELECT num_entries, version, parent, digest FROM datasets").to_pylist()
    assert found == [{"num_entries": 900, "version": 2, "parent": new.parent, "digest": new.digest}]
    assert sql("SELECT count(*) AS n FROM x").to_pylist() == [{"n": 900}]
    assert sql("SELECT count(*) AS n FROM source_files").to_pylist() == [{"n": 3}]


def test_what_is_there_already_is_left_out(files: list[str]) -> None:
    old = make(files[:3])
    assert append("x", files[:3], workers=1).manifest == old
    told = Told()
    new = append("x", str(Path(files[0]).parent / "*.root"), workers=1, progress=told).manifest
    assert told.messages == ["3 of 5 sources are in the dataset already"]
    assert [s.url for s in new.sources] == files
    assert append("x", files, workers=1).manifest == new
    with pytest.raises(SpecError, match="is named twice"):
        append("x", [files[0], files[0]])


def test_what_is_there_under_another_path_is_left_out(files: list[str], tmp_path: Path) -> None:
    old = make(files[:2])
    (tmp_path / "sub").mkdir()
    assert append("x", str(tmp_path / "sub" / ".." / "0.root"), workers=1).manifest == old
    os.utime(files[0], ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"0\.root has changed since"):
        append("x", str(tmp_path / "sub" / ".." / "0.root"))


def test_a_source_that_changed_is_refused(files: list[str]) -> None:
    make(files[:3])
    os.utime(files[1], ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"1\.root has changed since"):
        append("x", files)
    assert open_dataset("x").manifest.version == 1


def test_there_must_be_a_dataset(files: list[str]) -> None:
    with pytest.raises(NotFoundError, match="no dataset 'x'"):
        append("x", files)


def test_classes_keep_their_numbers(files: list[str]) -> None:
    make({"sig": files[0], "bkg": files[1]})
    dataset = append("x", {"bkg": files[2], "other": files[3]}, workers=1)
    assert dataset.manifest.spec.classes == ("sig", "bkg", "other")
    assert dataset.arrays(["label"]).label.to_list() == [0] * ENTRIES + [1] * 2 * ENTRIES + [2] * ENTRIES
    with pytest.raises(SpecError, match=r"4\.root needs a class: .*'sig', 'bkg', 'other'"):
        append("x", files[4])
    with pytest.raises(SpecError, match="already, as class 'sig'"):
        append("x", {"bkg": files[0]})
    make(files[:1], name="y")
    with pytest.raises(SpecError, match="has no classes"):
        append("y", labels={"a": files[1]})


def write(path: Path, **columns: Any) -> str:
    with uproot.recreate(path) as file:
        file.mktree("Events", {n: np.dtype((c.dtype, c.shape[1:])) for n, c in columns.items()}).extend(columns)
    return str(path)


def test_sources_that_differ_are_refused_naming_file_and_column(tmp_path: Path, opened: Cache) -> None:
    make(write(tmp_path / "a.root", x=np.zeros(3, "f4"), y=np.zeros((3, 2))))
    before = contents(opened.path("x"))
    absent = write(tmp_path / "b.root", x=np.zeros(3, "f4"))
    other = write(tmp_path / "c.root", x=np.zeros(3, "f8"), y=np.zeros((3, 2)))
    shape = write(tmp_path / "d.root", x=np.zeros(3, "f4"), y=np.zeros((3, 4)))
    for path, message in (
        (absent, r"b\.root has no column 'y', dataset 'x' has"),
        (other, r"column 'x' is flat float64 in .*c\.root and flat float32 in dataset 'x'"),
        (shape, r"column 'y' is fixed-shape float64 in .*d\.root"),
    ):
        with pytest.raises(SchemaError, match=message):
            append("x", path, workers=1)
    assert contents(opened.path("x")) == before
    assert not list((opened.root / "staging").iterdir())


def test_further_columns_are_left_out_and_their_order_does_not_matter(tmp_path: Path) -> None:
    make(write(tmp_path / "a.root", x=np.arange(3, dtype="f4"), y=np.zeros(3)))
    path = write(tmp_path / "b.root", z=np.zeros(2), y=np.ones(2), x=np.ones(2, "f4"))
    dataset = append("x", path, workers=1)
    assert dataset.schema.names == ("x", "y")
    assert dataset.arrays().to_list()[2:] == [{"x": 2, "y": 0}, {"x": 1, "y": 1}, {"x": 1, "y": 1}]
    assert [(s.name, s.source) for s in dataset.manifest.skipped] == [("z", path)]


def test_from_and_to_nothing(files: list[str]) -> None:
    """No survivor of the selection in the old version, or in the new files."""
    make(files[0], where="MET_pt < 0")
    assert len(append("x", files[1], workers=1)) == 0
    make(files[0], name="y", where="event < 1152921504606846977 + 10")
    dataset = append("y", files[1], workers=1)
    assert len(dataset) == 20
    make(files[0], name="z", where=f"MET_pt == {events(1)[0]}")
    dataset = append("z", files[1], workers=1)
    assert len(dataset) == len(dataset.arrays()) == 1
    assert dataset.manifest.statistics[dataset.schema.names.index("MET_pt")] is not None


def test_a_bad_source_is_left_out_and_can_be_tried_again(files: list[str], tmp_path: Path) -> None:
    good = Path(files[3]).read_bytes()
    os.truncate(files[3], 5000)
    make(files[0])
    with pytest.raises(CorruptDataError, match=r"3\.root"):
        append("x", files[2:], workers=1)
    manifest = append("x", files[2:], workers=1, on_bad_source="skip").manifest
    assert [s.url for s in manifest.skipped_sources] == [files[3]]
    assert manifest.spec.on_bad_source == "skip"
    assert [s.url for s in manifest.sources] == [files[0], files[2], files[4]]
    Path(files[3]).write_bytes(good)
    manifest = append("x", files[1:], workers=1).manifest
    assert manifest.skipped_sources == ()
    assert [s.url for s in manifest.sources] == [files[0], files[2], files[4], files[1], files[3]]
    assert [url for url, _ in manifest.spec.sources] == [s.url for s in manifest.sources]
    assert open_dataset("x").arrays().MET_pt.to_list() == events(0, 2, 4, 1, 3)


def test_an_append_that_was_interrupted_goes_on(files: list[str], opened: Cache) -> None:
    class Stop(BuildProgress):
        left = 2 * ENTRIES

        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            self.left -= entries
            if self.left < 0:
                raise KeyboardInterrupt

    class Starts(BuildProgress):
        total = 0

        def start(self, total_entries: int) -> None:
            self.total = total_entries

    make(files[:1])
    with pytest.raises(KeyboardInterrupt):
        append("x", files[1:], workers=1, progress=Stop())
    assert [str(build) for build in opened.unfinished()] == [
        "x: an unfinished append, 2 of 4 files; run the same command to go on"
    ]
    assert make(files[:1]).version == 1  # the same conversion finds the dataset, and leaves the append alone
    starts = Starts()
    assert append("x", files[1:], workers=1, progress=starts).arrays().MET_pt.to_list() == events(*range(5))
    assert starts.total == 2 * ENTRIES
    assert not opened.unfinished()


def test_removal_gives_up_an_unfinished_append(files: list[str], opened: Cache) -> None:
    test_an_append_that_was_interrupted_goes_on(files, opened)
    assert (opened.path("x") / "manifest-000001.json").exists()
    opened.remove("x")
    assert not opened.path("x").exists()


def test_strays_of_a_crash_are_not_taken_for_chunks(files: list[str], opened: Cache) -> None:
    """Killed before the manifest was exchanged, then other files are appended."""
    old = make(files[0])
    for name in (f"chunk-{len(old.chunks):06d}.zarr.zip", "chunk-000999.zarr.zip", "manifest-000001.json"):
        (opened.path("x") / name).write_bytes(b"stray")
    (opened.path("x") / "statistics-000002.parquet").write_bytes(b"stray")
    dataset = append("x", files[1], workers=1)
    assert dataset.arrays().MET_pt.to_list() == events(0, 1)
    assert not (dataset.path / "chunk-000999.zarr.zip").exists()
    assert (dataset.path / "manifest-000001.json").read_bytes() == encode_manifest(old)


def test_damaged_statistics_are_noticed(files: list[str], opened: Cache) -> None:
    make(files[0])
    path = opened.path("x") / "statistics.parquet"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match=r"statistics\.parquet is damaged"):
        append("x", files[1], workers=1)
    assert open_dataset("x").manifest.version == 1


def test_a_file_system_without_links(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("storagering.files.os.link", link)
    make(files[:2])
    assert append("x", files[2], workers=1).arrays().MET_pt.to_list() == events(0, 1, 2)


def test_a_link_that_fails_for_another_reason_is_an_error(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("storagering.files.os.link", link)
    with pytest.raises(CacheError, match="chunk-000000"):
        make(files[:2])
