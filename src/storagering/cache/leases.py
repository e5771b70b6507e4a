"""Leases: proof that a process lives, by a lock that the kernel frees when it dies.

ROOT/leases/ID.lock     held by the process; who it is stands in it, for messages
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from storagering.errors import StorageringError
from storagering.files import FileLock, make_directory, read_file, remove_file, replace_file, safe_join

_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True)
class Holder:
    """Who holds something.

    Attributes:
        since: date and time, UTC, ISO 8601.
        purpose: what for, in words.
    """

    host: str
    pid: int
    user: str
    since: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.purpose} ({self.user}, process {self.pid} on {self.host}, since {self.since})"


def this_process(purpose: str) -> Holder:
    """The present process as a holder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), _user(), since, purpose)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return str(os.getuid())


class Lease:
    """Held from its making to `release`, or to the death of the process."""

    def __init__(self, root: Path, purpose: str) -> None:
        self.id = secrets.token_hex(8)
        self.holder = this_process(purpose)
        folder = _folder(root)
        make_directory(folder)
        self._lock = FileLock(safe_join(folder, f"{self.id}.lock"))
        while not self._lock.try_acquire():  # one who sweeps has it for a moment
            pass
        try:
            replace_file(safe_join(folder, f"{self.id}.json"), msgspec.json.encode(self.holder))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give it back; without it, or in a child of the process, nothing happens."""
        if self.holder.pid != os.getpid():
            return
        with suppress(StorageringError):  # a file that stays is swept up by whoever looks next
            remove_file(self._lock.path)
            remove_file(self._lock.path.with_suffix(".json"))
        self._lock.release()


def is_alive(root: Path, lease: str) -> bool:
    """Whether the process that holds a lease lives; what a dead one left is removed."""
    path = safe_join(_folder(root), f"{lease}.lock")
    if not path.exists():
        return False
    lock = FileLock(path)
    if not lock.try_acquire():
        return path.exists()
    remove_file(path)
    remove_file(path.with_suffix(".json"))
    lock.release()
    return False


def holder_of(root: Path, lease: str) -> Holder | None:
    """Who holds a lease, None if nothing tells."""
    with suppress(StorageringError, msgspec.MsgspecError):
        return msgspec.json.decode(read_file(safe_join(_folder(root), f"{lease}.json"), _LIMIT_BYTES), type=Holder)
    return None


def sweep_leases(root: Path) -> int:
    """Remove the leases of dead processes; how many there were."""
    return sum(not is_alive(root, path.stem) for path in _folder(root).glob("*.lock"))


def _folder(root: Path) -> Path:
    return root / "leases"
