"""The private XRootD server: what it serves, and how it is stopped, killed and brought back."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import adler32

import awkward as ak
import pytest
import uproot

from storagering.config import load_settings
from storagering.errors import InputError, MissingExtraError, NotFoundError, UnreachableError
from storagering.formats.remote.xrootd import load_client
from storagering.testing import xrootd
from storagering.testing.toys import write_toy_rntuple, write_toy_tree
from storagering.testing.xrootd import XRootDServer, available, xrootd_server

needs_server = pytest.mark.skipif(not available(), reason="no xrootd on the PATH: apt-get install xrootd-server")
pytestmark = pytest.mark.xrootd


@pytest.fixture(autouse=True)
def _client() -> None:
    """Imported under our timeouts; its own defaults hang for minutes on a dead server."""
    pytest.importorskip("XRootD.client", reason="needs the XRootD client: pip install 'storagering[xrootd]'")
    load_client(load_settings())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "small.txt").write_text("small")
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[XRootDServer]:
    with xrootd_server(root) as running:
        yield running


def read(url: str) -> bytes:
    client = pytest.importorskip("XRootD.client", reason="needs the XRootD client: pip install 'storagering[xrootd]'")
    with client.File() as file:
        status, _ = file.open(url)
        if not status.ok:
            raise OSError(status.message)
        status, data = file.read()
        assert status.ok, status.message
        return bytes(data)


def test_what_it_sends_is_counted(server: XRootDServer, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(1_000_000))
    url = server.add(tmp_path / "large.bin")
    before = server.bytes_sent
    assert len(read(url)) == 1_000_000
    sent = server.bytes_sent
    assert 1_000_000 <= sent - before < 1_010_000
    server.kill()
    with pytest.raises(InputError, match="does not run"):
        _ = server.bytes_sent


def answers(port: int, wait: float = 0.3) -> bool:
    """Whether the server answers a handshake within ``wait`` seconds."""
    try:
        with socket.create_connection(("127.0.0.1", port), wait) as link:
            link.sendall(xrootd._HANDSHAKE)
            return bool(link.recv(16))
    except OSError:
        return False


@needs_server
@pytest.mark.parametrize("write", [write_toy_tree, write_toy_rntuple])
def test_uproot_reads_the_same_as_locally(server: XRootDServer, tmp_path: Path, write: Any) -> None:
    pytest.importorskip("fsspec_xrootd", reason="needs the XRootD client: pip install 'storagering[xrootd]'")
    write(tmp_path / "toy.root", entries=500)
    url = server.add(tmp_path / "toy.root")
    assert url == f"root://127.0.0.1:{server.port}//toy.root"
    with uproot.open(tmp_path / "toy.root") as local, uproot.open(url) as remote:
        assert ak.array_equal(local["Events"].arrays(), remote["Events"].arrays())


@needs_server
def test_files_of_the_folder_are_served(server: XRootDServer) -> None:
    assert read(server.url("sub/small.txt")) == b"small"


@needs_server
def test_add_replaces_and_remove_removes(server: XRootDServer, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    assert read(server.add(tmp_path / "new", "sub/small.txt")) == b"new"
    server.remove("sub/small.txt")
    with pytest.raises(OSError, match="3011"):
        read(server.url("sub/small.txt"))
    with pytest.raises(NotFoundError):
        server.remove("sub/small.txt")


@needs_server
def test_add_with_mode_zero_is_refused(server: XRootDServer, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    with pytest.raises(OSError, match="3010"):
        read(server.add(tmp_path / "new", mode=0))


@needs_server
def test_server_is_read_only(server: XRootDServer) -> None:
    client = pytest.importorskip("XRootD.client")
    flags = pytest.importorskip("XRootD.client.flags").OpenFlags
    with client.File() as file:
        status, _ = file.open(server.url("sub/written.txt"), flags.NEW)
    assert not status.ok
    assert not (server.data / "sub" / "written.txt").exists()


@needs_server
def test_only_loopback_clients_are_let_in(server: XRootDServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5, source_address=("127.0.0.2", 0)) as link:
        link.settimeout(5)
        try:
            link.sendall(xrootd._HANDSHAKE)
            assert link.recv(16) == b""
        except ConnectionError:
            pass


@needs_server
def test_kill_and_restart_on_the_same_port(server: XRootDServer) -> None:
    port = server.port
    server.kill()
    assert not answers(port)
    with pytest.raises(InputError, match="restart"):
        server.stop()
    server.kill()
    server.restart()
    assert server.port == port
    assert read(server.url("sub/small.txt")) == b"small"
    server.restart()
    assert read(server.url("sub/small.txt")) == b"small"


@needs_server
def test_stop_and_cont(server: XRootDServer) -> None:
    server.stop()
    assert not answers(server.port)
    server.cont()
    assert answers(server.port, 10)


@needs_server
def test_a_taken_port_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    free = xrootd._free_port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(xrootd, "_free_port", lambda: next(ports, None) or free())
        with xrootd_server() as server:
            assert server.port != taken


@needs_server
def test_checksums_on_request(root: Path) -> None:
    client = load_client(load_settings())
    adler = f"adler32 {adler32(b'small'):08x}".encode()
    for algorithms, want in (([], None), (["adler32", "crc32c"], adler), (["crc32c"], b"crc32c ")):
        with xrootd_server(root, checksums=algorithms) as server:
            files = client.FileSystem(server.url(""))
            status, answer = files.query(client.flags.QueryCode.CHECKSUM, "/sub/small.txt", timeout=5)
        assert status.ok == (want is not None)
        assert want is None or answer.startswith(want)


@needs_server
def test_redirection(server: XRootDServer) -> None:
    with xrootd_server(redirect_to=f"127.0.0.1:{server.port}") as other:
        assert read(other.url("sub/small.txt")) == b"small"


@needs_server
def test_nothing_is_left(root: Path) -> None:
    with pytest.raises(KeyError), xrootd_server(root) as server:  # noqa: PT012
        server.stop()
        raise KeyError
    assert not server.work.exists()
    assert not answers(server.port)


@needs_server
def test_log_is_quoted_when_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrootd, "_CONFIG", xrootd._CONFIG + "all.export nonsense\n")
    with pytest.raises(UnreachableError, match=r"log/t/log:\n(.|\n)*nonsense"), xrootd_server():
        pass


@needs_server
def test_mistakes(server: XRootDServer, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a file"):
        server.add(tmp_path / "nope")
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match="leads out"):
        server.add(tmp_path / "f", "../f")
    with pytest.raises(NotFoundError, match="not a folder"), xrootd_server(tmp_path / "f"):
        pass


def test_binary_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not available()
    with pytest.raises(MissingExtraError, match="apt-get install xrootd-server"), xrootd_server():
        pass
