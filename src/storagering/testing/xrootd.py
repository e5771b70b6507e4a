"""A private XRootD server on the loopback interface, to be read from, stopped and killed by tests.

The server is Debian's or conda's ``xrootd`` binary, run in a temporary directory of its own: as root it
changes to an unprivileged user, who could not enter the 0700 directories that pytest hands out.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from storagering.errors import InputError, MissingExtraError, NotFoundError, UnreachableError

_START_SECONDS = 15.0
_POLL_SECONDS = 0.02
_PORT_ATTEMPTS = 5
_HOST = "127.0.0.1"
_HANDSHAKE = struct.pack(">5i", 0, 0, 0, 4, 2012)
_CONFIG = """\
all.export / r/o
oss.localroot {work}/data
all.adminpath {work}/adm
all.pidpath {work}/adm
xrd.port {port}
xrd.network nodnr
xrd.allow host 127.0.0.1
xrd.allow host [::ffff:127.0.0.1]
xrd.allow host localhost
"""


class _PortTakenError(Exception):
    """The server ended before it answered, most likely because its port went to another program."""


def available() -> bool:
    """Whether an ``xrootd`` server is on the PATH."""
    return shutil.which("xrootd") is not None


class XRootDServer:
    """A running XRootD server; made by `xrootd_server`.

    Attributes:
        port: TCP port on 127.0.0.1; the same after `restart`.
        work: The server's own directory.
        data: The folder that it serves, inside ``work``.
        log: The server's log file.
    """

    def __init__(self, work: Path, directives: Iterable[str]) -> None:
        self.work = work
        self._more_config = "".join(f"{line}\n" for line in directives)
        self.data = work / "data"
        self.log = work / "log" / "t" / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _server_user()
        for folder in (self.data, work / "adm", work / "log"):
            folder.mkdir()
        for folder in (work, self.data):
            folder.chmod(0o755)
        if self._user:
            for folder in (work, work / "adm", work / "log"):
                shutil.chown(folder, self._user)

    def url(self, name: str) -> str:
        """The ``root://`` address of the file ``name`` of the served folder (it need not exist)."""
        return f"root://{_HOST}:{self.port}//{name.lstrip('/')}"

    @property
    def pid(self) -> int:
        """The server's process.

        Raises:
            InputError: The server does not run.
        """
        if self._process is None:
            raise InputError("the XRootD server does not run; call restart() first")
        return self._process.pid

    @property
    def bytes_sent(self) -> int:
        """See `bytes_sent_by`."""
        return bytes_sent_by(self.pid, self.log)

    def add(self, path: Path, name: str | None = None, *, mode: int = 0o644) -> str:
        """Serve a copy of a file, in place of an earlier one of that name, and return its address.

        The copy is swapped in by a rename: a reader that has the old file open goes on reading the old bytes.

        Args:
            path: File to copy.
            name: Path below the served folder; by default the file's own name.
            mode: Permission bits of the copy; 0 makes the server refuse it.

        Raises:
            InputError: ``name`` leads out of the served folder.
            NotFoundError: ``path`` is not a file.
        """
        if not path.is_file():
            raise NotFoundError(f"{path} is not a file; the XRootD server can only serve files")
        name = name or path.name
        target = self.data / name.lstrip("/")
        if not target.resolve().is_relative_to(self.data.resolve()):
            raise InputError(f"{name!r} leads out of the folder that the XRootD server serves")
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in target.relative_to(self.data).parents:
            (self.data / folder).chmod(0o755)
        part = target.with_name(target.name + ".part")
        shutil.copyfile(path, part)
        part.chmod(mode)
        part.replace(target)
        return self.url(name)

    def remove(self, name: str) -> None:
        """Serve the file ``name`` no longer.

        Raises:
            NotFoundError: There is no such file.
        """
        try:
            (self.data / name.lstrip("/")).unlink()
        except FileNotFoundError:
            raise NotFoundError(f"the XRootD server does not serve {name!r}") from None

    def kill(self) -> None:
        """Kill the server (SIGKILL) and wait for its end; its clients see the connection break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open and nothing is answered until `cont`.

        Raises:
            InputError: The server does not run.
        """
        process = self._signal(signal.SIGSTOP)
        # The signal takes effect one thread at a time, and any thread that still runs may answer.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def cont(self) -> None:
        """Let a frozen server go on (SIGCONT).

        Raises:
            InputError: The server does not run.
        """
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill the server if it runs and start it again on the same port.

        Raises:
            UnreachableError: It does not answer within 15 seconds.
        """
        self.kill()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return self._start(deadline)
            except _PortTakenError:
                if time.monotonic() > deadline:
                    raise self._not_started() from None

    def _start_anywhere(self) -> None:
        """Start on a port that is free now, trying others if it is taken by the time the server wants it."""
        for _ in range(_PORT_ATTEMPTS):
            self.port = _free_port()
            with contextlib.suppress(_PortTakenError):
                return self._start(time.monotonic() + _START_SECONDS)
        raise self._not_started()

    def _start(self, deadline: float) -> None:
        config = self.work / "x.cfg"
        text = _CONFIG.format(work=self.work, port=self.port) + self._more_config
        config.write_text(text, encoding="utf-8")
        command = ["xrootd", "-n", "t", "-c", str(config), "-l", str(self.work / "log" / "log")]
        command += ["-R", self._user] if self._user else []
        self._process = subprocess.Popen(  # noqa: S603 - nothing in it is from outside
            command,
            cwd=self.work / "log",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_until_ready(deadline)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, deadline: float) -> None:
        process = self._process
        while process is not None and process.poll() is None:
            if _answers(self.port):
                return
            if time.monotonic() > deadline:
                raise self._not_started()
            time.sleep(_POLL_SECONDS)
        raise _PortTakenError

    def _not_started(self) -> UnreachableError:
        """The error of a server that did not start; quotes the log, which is deleted with the server."""
        tail = ""
        with contextlib.suppress(OSError):
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return UnreachableError(
            f"the XRootD server on {_HOST}:{self.port} did not start within {_START_SECONDS:.0f} s; "
            f"look for the reason at the end of its log {self.log}:\n{tail or '(no log was written)'}"
        )

    def _signal(self, number: signal.Signals) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise InputError("the XRootD server does not run; call restart() first")
        self._process.send_signal(number)
        return self._process


def bytes_sent_by(pid: int, log: Path) -> int:
    """What a server's process has sent since it was started; compare two values, as other small writes count too."""
    while True:
        logged = log.stat().st_size
        fields = Path(f"/proc/{pid}/io").read_text(encoding="ascii").split()
        if logged == log.stat().st_size:
            return int(fields[fields.index("wchar:") + 1]) - logged


@contextlib.contextmanager
def xrootd_server(
    root: Path | None = None,
    *,
    checksums: Sequence[str] = (),
    redirect_to: str = "",
    bytes_per_second: int | None = None,
) -> Iterator[XRootDServer]:
    """Run a private XRootD server that serves, read-only, copies of the files of a folder.

    Args:
        root: Folder whose files are copied in, with their paths below it, when the server starts. None for an
            empty server. Later files, and later versions of these, are served after `XRootDServer.add`.
        checksums: Algorithms (adler32, crc32, crc32c, md5) in which the server answers queries for checksums,
            the usual one first; without them it refuses such queries.
        redirect_to: ``host:port`` of another server, to which this one sends whoever opens a file.
        bytes_per_second: What it reads for all its clients together at most, as if over a slow link.

    Yields:
        The server, ready to answer. It is killed and its directory removed at the end.

    Raises:
        MissingExtraError: There is no ``xrootd`` on the PATH.
        NotFoundError: ``root`` is not a folder.
        UnreachableError: The server does not answer within 15 seconds.
    """
    if not available():
        raise MissingExtraError(
            "there is no XRootD server on the PATH: apt-get install xrootd-server (or from conda-forge: xrootd)"
        )
    if root is not None and not root.is_dir():
        raise NotFoundError(f"{root} is not a folder; pass the folder that the XRootD server is to serve")
    # Not TMPDIR: the server's user must reach it, and its socket's path must stay below 108 characters.
    work = Path(tempfile.mkdtemp(prefix="storagering-xrd-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))  # noqa: S108
    server: XRootDServer | None = None
    try:
        server = XRootDServer(work, _directives(checksums, redirect_to, bytes_per_second))
        for path in sorted(root.rglob("*")) if root is not None else ():
            if path.is_file():
                server.add(path, str(path.relative_to(root)) if root is not None else None)
        server._start_anywhere()
        yield server
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(work, ignore_errors=True)


def _directives(checksums: Sequence[str], redirect_to: str, bytes_per_second: int | None) -> Iterator[str]:
    if bytes_per_second:
        yield "xrootd.fslib throttle default"
        yield f"throttle.throttle data {bytes_per_second}"
    if checksums:
        yield f"xrootd.chksum max 2 {' '.join(checksums)}"
    if redirect_to:
        yield f"xrootd.redirect {redirect_to} all"
        yield f"xrootd.redirect {redirect_to} /"


def _server_user() -> str | None:
    """The user that the server must change to because it refuses to run as root, else None."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("xrootd", "nobody", "daemon") if name in known), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    """Whether an XRootD server answers the handshake: an open port alone may belong to another program."""
    try:
        with socket.create_connection((_HOST, port), 1.0) as link:
            link.sendall(_HANDSHAKE)
            return len(link.recv(16)) > 0
    except OSError:
        return False
