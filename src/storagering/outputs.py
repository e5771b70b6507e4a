"""Files and folders that a user asks for, outside of the cache: never in the place of what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

from storagering import files
from storagering.errors import OutputError, StorageringError
from storagering.files import remove_directory


def check_target(target: Path, *, replace: bool) -> None:
    """Whether a file or folder may be published under a name.

    Raises:
        OutputError: something is there, and ``replace`` is not given or it is a folder that no export made.
    """
    if not os.path.lexists(target):
        return
    if not replace:
        raise OutputError(f"{target} is there already; choose another name, or replace it with --force")
    try:
        foreign = target.is_dir() and not target.is_symlink() and not (target / "zarr.json").is_file()
        if foreign and any(target.iterdir()):
            raise OutputError(f"{target} is a folder that no export made; choose another name")
    except OSError as error:
        if isinstance(error, StorageringError):
            raise
        raise OutputError(f"{target}: cannot look into it: {error.strerror or error}") from error


def publish_path(hidden: Path, target: Path, *, replace: bool) -> None:
    """Sync a complete file or folder to disk and give it its name, in the same folder, by one rename.

    Raises:
        OutputError: the target must stay (see `check_target`), or the disk refuses.
    """
    try:
        for path in hidden.rglob("*") if hidden.is_dir() else ():
            _sync(path)
        _sync(hidden)
        check_target(target, replace=replace)
        if target.is_dir() and not target.is_symlink():  # no rename replaces a folder that is not empty
            remove_directory(target)
        elif hidden.is_dir() and os.path.lexists(target):
            files.disk.unlink(target)
        files.disk.rename(hidden, target)
        files.disk.sync_directory(target.parent)
    except OSError as error:
        if isinstance(error, StorageringError):
            raise
        raise OutputError(f"{target}: cannot write it: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    if path.is_dir():
        files.disk.sync_directory(path)
        return
    descriptor = files.disk.open(path)
    try:
        files.disk.sync(path, descriptor)
    finally:
        os.close(descriptor)
