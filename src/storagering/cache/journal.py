"""Journals: what processes tell of what they do, a line each time, for the catalog to take in later.

    ROOT/journals/KIND/NAME.journal    lines of one process, which holds it locked (flock) while it may add to it

A line is ``CRC32C NUMBER JSON`` and a newline; the checksum is that of what follows it, lines are numbered from 0.
Names are random and never used twice, so (name, number) is the key of a line for ever.

**A line is acknowledged when `append` has returned True.** It is in the kernel's hands then: no death of the process
takes it away, whatever the signal. It is not synced: a power cut may take the last seconds of what is a history, not
the data, and a sync would cost every reader milliseconds. A process that dies while it writes leaves a line without its
newline, which is none. After an error a journal is not written to again, so nothing ever follows such a rest.

No lock is taken between threads: a thread takes a journal that is idle, or begins another. So an append can happen
anywhere, even in a destructor that interrupts an append. A forked child begins journals of its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from google_crc32c import value as crc32c

from storagering import files
from storagering.cache.layout import Cache
from storagering.cache.root import make_folder
from storagering.errors import CacheError, CacheFullError, LimitExceededError, ReadOnlyCacheError, StorageringError
from storagering.files import disk_errors, list_directory, read_file, remove_file, safe_join
from storagering.modes import settle_mode

#: At which another one is begun. A single line is never longer than the second.
_ENOUGH_BYTES, _LINE_BYTES = 1 << 20, 1 << 20
#: What all journals of a kind may take. The catalog replaces those that are finished by archives a tenth as large.
_MOST_BYTES = 256 << 20
#: Journals that a process keeps open: of so many caches, kinds and threads.
_MOST_OPEN = 8
_TRIES = 8
_SUFFIX = ".journal"
_NAME = re.compile(r"[0-9a-f]{32}(@[0-9a-f]{8})?\.journal")
_HEAD = re.compile(rb"([0-9a-f]{8}) (0|[1-9][0-9]{0,17}) ")

_idle: list[_Journal] = []
_told: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        number: of the line in its journal.
        text: JSON.
    """

    number: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Lines:
    """What a journal holds from some byte on.

    Attributes:
        end: the byte from which to read on.
        damaged: lines that are not what was written.
    """

    lines: tuple[Line, ...]
    end: int
    damaged: int


def append(cache: Cache, kind: str, record: Any) -> bool:
    """Add a line to this process's journal of a kind; whether it was done.

    What prevents it is never an error, but the first time a warning; and nothing in a cache that can only be read.

    Args:
        record: a dataclass of what JSON can hold.
    """
    if not cache.settings.journal:
        return False
    try:
        journal = _take(cache, kind)
        try:
            journal.append(msgspec.json.encode(record))
        except BaseException:
            journal.abandon()
            raise
    except (StorageringError, OSError, ValueError) as error:
        _tell(cache, kind, error)
        return False
    _idle.append(journal)
    _close_some()
    return True


def list_journals(cache: Cache, kind: str) -> list[Path]:
    """The journals of a kind, of all processes, sorted by name."""
    return sorted(path for path in list_directory(journal_folder(cache, kind)) if _NAME.fullmatch(path.name))


def journal_folder(cache: Cache, kind: str) -> Path:
    """Where they lie."""
    return safe_join(cache.root, "journals", kind)


def read_journal(path: Path, start: int = 0, *, finished: bool = False) -> Lines:
    """The lines of a journal from byte ``start`` on, where a line begins.

    Args:
        finished: whether nobody writes to it any more. If somebody may, a last line that does not match its checksum is
            left for later: parts of it may not be visible yet.

    Raises:
        NotFoundError: there is none.
        CorruptDataError: the disk has lost its bytes, or it is larger than any journal.
    """
    *whole, _ = read_file(path, _ENOUGH_BYTES + _LINE_BYTES)[start:].split(b"\n")
    lines, damaged, end = [], 0, start
    for number, text in enumerate(whole):
        line = _parse(text)
        if line is None and number == len(whole) - 1 and not finished:
            break
        end += len(text) + 1
        damaged += line is None
        if line is not None:
            lines.append(line)
    return Lines(tuple(lines), end, damaged)


@contextmanager
def kept_finished(path: Path) -> Iterator[bool]:
    """Whether nobody writes to a journal any more: its process is dead, or has begun another.

    For the length of the ``with`` block it stays so. Of a journal that another machine writes, nobody can tell.
    """
    try:
        descriptor = files.disk.open(path)
    except OSError:  # it is gone, or not for us to read
        yield False
        return
    try:
        yield _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


class _Journal:
    """A journal that this process writes.

    Attributes:
        key: root of the cache, and kind.
    """

    def __init__(self, cache: Cache, kind: str) -> None:
        self.key, folder = (str(cache.root), kind), journal_folder(cache, kind)
        self._owner, self._lines, self._nbytes = os.getpid(), 0, 0
        for place in (folder.parent, folder):
            make_folder(place, shared=cache.settings.shared)
        _check_room(folder)
        for _ in range(_TRIES):
            self._path = safe_join(folder, f"{secrets.token_hex(16)}{cache.machine}{_SUFFIX}")
            if self._create():
                return
        raise CacheError(f"no journal can be begun in {folder}: its files are locked or removed at once")

    def _create(self) -> bool:
        """Make the file and lock it; False if somebody who looks for finished ones was faster."""
        with disk_errors(self._path):
            self._descriptor = files.disk.create(self._path)
            try:
                settle_mode(self._path, self._descriptor)
                done = _lock(self._descriptor, fcntl.LOCK_EX) and self._is_there()
            except BaseException:
                os.close(self._descriptor)
                raise
        if not done:
            self.abandon()
        return done

    def _is_there(self) -> bool:
        return os.fstat(self._descriptor).st_nlink > 0

    @property
    def is_usable(self) -> bool:
        """Whether this process may add to it: it is not full, not the parent's, and nobody has removed it."""
        return self._owner == os.getpid() and self._nbytes < _ENOUGH_BYTES and self._is_there()

    def append(self, text: bytes) -> None:
        """Add a line.

        Raises:
            CacheError: the disk refuses.
            LimitExceededError: it is too long.
        """
        body = b"%d %s" % (self._lines, text)
        line = b"%08x %s\n" % (crc32c(body), body)
        if len(line) > _LINE_BYTES:
            raise LimitExceededError(f"a line of {len(line):,} bytes is too long for a journal")
        with disk_errors(self._path, len(line)):
            files.disk.write(self._path, self._descriptor, [line])
        self._lines += 1
        self._nbytes += len(line)

    def abandon(self) -> None:
        """Close it after an error; a part of a line may be at its end."""
        if not self._lines:
            with suppress(StorageringError):
                remove_file(self._path)
        self.close()

    def close(self) -> None:
        """Finish it."""
        os.close(self._descriptor)


def _lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take(cache: Cache, kind: str) -> _Journal:
    """A journal that no other thread uses."""
    key = str(cache.root), kind  # comparing paths would take longer than all else here
    for journal in list(_idle):
        if journal.key == key:
            try:
                _idle.remove(journal)
            except ValueError:  # another thread took it
                continue
            if journal.is_usable:
                return journal
            journal.close()
    return _Journal(cache, kind)


def _close_some() -> None:
    """Finish those that were used least recently."""
    while len(_idle) > _MOST_OPEN:
        with suppress(IndexError):  # other threads do the same
            _idle.pop(0).close()


def _check_room(folder: Path) -> None:
    """Somebody who never asks the catalog anything shall not fill the disk with journals.

    Raises:
        CacheFullError: they take too much already.
    """
    nbytes = 0
    for path in list_directory(folder, f"*{_SUFFIX}"):
        with suppress(OSError):  # it went into an archive meanwhile
            nbytes += path.lstat().st_size
    if nbytes > _MOST_BYTES:
        raise CacheFullError(
            f"the journals in {folder} take {nbytes:,} bytes; 'storagering catalog rebuild' puts them into archives"
        )


def _tell(cache: Cache, kind: str, error: Exception) -> None:
    if cache.root not in _told and not isinstance(error, ReadOnlyCacheError):
        _told.add(cache.root)
        warnings.warn(
            f"{kind} are not noted in {cache.root}: {error}; STORAGERING_JOURNAL=0 does without", stacklevel=3
        )


def _parse(text: bytes) -> Line | None:
    """A line without its newline, None if it is not what was written."""
    head = _HEAD.match(text)
    if head is None or crc32c(text[9:]) != int(head[1], 16):
        return None
    return Line(int(head[2]), text[head.end() :])
