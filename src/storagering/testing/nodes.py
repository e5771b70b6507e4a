"""Nodes that serve their caches, as processes of their own; and peers that answer whatever is wanted."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storagering.errors import PeerError
from storagering.types import Manifest

_WAIT_SECONDS = 30


@dataclass
class Node:
    """A running ``storagering serve``.

    Attributes:
        url: where it answers.
        told: what it wrote to stderr, complete once it has ended.
    """

    url: str
    process: "subprocess.Popen[str]"
    told: str = ""

    def stop(self) -> int:
        """End it as a batch system would; the exit code."""
        self.process.terminate()
        self.told += self.process.communicate(timeout=_WAIT_SECONDS)[1]
        return self.process.returncode


@contextlib.contextmanager
def serving_node(cache: Path, *words: object, **environment: str) -> Iterator[Node]:
    """Serve a cache from a process of its own, on a free loopback port if no other is asked for.

    Args:
        words: further words of the command line.
        environment: further variables of its environment.

    Raises:
        PeerError: It ended before it served.
    """
    port = () if "--port" in words else ("--port", "0")
    command = [sys.executable, "-m", "storagering", "serve", *port, *map(str, words)]
    variables = os.environ | {"STORAGERING_CACHE": str(cache)} | environment
    process = subprocess.Popen(  # noqa: S603 - words of the test
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None  # noqa: S101 - for the type checker
        line = process.stderr.readline()
        if " at http" not in line:
            raise PeerError(f"the node did not start: {line}{process.communicate(timeout=_WAIT_SECONDS)[1]}")
        yield Node(line.split()[-1], process, line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@dataclass
class ScriptedPeer:
    """A peer that answers every request by a function.

    Attributes:
        requests: The first line of each request so far.
    """

    url: str
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def scripted_peer(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[ScriptedPeer]:
    """Answer each connection on a free loopback port by a function, in a thread each.

    Args:
        answer: Gets the connection, once the request was read, and an event that is set at the end, when it must
            return.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = ScriptedPeer(f"http://127.0.0.1:{server.getsockname()[1]}")
        threads: list[threading.Thread] = []

        def serve(link: socket.socket) -> None:
            with link, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request and (data := link.recv(1 << 16)):
                    request += data
                peer.requests.append(request.split(b"\r\n")[0].decode("latin-1"))
                answer(link, over)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=serve, args=(server.accept()[0],), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield peer
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join(_WAIT_SECONDS)


def lay_out_answers(root: Path, folder: Path, manifest: Manifest, manifest_bytes: bytes) -> None:
    """Make a folder that answers as a node with that dataset does, if an HTTP server serves it.

    Args:
        folder: That of the dataset.
    """
    file, digest = manifest.chunk_statistics
    answers = {
        f"manifests/{manifest.name}": manifest_bytes,
        f"specs/{manifest.spec_key}": manifest_bytes,
        f"statistics/{digest}": (folder / file).read_bytes(),
    }
    answers |= {f"chunks/{chunk.digest}": (folder / chunk.file).read_bytes() for chunk in manifest.chunks}
    for name, data in answers.items():
        path = root / "v1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
