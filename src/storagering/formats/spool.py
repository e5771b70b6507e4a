"""A folder for source files that must be unpacked or fetched whole, shared by all processes of a build."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from storagering.config import Settings
from storagering.files import FileLock, disk_errors, make_directory, remove_file, rename_file
from storagering.types import sha256_hex


def spool_file(spool: str, key: str, fill: Callable[[Path], None], settings: Settings) -> Path:
    """The file of that key, made by ``fill`` if it is not there; one process makes it, the others wait.

    Args:
        spool: folder; '' for a temporary one of this process.
        key: says all that the contents depend on (URL, version, kind of unpacking).
        fill: writes the whole contents to the path that it is given.

    Raises:
        CacheFullError: no room on the disk.
        LockTimeoutError: another process has been filling it for too long.
        StorageringError: whatever ``fill`` raises; nothing is then left behind.
    """
    folder = Path(spool) if spool else _own_folder()
    make_directory(folder)
    path = folder / sha256_hex(key.encode())[:32]
    if path.exists():
        return path
    with FileLock(path.with_suffix(".lock")).held(settings.lock_timeout_seconds):
        if not path.exists():
            partial = path.with_suffix(".partial")
            try:
                with disk_errors(partial):
                    fill(partial)
                rename_file(partial, path)
            finally:
                remove_file(partial)
    return path


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="storagering-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
