"""A command in a terminal of its own: a real pseudo-terminal, typed at and read from."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_SECONDS = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][0-9A-Za-z]?|\x1b\][^\x07]*\x07")


class Terminal:
    """What a person would do with it.

    Attributes:
        process: the command.
    """

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process, self._descriptor, self._unread = process, descriptor, ""

    def type(self, text: str) -> None:
        """Press keys: ``\\r`` is Enter, ``\\t`` is Tab, ``\\x03`` is Ctrl-C, ``\\x04`` is Ctrl-D."""
        os.write(self._descriptor, text.encode())

    def see(self, text: str) -> str:
        """Wait for some text, and forget what came up to its end; returns that, without colours."""
        deadline = time.monotonic() + _SECONDS
        while text not in self._unread:
            assert self._read(deadline - time.monotonic()), f"{text!r} does not come: {self._unread!r}"
        before, found, self._unread = self._unread.partition(text)
        return before + found

    def end(self) -> int:
        """Wait for the end of the command; returns its exit code."""
        deadline = time.monotonic() + _SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self._unread!r}"
            self._read(0.05)  # what nobody reads would hold it up
        return self.process.returncode

    def stop(self, number: signal.Signals) -> int:
        """End the command by a signal; returns its exit code.

        Once is not always enough: one that comes just before readline waits for a key is seen at the next key or
        signal. After it was seen, another one would meet a process that is going.
        """
        deadline = time.monotonic() + _SECONDS
        while "interrupted" not in self._unread and self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self._unread!r}"
            self.process.send_signal(number)
            patience = time.monotonic() + 2
            while "interrupted" not in self._unread and time.monotonic() < patience:
                self._read(0.05)
        return self.end()

    def _read(self, seconds: float) -> bool:
        """Read what comes within some time; whether anything did."""
        if not select.select([self._descriptor], [], [], max(seconds, 0))[0]:
            return False
        data = b""
        with suppress(OSError):  # the command has ended
            data = os.read(self._descriptor, 1 << 16)
        self._unread = _ESCAPES.sub("", self._unread + data.decode(errors="replace"))
        return bool(data)

    def echoes(self) -> bool:
        """Whether typed keys are shown by the terminal itself, as in a shell."""
        flags: int = termios.tcgetattr(self._descriptor)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)


@contextmanager
def terminal(words: Sequence[str], **environment: str) -> Iterator[Terminal]:
    """Run a command in a new terminal."""
    ours, theirs = pty.openpty()
    usual = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | usual | environment, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(ours)
        os.close(theirs)


def _take_terminal() -> None:
    """Make it the terminal of the process, so that its keys send signals."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
