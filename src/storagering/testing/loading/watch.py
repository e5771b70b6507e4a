"""What processes use and what others take meanwhile, from /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _read(task).split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a tree of processes, those that ended and were waited for included."""
    ticks = 0
    for one in tree(pid):
        fields = _read(Path(f"/proc/{one}/stat")).rpartition(")")[2].split()
        ticks += sum(int(value) for value in fields[11:15])
    return ticks / _TICKS


def busy_seconds() -> float:
    """Time that all cores of the machine were busy."""
    values = [int(value) for value in _read(Path("/proc/stat")).splitlines()[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / _TICKS


def anonymous_bytes(pid: int) -> int:
    """Memory of a tree of processes that no file stands behind, shared memory counted once."""
    private, shared = 0, 0
    for one in tree(pid):
        for line in _read(Path(f"/proc/{one}/status")).splitlines():
            if line.startswith("RssAnon"):
                private += int(line.split()[1])
            elif line.startswith("RssShmem"):
                shared = max(shared, int(line.split()[1]))
    return (private + shared) * 1024


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""


class PeakMemory:
    """The largest `anonymous_bytes` of a tree while this is entered, looked at every 50 ms."""

    def __init__(self, pid: int) -> None:
        self.nbytes = 0
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.05):
            self.nbytes = max(self.nbytes, anonymous_bytes(self._pid))
