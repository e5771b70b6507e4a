"""RNTuples: every page, page list, header and footer is compared with its checksum; reads follow the clusters."""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import uproot.writing._cascadentuple as writing
import xxhash

from storagering.config import load_settings
from storagering.errors import ChecksumError, CorruptDataError, InternalError
from storagering.formats.readers import open_source
from storagering.formats.readers.pages import list_pages
from storagering.formats.readers.rntuple import NtupleSource
from storagering.formats.source import Source
from storagering.testing.toys import toy_columns, write_toy_rntuple

COMPRESSIONS = ["zstd", "zlib", "lz4", "lzma", None]
ENTRIES, CLUSTER = 300, 120
#: RNTuples that ROOT wrote, with page checksums.
FROM_ROOT = [
    "rootfiles/ntpl001_staff_rntuple_v1-0-0-0.root",
    "rootfiles/rntviewer-testfile-uncomp-single-rntuple-v1-0-0-0.root",
    "rootfiles/test_float_types_rntuple_v1-0-0-0.root",
    "rootfiles/test_int_vfloat_tlv_vtlv_rntuple_v1-0-0-0.root",
    "rootfiles/test_class_inheritance_rntuple_v1-0-0-1.root",
]


@contextmanager
def page_checksums() -> Iterator[None]:
    """Within it, uproot writes the checksum behind each page as ROOT does (on its own it writes none)."""
    add_blob = writing.NTuple.add_rblob

    def add(self: Any, sink: Any, raw: Any, size: int) -> Any:
        data = bytes(raw)
        return add_blob(self, sink, data + xxhash.xxh3_64_intdigest(data).to_bytes(8, "little"), size)

    def serialize(self: Any) -> bytes:
        locator: bytes = self.locator.serialize()
        return struct.pack("<i", -self.num_entries) + locator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.NTuple, "add_rblob", add)
        patch.setattr(writing.NTuple_PageDescription, "serialize", serialize)
        yield


def write_checked(path: Path, compression: str | None) -> None:
    with page_checksums():
        write_toy_rntuple(path, entries=ENTRIES, compression=compression, cluster_entries=CLUSTER)


def open_ntuple(path: Path) -> Source:
    return open_source(str(path), None, load_settings())


@contextmanager
def flipped(path: Path, at: int, bit: int) -> Iterator[None]:
    """One bit of the file differs, as on a bad disk: its time does not. Who has it mapped sees that."""
    found = path.stat()
    times = (found.st_atime_ns, found.st_mtime_ns)
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ (1 << bit)]))
        os.utime(path, ns=times)
        try:
            yield
        finally:
            file.seek(at)
            file.write(byte)
            os.utime(path, ns=times)


def equal(got: Any, want: Any) -> bool:
    return all(ak.array_equal(got[n], want[n], equal_nan=True, dtype_exact=True) for n in want)


def outcome(read: Any, want: dict[str, Any]) -> str:
    try:
        got = read()
    except Exception as error:  # noqa: BLE001  (whatever uproot raises)
        return type(error).__name__
    return "equal" if equal(got, want) else "wrong"


def flips_of(path: Path, tree: str, seed: int = 1) -> list[tuple[str, int, int]]:
    """(top-level field, byte, bit): two bits of every page and one of its checksum."""
    rng = np.random.default_rng(seed)
    with uproot.open(path) as file:
        model = file[tree]
        flips = []
        pages = list_pages(model, range(len(model.cluster_summaries)), range(len(model.column_records)))
        for page in pages:
            number = model.column_records[page.column].field_id
            while model.field_records[number].parent_field_id != number:
                number = model.field_records[number].parent_field_id
            places = [int(p) for p in rng.integers(page.start, page.stop, 2)] if page.stop > page.start else []
            places += [page.stop + 3] if page.checked else []
            flips += [(model.field_records[number].field_name, at, int(rng.integers(8))) for at in places]
    return flips


def outcomes(path: Path, tree: str) -> tuple[set[str], set[str]]:
    """What reading a field gives after each flip, here and by uproot alone."""
    ours, theirs = set(), set()
    with closing(open_source(str(path), tree, load_settings())) as source, uproot.open(path, array_cache=None) as file:
        whole = source.read(list(source.columns), 0, source.entries)
        fields = dict(file[tree].iteritems(recursive=False))
        for name, at, bit in flips_of(path, tree):
            want = {name: whole[name]}
            with flipped(path, at, bit):
                ours.add(outcome(lambda name=name: source.read([name], 0, source.entries), want))
                theirs.add(outcome(lambda name=name: {name: fields[name].array()}, want))
    return ours, theirs


@pytest.mark.scenario(41)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_no_flipped_bit_of_a_page_goes_unseen(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "toy.root"
    write_checked(path, compression)
    with closing(open_ntuple(path)) as source:
        assert source.self_checked
        got = source.read(list(source.columns), 0, ENTRIES)
        assert equal(got, toy_columns(ENTRIES, nested=True))
    ours, theirs = outcomes(path, "Events")
    assert ours == {"ChecksumError"}
    if compression in ("zstd", None):  # the others have checksums within
        assert "wrong" in theirs


@pytest.mark.parametrize("name", FROM_ROOT)
def test_no_flipped_bit_of_files_by_root_goes_unseen(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy.root"
    path.write_bytes((shared_data / name).read_bytes())
    with closing(open_ntuple(path)) as source:
        tree = source.tree
        assert source.self_checked
    ours, theirs = outcomes(path, tree)
    assert ours == {"ChecksumError"}
    assert "wrong" in theirs


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "toy.root"
    write_checked(path, None)
    with uproot.open(path) as file:
        model = file["Events"]
        column = next(n for n, c in enumerate(model.column_records) if model.all_fields[c.field_id].path == "Muon.pt")
        page = next(list_pages(model, [1], [column]))
    with closing(open_ntuple(path)) as source, flipped(path, page.start + 5, 4):
        with pytest.raises(ChecksumError, match=r"toy\.root: column 'Muon.*pt' is damaged in cluster 1"):
            source.read(["Muon"], 0, ENTRIES)
        with pytest.raises(ChecksumError, match="column 'Muon"):
            source.read(list(source.columns), CLUSTER + 1, CLUSTER + 2)
        assert equal(source.read(["Muon"], 0, CLUSTER), {"Muon": toy_columns(ENTRIES, nested=True)["Muon"][:CLUSTER]})
        assert len(source.read(["MET_pt"], 0, ENTRIES)["MET_pt"]) == ENTRIES


@pytest.mark.scenario(41)
def test_flips_of_header_footer_and_page_lists_are_seen(tmp_path: Path) -> None:
    """Only numbers count: a title may differ where nothing checks it, a value must not."""
    path, want = tmp_path / "toy.root", toy_columns(ENTRIES, nested=True)
    write_checked(path, "zstd")
    with uproot.open(path) as file:
        model = file["Events"]
        lists = [g.page_list_link.locator for g in model.footer.cluster_group_records]
        spans = [(int(loc.offset), int(loc.offset + loc.num_bytes)) for loc in lists]
        spans += [(model._members[f"fSeek{n}"], model._members[f"fNBytes{n}"]) for n in ("Header", "Footer")]
        spans[-2:] = [(start, start + size) for start, size in spans[-2:]]
    rng = np.random.default_rng(2)

    def read() -> Any:
        with closing(open_ntuple(path)) as source:
            return source.read(list(source.columns), 0, ENTRIES)

    for start, stop in spans:
        for at in rng.integers(start, stop, 12):
            with flipped(path, int(at), int(rng.integers(8))), pytest.raises(CorruptDataError):
                assert equal(read(), want)
    with flipped(path, spans[0][1] - 20, 3), pytest.raises(ChecksumError, match="list of pages 0 of RNTuple 'Events'"):
        read()


def test_pages_without_checksums_are_not_called_checked(tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "toy.root", entries=50)
    with closing(open_ntuple(tmp_path / "toy.root")) as source:
        assert not source.self_checked


class Counted:
    """A blob that notes what is read."""

    def __init__(self, blob: Any) -> None:
        self._blob, self.ranges = blob, list[tuple[int, int]]()

    def read_ranges(self, ranges: Any) -> Any:
        self.ranges += ranges
        return self._blob.read_ranges(ranges)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blob, name)


def test_only_the_clusters_asked_for_are_read_and_each_page_once(tmp_path: Path) -> None:
    write_checked(tmp_path / "toy.root", "zstd")
    columns = ["MET_pt", "hits", "Muon", "trigger", "Jet_pt"]
    want = toy_columns(ENTRIES, nested=True)
    with closing(open_ntuple(tmp_path / "toy.root")) as source:
        assert source.boundaries(columns) == [0, CLUSTER, 2 * CLUSTER, ENTRIES]
        pages: Any = source._pages  # type: ignore[attr-defined]
        pages._blob = counted = Counted(pages._blob)
        whole = {}
        for start, stop in ((0, CLUSTER), (CLUSTER, 2 * CLUSTER), (2 * CLUSTER, ENTRIES)):
            before = len(counted.ranges)
            got = source.read(columns, start, stop)
            assert equal(got, {n: want[n][start:stop] for n in columns})
            whole[start] = counted.ranges[before:]
        assert len(set(counted.ranges)) == len(counted.ranges)
        counted.ranges.clear()
        for start in range(0, ENTRIES, 7):  # parts of clusters
            stop = min(start + 7, ENTRIES)
            assert equal(source.read(columns, start, stop), {n: want[n][start:stop] for n in columns})
        assert sorted(counted.ranges) == sorted(r for ranges in whole.values() for r in ranges)
        empty = source.read(columns, 5, 5)
        assert {n: str(a.type) for n, a in empty.items()} == {n: f"0 * {got[n].type.content}" for n in columns}
        with pages.served([]), pytest.raises(InternalError, match=re.escape("bytes 0 to 4 were not fetched")):
            pages.read_ranges([(0, 4)])


def test_clusters_larger_than_what_is_kept(tmp_path: Path) -> None:
    """A cluster that is read in parts is kept, unless it is larger than that."""
    columns = toy_columns(ENTRIES)
    write_toy_rntuple(tmp_path / "toy.root", entries=ENTRIES)
    with closing(open_source(str(tmp_path / "toy.root"), None, load_settings())) as source:
        assert isinstance(source, NtupleSource)
        source._cache = uproot.cache.LRUArrayCache(2000)
        for start in range(0, ENTRIES, 50):
            for names in (["Jet_pt"], ["Jet_pt", "Jet_eta", "event"]):
                found = source.read(names, start, start + 50)
                for name in names:
                    assert found[name].to_list() == ak.Array(columns[name])[start : start + 50].to_list()
