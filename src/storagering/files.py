"""The only door to disk: whole-file writes, atomic publishing, kernel locks, safe names.

Every function turns the operating system's refusal (disk full, read-only, no permission) into a
`CacheError` that names the path. All that changes the cache's files goes through the calls of `disk`, so that
faults can be injected in one place.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from storagering.disk import Disk
from storagering.errors import (
    CacheError,
    CacheFullError,
    CorruptDataError,
    InputError,
    LimitExceededError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyCacheError,
    StorageringError,
    TruncatedError,
)
from storagering.modes import directory_mode, settle_mode

_LOCK_POLL_SECONDS = 0.02
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: What a disk says that has lost the bytes, or (EFAULT) a mapping of a file that ends before them.
_BYTES_LOST = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EFAULT, getattr(errno, "EHWPOISON", 133))

disk = Disk()


@contextmanager
def disk_errors(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError about ``path`` into the matching CacheError; errors of ours pass."""
    try:
        yield
    except StorageringError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full" if error.errno == errno.ENOSPC else "the user's disk quota is used up"
            raise CacheFullError(
                f"{what}: {path} needs {needed_bytes:,} bytes, {free_bytes(path):,} are free; "
                "free some space or set STORAGERING_CACHE to a larger disk"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnlyCacheError(
                f"cannot write {path}: {error.strerror}; set STORAGERING_CACHE to a folder that is yours"
            ) from error
        if error.errno == errno.ELOOP:
            raise CacheError(f"{path} is a link, and none is followed inside a cache: remove it") from error
        raise CacheError(f"{path}: {error.strerror or error}") from error


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that holds ``path`` or its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def safe_join(root: Path, *names: str) -> Path:
    """``root/names...`` where every name is one plain path component.

    Raises:
        InputError: a name is empty, hidden, or would leave ``root``.
    """
    for name in names:
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(name.encode()) > 255:
            raise InputError(f"{name!r} cannot be used as a file name")
    return root.joinpath(*names)


def reach(point: str, path: Path) -> None:
    """Name a point of work that a library of its own does on ``path``: faults can be injected there, too."""
    with disk_errors(path):
        disk.reach(point, path)


def make_directory(path: Path, *, private: bool = False) -> None:
    """Create a directory, and its parents, with the mode that is due there (see `modes`), or private to the user.

    What is new survives a power cut.
    """
    with disk_errors(path):
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for new in reversed(missing):
            try:
                disk.make_directory(new)
            except FileExistsError:  # another process may be making it
                if not new.is_dir():
                    raise
            else:
                new.chmod(0o700 if private else directory_mode(new.parent))
            disk.sync_directory(new.parent)


def write_new(path: Path, *data: bytes | memoryview, durable: bool = True) -> None:
    """Write and fsync a file that must not exist yet; several pieces one after the other.

    Args:
        durable: False if it is checked before use and can be made again: then a power cut may take it.
    """
    with disk_errors(path, sum(map(len, data))):
        descriptor = disk.create(path)
        try:
            settle_mode(path, descriptor)
            disk.write(path, descriptor, data)
            if durable:
                disk.sync(path, descriptor)
        finally:
            os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers and crashes see the old contents or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_new(temporary, data)
        rename_file(temporary, path)
    except BaseException:
        with suppress(OSError):
            disk.unlink(temporary)
        raise
    sync_directory(path.parent)


def rename_file(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing the target if it is a file; the caller syncs the directory."""
    with disk_errors(target):
        disk.rename(source, target)


def link_file(source: Path, target: Path) -> None:
    """A second name for a file that is never changed; a durable copy where the file system has no links."""
    try:
        disk.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            with disk_errors(target):
                raise
        write_new(target, source.read_bytes())


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    with disk_errors(path):
        disk.sync_directory(path)


def publish_directory(staging: Path, target: Path) -> bool:
    """Commit a complete directory by one rename; the first one wins.

    Returns:
        False if ``target`` already exists (``staging`` is then untouched).
    """
    sync_directory(staging)
    with disk_errors(target):
        try:
            disk.rename(staging, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    sync_directory(target.parent)
    return True


def remove_file(path: Path) -> None:
    """Remove a file of ours; absent is fine."""
    with disk_errors(path), suppress(FileNotFoundError):
        disk.unlink(path)


def remove_directory(path: Path) -> None:
    """Remove a directory of ours at once from view, then from disk; absent is fine."""
    hidden = path.with_name(f".removed-{secrets.token_hex(8)}")
    with disk_errors(path), suppress(FileNotFoundError):  # another process may be removing it too
        disk.rename(path, hidden)
        disk.sync_directory(path.parent)  # no power cut brings it back without its contents
        if hidden.is_symlink():  # itself alone: what it leads to is not ours
            disk.unlink(hidden)
            return
        try:
            disk.remove_tree(hidden)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            disk.remove_tree(hidden)  # the worker of a dead builder has put one more file into it


def list_directory(path: Path, pattern: str = "*") -> list[Path]:
    """What of that pattern is in a directory; nothing if it is absent. Raises CacheError if it cannot be read."""
    try:
        return [path / name for name in fnmatch.filter(os.listdir(path), pattern)]  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error


def read_file(path: Path, limit_bytes: int) -> bytes:
    """The whole file.

    Raises:
        NotFoundError: there is none.
        LimitExceededError: it is larger than ``limit_bytes``.
        CorruptDataError: the disk has lost its bytes.
        CacheError: it cannot be read.
    """
    try:
        descriptor = disk.open(path)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(file.fileno()).st_size > limit_bytes:
                raise LimitExceededError(f"{path} is larger than the limit of {limit_bytes:,} bytes")
            return file.read()
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def read_range(path: Path, start: int, nbytes: int) -> bytes:
    """A part of a file.

    Raises:
        TruncatedError: the file is absent, or ends before that.
        CorruptDataError: the disk has lost the bytes.
        CacheError: it cannot be read.
    """
    try:
        descriptor = disk.open(path)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            file.seek(start)
            data = file.read(nbytes)
    except FileNotFoundError as error:
        raise TruncatedError(f"{path} is missing; run 'storagering convert' again") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) != nbytes:
        raise TruncatedError(f"{path} ends before byte {start + nbytes:,}; run 'storagering convert' again")
    return data


def map_file(path: Path, nbytes: int) -> memoryview:
    """The file mapped read-only into memory; it must be ``nbytes`` long. To be read after `load_mapped`.

    Raises:
        TruncatedError: the file is absent, shorter or longer.
        CorruptDataError: the disk has lost its bytes.
        CacheError: it cannot be opened.
    """
    try:
        descriptor = disk.open(path)
    except FileNotFoundError as error:
        raise TruncatedError(f"{path} is missing; run 'storagering convert' again to rebuild the dataset") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        size = os.fstat(descriptor).st_size
        if size != nbytes:
            raise TruncatedError(f"{path} has {size:,} bytes, its manifest says {nbytes:,}")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def load_mapped(path: Path, view: memoryview, start: int = 0, stop: int | None = None) -> memoryview:
    """Part of what `map_file` gave, read into memory: a disk that fails is then an error, not the end of the process.

    Raises:
        CorruptDataError: the disk has lost the bytes, or somebody cut the file.
    """
    part = view[start:stop]
    try:
        disk.load(path, cast("mmap.mmap", view.obj), start, len(part))
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 5.14 cannot tell
            raise _unreadable(path, error) from error
    return part


def _unreadable(path: Path, error: OSError) -> StorageringError:
    if isinstance(error, StorageringError):
        return error
    if error.errno in _BYTES_LOST:
        return CorruptDataError(
            f"{path} cannot be read back from the disk ({error.strerror}); "
            "'storagering verify DATASET --repair' makes damaged chunks again"
        )
    return CacheError(f"cannot read {path}: {error.strerror}")


class FileLock:
    """A lock held by the kernel for this process (flock): freed by release, or by death.

    Locks save work, they never guard correctness.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        with disk_errors(self.path):
            descriptor = disk.open_lock(self.path)
            try:
                settle_mode(self.path, descriptor)
                fcntl.flock(descriptor, self._mode | fcntl.LOCK_NB)
                if not self._is_current(descriptor):
                    raise BlockingIOError
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
        if self._mode == fcntl.LOCK_EX:  # the pid is talk for waiters, never trusted
            with suppress(OSError):  # the disk may be full
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Whether nobody removed the file between our opening and locking it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def acquire(self, timeout_seconds: float, waiting: Callable[[str], None] | None = None) -> None:
        """Take the lock, waiting for it.

        Args:
            waiting: called once with a sentence for the user if the lock is not free at once.

        Raises:
            LockTimeoutError: it stayed taken, naming the holder.
        """
        deadline = time.monotonic() + timeout_seconds
        told = False
        while not self.try_acquire():
            if waiting is not None and not told:
                waiting(f"waiting for process {self.holder()}, which holds {self.path}")
                told = True
            if time.monotonic() > deadline:
                raise LockTimeoutError(f"process {self.holder()} held {self.path} for over {timeout_seconds:g} s")
            time.sleep(_LOCK_POLL_SECONDS)

    @property
    def descriptor(self) -> int | None:
        """Of the file, while the lock is held: a process that inherits it holds the lock, too."""
        return self._descriptor

    def holder(self) -> str:
        """The pid that the last exclusive holder wrote, '?' if none."""
        try:
            return self.path.read_text() or "?"
        except OSError:
            return "?"

    def release(self) -> None:
        """Give the lock back; without it, nothing happens."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def held(self, timeout_seconds: float) -> Iterator[None]:
        """The lock, for the length of a ``with`` block."""
        self.acquire(timeout_seconds)
        try:
            yield
        finally:
            self.release()
