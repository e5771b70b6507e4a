"""Bytes from a real XRootD server: requests within its limits, failures, changes, redirection, checksums."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import (
    NotFoundError,
    SourceChangedError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
    UnreachableError,
)
from storagering.formats.checksums import Checksummer
from storagering.formats.remote.reliable import ReliableBlob
from storagering.formats.remote.xrootd import XRootDBlob, list_matches
from storagering.formats.source import Location
from storagering.formats.whole import open_reliably
from storagering.testing import xrootd
from storagering.testing.xrootd import XRootDServer, xrootd_server

pytestmark = [
    pytest.mark.xrootd,
    pytest.mark.skipif(not xrootd.available(), reason="no xrootd on the PATH: apt-get install xrootd-server"),
]
LIMIT_SECONDS = 10.0
CONTENT = np.random.default_rng(0).bytes(12 << 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "file.bin").write_bytes(CONTENT)
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("a.root", "sub/b.root", "sub/c.txt", "sub/deep/d.root"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def lasting(folder: Path) -> Iterator[XRootDServer]:
    """For tests that do it no harm."""
    with xrootd_server(folder, checksums=["adler32", "crc32c"]) as server:
        yield server


@pytest.fixture
def server(folder: Path) -> Iterator[XRootDServer]:
    with xrootd_server(folder) as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def opened(url: str, settings: Settings) -> ReliableBlob:
    return open_reliably(Location(url), settings)


def test_ranges_of_every_kind(lasting: XRootDServer, settings: Settings) -> None:
    rng = np.random.default_rng(1)
    starts = [int(n) for n in rng.integers(0, len(CONTENT) - 100, 3000)]
    ranges = [(n, n + 100) for n in starts] + [(0, 0), (100_000, 9_500_000), (len(CONTENT) - 1, len(CONTENT))]
    with closing(opened(lasting.url("file.bin"), settings)) as blob:
        assert blob.size == len(CONTENT)
        assert all(d == CONTENT[a:b] for d, (a, b) in zip(blob.read_ranges(ranges), ranges, strict=True))
        assert blob.read(0, blob.size) == CONTENT
        assert blob.read_ranges([]) == []
        with pytest.raises(TruncatedError, match="12,582,912 bytes"):
            blob.read(0, blob.size + 1)


def test_requests_keep_to_the_limits(
    lasting: XRootDServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    fetch = XRootDBlob._fetch

    def count(self: XRootDBlob, request: tuple[tuple[int, int], ...]) -> list[bytes]:
        sizes.append((len(request), sum(b - a for a, b in request)))
        return fetch(self, request)

    monkeypatch.setattr(XRootDBlob, "_fetch", count)
    with closing(XRootDBlob(lasting.url("file.bin"), settings)) as blob:
        blob.read_ranges([(n, n + 1000) for n in range(0, len(CONTENT), 10_000)])
        assert [n for n, _ in sizes] == [1024, 235]
        sizes.clear()
        blob.read_ranges([(n, n + 9900) for n in range(0, len(CONTENT) - 10_000, 10_000)])
        assert [n for n, _ in sizes] == [1, 1]
        assert sizes[0][1] == 8 << 20


def test_a_server_that_is_killed(server: XRootDServer, settings: Settings) -> None:
    with closing(opened(server.url("file.bin"), settings)) as blob:
        server.kill()
        begin = time.monotonic()
        with pytest.raises(UnreachableError, match=r"file\.bin: cannot reach the server"):
            blob.read(0, 100)
        assert time.monotonic() - begin < LIMIT_SECONDS


def test_a_server_that_freezes(server: XRootDServer, settings: Settings) -> None:
    with closing(opened(server.url("file.bin"), settings)) as blob:
        server.stop()
        begin = time.monotonic()
        try:
            with pytest.raises(SourceTimeoutError, match=r"file\.bin: the server did not answer in time"):
                blob.read(0, 100)
        finally:
            server.cont()
        assert time.monotonic() - begin < LIMIT_SECONDS


def test_a_server_that_is_restarted_while_reading(server: XRootDServer, settings: Settings) -> None:
    patient = replace(settings, retries=20, retry_seconds=15)
    with closing(opened(server.url("file.bin"), patient)) as blob:
        blob.read(0, 100)
        server.kill()
        back = Thread(target=server.restart)
        back.start()
        assert blob.read(0, blob.size) == CONTENT
        back.join()


def test_another_file_behind_a_restart(server: XRootDServer, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(CONTENT[::-1])
    with closing(opened(server.url("file.bin"), settings)) as blob:
        blob.read(0, 100)
        server.kill()
        server.add(tmp_path / "other", "file.bin")
        os.utime(server.data / "file.bin", (1, 1))
        server.restart()
        with pytest.raises(SourceChangedError, match=r"file\.bin changed while it was being read"):
            blob.read(100, 200)


@pytest.mark.parametrize("change", ["rewritten", "cut", "longer"])
def test_a_file_that_changes_in_place(server: XRootDServer, settings: Settings, change: str) -> None:
    path = server.data / "file.bin"
    with closing(opened(server.url("file.bin"), settings)) as blob:
        blob.read(0, 100)
        if change == "rewritten":
            path.write_bytes(CONTENT[::-1])
        else:
            os.truncate(path, 5000 if change == "cut" else len(CONTENT) + 1)
        os.utime(path, (1, 1))
        with pytest.raises(SourceChangedError):
            blob.read(0, 10_000)


def test_a_file_that_is_replaced_is_read_on(server: XRootDServer, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(CONTENT[::-1])
    with closing(opened(server.url("file.bin"), settings)) as blob:
        server.add(tmp_path / "other", "file.bin")
        assert blob.read(0, blob.size) == CONTENT


def test_the_file_is_the_one_that_was_found_before(server: XRootDServer, settings: Settings) -> None:
    url = server.url("file.bin")
    with closing(opened(url, settings)) as blob:
        state = blob.state
    open_reliably(Location(url, state=state), settings).close()
    os.utime(server.data / "file.bin", (1, 1))
    with pytest.raises(SourceChangedError):
        open_reliably(Location(url, state=state), settings)


def test_redirection(lasting: XRootDServer, settings: Settings) -> None:
    with xrootd_server(redirect_to=f"127.0.0.1:{lasting.port}") as redirector:
        with closing(opened(redirector.url("file.bin"), settings)) as blob:
            assert blob.read(1000, 2000) == CONTENT[1000:2000]
            assert blob.stated_checksum().startswith("adler32:")
        with pytest.raises(NotFoundError, match=r"absent\.bin"):
            opened(redirector.url("absent.bin"), settings)


@pytest.mark.parametrize("algorithms", [["crc32c"], ["md5"]])
def test_checksums_that_the_server_states(folder: Path, settings: Settings, algorithms: list[str]) -> None:
    with (
        xrootd_server(folder, checksums=algorithms) as server,
        closing(opened(server.url("file.bin"), settings)) as blob,
    ):
        stated = blob.stated_checksum()
    summer = Checksummer(algorithms[0])
    summer.update(CONTENT)
    summer.compare(stated, "")


def test_servers_without_checksums_that_are_known(
    server: XRootDServer, lasting: XRootDServer, folder: Path, settings: Settings
) -> None:
    with closing(opened(lasting.url("file.bin"), settings)) as blob:
        assert blob.stated_checksum().startswith("adler32:")
    with closing(opened(server.url("file.bin"), settings)) as blob:
        assert blob.stated_checksum() == ""
    # XRootD's crc32 is that of cksum, not the one that everybody else calls so.
    with xrootd_server(folder, checksums=["crc32"]) as cksum, closing(opened(cksum.url("file.bin"), settings)) as blob:
        assert blob.stated_checksum() == ""


def test_patterns(lasting: XRootDServer, settings: Settings) -> None:
    def matches(pattern: str) -> list[str]:
        return list_matches(lasting.url(pattern), settings)

    def urls(*names: str) -> list[str]:
        return [lasting.url(name) for name in names]

    assert matches("*.root") == urls("a.root")
    assert matches("*/[bc].*") == urls("sub/b.root", "sub/c.txt")
    assert matches("**/*.root") == urls("a.root", "sub/b.root", "sub/deep/d.root")
    assert matches("s*/**/[bd].root") == urls("sub/b.root", "sub/deep/d.root")
    assert matches("*/*/*") == urls("sub/deep/d.root")
    assert matches("*.parquet") == []
    with pytest.raises(NotFoundError):
        matches("absent/*.root")


def test_patterns_keep_the_token(lasting: XRootDServer, settings: Settings) -> None:
    assert list_matches(lasting.url("a.*") + "?authz=T", settings) == [lasting.url("a.root") + "?authz=T"]


def test_a_refused_connection_counts_its_attempts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []
    connect = XRootDBlob.__init__

    def count(self: XRootDBlob, url: str, settings: Settings) -> None:
        attempts.append(url)
        connect(self, url, settings)

    monkeypatch.setattr(XRootDBlob, "__init__", count)
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9"):
        opened("root://127.0.0.1:9//x.root", settings)
    assert time.monotonic() - begin < LIMIT_SECONDS
    assert 1 < len(attempts) <= settings.retries + 1


def test_the_client_ends_quietly() -> None:
    """At exit it looks at all objects, deprecated ones of other packages too."""
    code = """
import warnings
from storagering.config import load_settings
from storagering.formats.remote.xrootd import load_client
class Deprecated:
    @property
    def __class__(self):
        warnings.warn("do not look at me", FutureWarning)
        return Deprecated
load_client(load_settings())
kept = [Deprecated()]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
