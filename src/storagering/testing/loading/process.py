"""A loader in a process of its own, asked for one epoch after the other."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from storagering.errors import InputError
from storagering.testing.loading.case import Case
from storagering.testing.loading.environments import Environment, variables
from storagering.testing.loading.peers import Peer

_LIMIT_SECONDS = 300


class LoaderError(InputError):
    """A loader's process ended or did not answer; the message is its last line."""


class LoaderProcess:
    """One peer on one case. Ends with the block that it is entered for, with all its children.

    Raises:
        LoaderError: it failed, or took longer than five minutes over one answer.
    """

    def __init__(self, environment: Environment, peer: Peer, case: Case, folder: Path) -> None:
        self._log = folder / "stderr"
        self._environment, self._folder = environment, folder
        self._asked = {"case": asdict(case) | {"root": str(case.root)}, "module": peer.module, "variant": peer.variant}
        self.pid = 0

    def prepare(self) -> None:
        """Have it make its own files, in a process for that alone."""
        with self:
            self._send(self._asked | {"prepare": True})
            self._answer(wanted=False)

    def open(self) -> dict[str, Any]:
        """Have it open them: ``open_s``, ``disk_bytes``."""
        self._send(self._asked)
        return self._answer()

    def run(self, number: int, keep: Path | None = None) -> dict[str, Any]:
        """One epoch (see `storagering.testing.loading.one`)."""
        self._send({"number": number, "keep": keep and str(keep)})
        return self._answer()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it and its children meanwhile."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def __enter__(self) -> LoaderProcess:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - environments that the user named
                [self._environment.python, "-m", "storagering.testing.loading.one"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=variables(self._environment, self._folder),
                start_new_session=True,
                bufsize=0,
            )
        self.pid = self._process.pid
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with suppress(ProcessLookupError):  # it may have left children
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _answer(self, *, wanted: bool = True) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], _LIMIT_SECONDS)[0]:
                raise LoaderError(f"no answer in {_LIMIT_SECONDS} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                code = self._process.wait()
                if code == 0 and not wanted:
                    return {}
                lines = self._log.read_text(errors="replace").strip().splitlines() or [""]
                raise LoaderError(f"exit code {code}: {lines[-1][:300]}")
            text += part
        answer: dict[str, Any] = json.loads(text)
        return answer
