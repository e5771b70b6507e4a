"""Servers that fail and files that change while a dataset is made from them: the right data, or a typed error.

With a real XRootD server: bytes by ranges where few columns are wanted, whole files where most are.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import adler32

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.cache.layout import open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import Settings, load_settings
from storagering.errors import (
    ChecksumError,
    CorruptDataError,
    SourceChangedError,
    SourceError,
    StorageringError,
    TruncatedError,
)
from storagering.formats.remote.xrootd import XRootDBlob
from storagering.testing import xrootd
from storagering.testing.http import http_server, make_certificate
from storagering.testing.s3 import s3_server
from storagering.testing.toys import toy_columns, write_toy_tree
from storagering.testing.xrootd import XRootDServer, xrootd_server

pytestmark = [
    pytest.mark.xrootd,
    pytest.mark.skipif(not xrootd.available(), reason="no xrootd on the PATH: apt-get install xrootd-server"),
]
LIMIT_SECONDS = 10.0
ENTRIES = 4000
FEW = ["event", "MET_pt"]
CANARY = "CANARYs3cr3t"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_toy_tree(folder / "toy.root", entries=ENTRIES, basket_entries=500)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[XRootDServer]:
    with xrootd_server(folder, checksums=["adler32"]) as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings(workers=1)


class At(BuildProgress):
    """Does something after the first task, when most of the data are still to be read."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action: Callable[[], Any] | None = action

    def advance(self, _entries: int, _decoded_bytes: int) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()

    @property
    def came(self) -> bool:
        return self._action is None


def build(source: str | list[str], settings: Settings, **options: Any) -> Dataset:
    """In several tasks, which read by ranges unless told otherwise."""
    chunk_bytes = 4096 if options.get("columns", FEW) else 1 << 16
    usual: dict[str, Any] = {"name": "toy", "columns": FEW, "chunk_bytes": chunk_bytes, "settings": settings}
    return convert(source, **(usual | options))


def check(dataset: Dataset) -> None:
    want = toy_columns(ENTRIES)
    arrays = dataset.arrays()
    assert ak.array_equal(arrays["event"], want["event"])
    assert ak.array_equal(arrays["MET_pt"], want["MET_pt"])
    assert dataset.manifest.num_entries == ENTRIES


def nothing_there() -> bool:
    return open_cache(load_settings()).names() == []


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_fails_in_the_middle(server: XRootDServer, settings: Settings, how: str) -> None:
    begin: list[float] = []

    def fail() -> None:
        getattr(server, how)()
        begin.append(time.monotonic())

    try:
        with pytest.raises(SourceError, match=r"toy\.root"):
            build(server.url("toy.root"), settings, progress=At(fail))
        assert time.monotonic() - begin[0] < LIMIT_SECONDS
    finally:
        if how == "stop":
            server.cont()
    assert nothing_there()


@pytest.mark.parametrize("columns", [FEW, None])
def test_a_server_that_is_restarted_in_the_middle(
    server: XRootDServer, settings: Settings, columns: list[str] | None
) -> None:
    back = Thread(target=server.restart)

    def kill() -> None:
        server.kill()
        back.start()

    at = At(kill)
    patient = replace(settings, retries=20, retry_seconds=15)
    check(build(server.url("toy.root"), patient, columns=columns, progress=at))
    assert at.came
    back.join()


def test_a_replica_takes_over_in_the_middle(
    server: XRootDServer, folder: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("toy.root")
    alone = build(url, settings, name="alone").manifest
    with xrootd_server(folder) as other:
        os.utime(other.data / "toy.root", (1, 1))
        at = At(server.kill)
        quick = replace(settings, retries=1)
        dataset = build(url, quick, replicas=[f"root://127.0.0.1:{other.port}/"], progress=at)
    assert at.came
    check(dataset)
    assert replace(dataset.manifest, name="alone", digest=alone.digest) == alone
    assert [r.levelno for r in caplog.records if "going on with" in r.message] == [logging.WARNING]


def test_replicas_change_nothing(server: XRootDServer, folder: Path, settings: Settings) -> None:
    url, options = server.url("toy.root"), {"columns": None, "chunk_bytes": 1 << 20}
    first = build(url, settings, **options).manifest.digest
    again = build(url, settings, **options, replicas=["root://127.0.0.1:9/"])
    assert again.manifest.digest == first
    with_workers = build(url, replace(settings, workers=2), **options, replicas=[str(folder / "toy.root")], name="b")
    assert with_workers.manifest.spec_key == again.manifest.spec_key
    assert [c.digest for c in with_workers.manifest.chunks] == [c.digest for c in again.manifest.chunks]


@pytest.mark.parametrize("columns", [FEW, None])
@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_a_file_that_changes_in_the_middle(
    server: XRootDServer, settings: Settings, tmp_path: Path, how: str, columns: list[str] | None
) -> None:
    """Never a mix: one that is open or fetched already is read on as it was, one that is rewritten is an error."""
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=500, seed=1)

    def change() -> None:
        if how == "replaced":
            server.add(tmp_path / "toy.root")
        else:
            (server.data / "toy.root").write_bytes((tmp_path / "toy.root").read_bytes())
        os.utime(server.data / "toy.root", (1, 1))

    at = At(change)
    if how == "rewritten" and columns:
        with pytest.raises(SourceChangedError, match=r"toy\.root changed while it was being"):
            build(server.url("toy.root"), settings, columns=columns, progress=at)
        assert nothing_there()
    else:
        check(build(server.url("toy.root"), settings, columns=columns, progress=at))
    assert at.came


def test_a_file_that_changes_between_inspection_and_work(
    server: XRootDServer, settings: Settings, tmp_path: Path
) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=500, seed=1)

    class Change(BuildProgress):
        def start(self, _total_entries: int) -> None:
            server.add(tmp_path / "toy.root")
            os.utime(server.data / "toy.root", (1, 1))

    for workers in (1, 2):
        os.utime(server.add(tmp_path / "toy.root") and server.data / "toy.root", (2, 2))
        with pytest.raises(SourceChangedError, match=r"toy\.root changed while it was being"):
            build(server.url("toy.root"), replace(settings, workers=workers), progress=Change())
        assert nothing_there()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_checksum(server: XRootDServer, settings: Settings, workers: int) -> None:
    with pytest.raises(ChecksumError, match=r"toy\.root: its bytes give adler32:.*should give adler32:00000001"):
        build(server.url("toy.root"), replace(settings, workers=workers), checksums=["adler32:1"])
    assert nothing_there()


def test_a_wrong_checksum_of_a_local_file(folder: Path, settings: Settings) -> None:
    with pytest.raises(ChecksumError, match=r"toy\.root"):
        build(str(folder / "toy.root"), settings, checksums=["adler32:1"])
    right = f"adler32:{adler32((folder / 'toy.root').read_bytes()):08x}"
    dataset = build(str(folder / "toy.root"), settings, checksums=[right])
    assert [(s.checksum, s.verified) for s in dataset.manifest.sources] == [(right, True)]


def test_damage_that_no_basket_shows(server: XRootDServer, settings: Settings, folder: Path) -> None:
    """Bits that flip on the way, or on the server's disk after it has computed the checksum."""
    path, url = server.data / "toy.root", server.url("toy.root")
    build(url, settings, columns=None, name="before")
    data = bytearray(path.read_bytes())
    for place in range(5000, len(data), 20_000):
        data[place] ^= 1
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    good = f"adler32:{adler32((folder / 'toy.root').read_bytes()):08x}"
    with pytest.raises(ChecksumError, match=good):
        build(url, settings, columns=None, checksums=[good])


def test_what_is_verified_is_recorded(server: XRootDServer, folder: Path, settings: Settings) -> None:
    right = f"adler32:{adler32((folder / 'toy.root').read_bytes()):08x}"

    def verified(url: str, name: str, **options: Any) -> tuple[str, bool]:
        [source] = build(url, settings, name=name, **options).manifest.sources
        return source.checksum, source.verified

    assert verified(server.url("toy.root"), "few") == ("", False)
    assert verified(server.url("toy.root"), "all", columns=None) == (right, True)
    assert verified(server.url("toy.root"), "given", checksums=[right]) == (right, True)
    with xrootd_server(folder) as silent:
        assert verified(silent.url("toy.root"), "silent", columns=None) == ("", False)


def test_nothing_fetched_stays(server: XRootDServer, settings: Settings, cache: Path) -> None:
    build([server.url("toy.root")], settings, columns=None)
    left = {path.name for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 1 << 16}
    assert not [name for name in left if re.fullmatch(r"[0-9a-f]{32}", name)]


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("what", ["truncated", "checksum", "absent", "no access"])
def test_one_bad_file_of_several(
    server: XRootDServer, folder: Path, settings: Settings, tmp_path: Path, bad: int, what: str
) -> None:
    urls = [server.add(folder / "toy.root", f"toy{number}.root") for number in range(3)]
    options: dict[str, Any] = {"columns": None, "chunk_bytes": 1 << 20}
    (tmp_path / "cut").write_bytes((folder / "toy.root").read_bytes()[:50_000])
    if what == "truncated":
        server.add(tmp_path / "cut", f"toy{bad}.root")
    elif what == "absent":
        server.remove(f"toy{bad}.root")
    elif what == "no access":
        server.add(folder / "toy.root", f"toy{bad}.root", mode=0)
    else:
        options["checksums"] = [f"toy{bad}.root=adler32:1"]
    with pytest.raises(StorageringError, match=rf"toy{bad}\.root"):
        build(urls, settings, **options)
    assert nothing_there()
    if what == "no access":
        return  # refused credentials are no fault of the file
    manifest = build(urls, settings, **options, on_bad_source="skip").manifest
    assert [skipped.url for skipped in manifest.skipped_sources] == [urls[bad]]
    assert manifest.num_entries == 2 * ENTRIES


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_file_of_50(settings: Settings, tmp_path: Path, workers: int) -> None:
    """Its damage is found in the middle of the work; the other 49 are all there, in order, with their classes."""
    (tmp_path / "in").mkdir()
    write_toy_tree(tmp_path / "in" / "toy.root", entries=200, compression="zlib")
    with uproot.open(tmp_path / "in" / "toy.root") as file:
        branch = file["Events"]["image"]
        middle = int(branch.member("fBasketSeek")[0]) + int(branch.basket(0).compressed_bytes) // 2
    data = bytearray((tmp_path / "in" / "toy.root").read_bytes())
    data[middle : middle + 40] = bytes(byte ^ 0x55 for byte in data[middle : middle + 40])
    (tmp_path / "damaged.root").write_bytes(data)
    options: dict[str, Any] = {"columns": None, "chunk_bytes": 1 << 16, "workers": workers}
    with xrootd_server(tmp_path / "in") as server:
        urls = [server.add(tmp_path / "in" / "toy.root", f"toy{number:02d}.root") for number in range(50)]
        server.add(tmp_path / "damaged.root", "toy31.root")
        with pytest.raises(CorruptDataError, match=r"toy31\.root: column 'image' is damaged"):
            build(urls, settings, **options)
        assert nothing_there()
        dataset = build(urls, settings, **options, on_bad_source="skip")
    (skipped,) = dataset.manifest.skipped_sources
    assert skipped.url == urls[31]
    assert "column 'image' is damaged" in skipped.reason
    assert dataset.arrays().event.to_list() == toy_columns(200)["event"].tolist() * 49


def test_a_truncated_file(server: XRootDServer, folder: Path, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cut.root").write_bytes((folder / "toy.root").read_bytes()[:-1000])
    with pytest.raises(TruncatedError, match=r"cut\.root"):
        build(server.add(tmp_path / "cut.root"), settings)


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_two_columns_of_900_move_few_bytes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "wide.root"
    columns = {f"c{n:03d}": np.random.default_rng(n).normal(size=10_000).astype(np.float32) for n in range(900)}
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        if kind == "rntuple":
            file.mkrntuple("Events", columns)
        else:
            file.mktree("Events", {name: values.dtype for name, values in columns.items()}).extend(columns)
    moved: list[int] = []
    fetch = XRootDBlob._fetch

    def count(self: XRootDBlob, request: tuple[tuple[int, int], ...]) -> list[bytes]:
        found = fetch(self, request)
        moved.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(XRootDBlob, "_fetch", count)
    with xrootd_server(tmp_path / "in") as server:
        dataset = build(server.url("wide.root"), settings, columns=["c001", "c700"], chunk_bytes=1 << 20)
    arrays = dataset.arrays()
    assert all(ak.array_equal(arrays[name], columns[name]) for name in ("c001", "c700"))
    assert dataset.manifest.sources[0].format == kind
    assert 0 < sum(moved) < 0.05 * path.stat().st_size


def test_no_secret_is_left_anywhere(
    folder: Path,
    server: XRootDServer,
    settings: Settings,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A token in every place where one can be given: URLs, environment, replicas; successes and failures."""
    from storagering.formats.remote import http as remote_http

    caplog.set_level(logging.DEBUG, "storagering")
    certificate = make_certificate(tmp_path)
    remote_http._session.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setenv("BEARER_TOKEN", CANARY)
    messages: list[str] = []
    with http_server(folder) as web, http_server(folder, certificate) as secure, s3_server() as store:
        urls = {
            "xrootd": f"{server.url('toy.root')}?authz=Bearer%20{CANARY}&xrdcl.requuid={CANARY}",
            "http": web.url("toy.root").replace("//", f"//user:{CANARY}@") + f"?access_token={CANARY}",
            "https": f"{secure.url('toy.root')}?X-Amz-Signature={CANARY}",
            "s3": store.add(folder / "toy.root"),
        }
        monkeypatch.setenv("AWS_SESSION_TOKEN", CANARY)
        for scheme, url in urls.items():
            for columns, workers in ((None, 2), (FEW, 1)):
                name = f"{scheme}-{workers}"
                replicas = [urls["http"]] if scheme != "http" else [urls["https"]]
                build(url, replace(settings, workers=workers), name=name, columns=columns, replicas=replicas)
            absent = urls["http"].replace("toy.root", "gone.root")
            with pytest.raises(StorageringError) as caught:
                build(url.replace("toy.root", "absent.root"), settings, name="absent", replicas=[absent])
            messages.append(str(caught.value))
        web.fault = "403"
        with pytest.raises(StorageringError) as caught:
            build(urls["http"], replace(settings, workers=2), name="refused")
        messages.append(str(caught.value))
    remote_http._session.cache_clear()
    written = [path for path in cache.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]
    told = "".join([*messages, caplog.text, *capfd.readouterr()])
    assert "absent.root" in told
    assert CANARY not in told
