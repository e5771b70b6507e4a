"""Who may read and write what is made in the cache, whatever the umask; and opening what is really there.

All is the user's alone. In a folder that hands its group on (setgid: ``chmod 2750`` or ``2770``), what is made is
the group's, too, with the rights that the group has on that folder.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def directory_mode(parent: Path) -> int:
    """The mode of a directory that is made in ``parent``."""
    return 0o700 | _of_group(parent)


def settle_mode(path: Path, descriptor: int | None = None) -> None:
    """Give a file of the user's own the mode that it must have where it lies.

    Args:
        descriptor: the file, where it is open already.
    """
    file = path if descriptor is None else descriptor
    found, mode = os.stat(file), 0o600 | _of_group(path.parent) & 0o060  # noqa: PTH116  (or a descriptor)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != mode:
        os.chmod(file, mode)  # noqa: PTH101


def _of_group(folder: Path) -> int:
    mode = folder.stat().st_mode
    return mode & (stat.S_ISGID | stat.S_IRWXG) if mode & stat.S_ISGID else 0


def open_in_place(path: Path) -> int:
    """A descriptor for reading a file; neither it nor its folder may be a link.

    Raises:
        OSError: of number ELOOP if one is.
    """
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(errno.ELOOP, "it or its folder is a link, and none is followed: remove it") from error
        raise
