"""A table written whole or not at all: under a hidden name, synced, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from storagering import files
from storagering.errors import NotFoundError, OutputError, SpecError, StorageringError
from storagering.formats.remote.options import scheme_of
from storagering.formats.writers.writer import CountsDifferError, WriteOptions, Writer
from storagering.types import Batch, Schema
from storagering.urls import redact_url


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        nbytes: size on disk; that of all its files for a folder.
        raw_bytes: size of the arrays in memory.
    """

    entries: int
    nbytes: int
    raw_bytes: int


def check_output(out: str | Path, *, force: bool) -> Path:
    """The absolute path to write to.

    Raises:
        SpecError: it is a URL.
        NotFoundError: its folder does not exist.
        OutputError: something is there that must stay.
    """
    if scheme_of(str(out)) not in ("", "file"):
        raise SpecError(f"{redact_url(str(out))}: files are written to local paths only; copy it there afterwards")
    path = Path(str(out).removeprefix("file://")).expanduser().absolute()
    if not path.name or not path.parent.is_dir():
        raise NotFoundError(f"{path}: there is no folder {path.parent} to write into")
    _check_target(path, replace=force)
    return path


def write_output(
    kind: type[Writer],
    path: Path,
    schema: Schema,
    batches: Callable[[], Iterable[Batch]],
    options: WriteOptions,
    *,
    force: bool = False,
) -> Written:
    """Write all batches to ``path``, which appears complete or not at all.

    Args:
        batches: called once, and again if the writer must start over.

    Raises:
        OutputError: the disk refuses, or something is there already and ``force`` is not given.
        StorageringError: whatever reading the batches raises.
    """
    with hidden_output(path, force=force) as hidden:
        while True:
            try:
                entries, raw = _fill(kind, hidden, schema, batches(), options)
                break
            except CountsDifferError as error:
                _remove(hidden)
                options = replace(options, apart=options.apart | error.names)
        nbytes = sum(file.stat().st_size for file in _files(hidden))
    return Written(entries, nbytes, raw)


@contextmanager
def hidden_output(path: Path, *, force: bool) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to, which gets that name when the block ends well, and else goes.

    Raises:
        OutputError: the disk refuses, or something is there already and ``force`` is not given.
    """
    hidden = path.with_name(f".storagering-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield hidden
        _publish(hidden, path, replace=force)
    except OSError as error:
        if isinstance(error, StorageringError):
            raise
        raise OutputError(f"{path}: cannot write it: {error.strerror or error}") from error
    finally:
        _remove(hidden)


def _check_target(target: Path, *, replace: bool) -> None:
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


def _publish(hidden: Path, target: Path, *, replace: bool) -> None:
    """Sync a complete file or folder to disk and give it its name, in the same folder, by one rename.

    Raises:
        OutputError: the target must stay (see `_check_target`).
    """
    for path in hidden.rglob("*") if hidden.is_dir() else ():
        _sync(path)
    _sync(hidden)
    _check_target(target, replace=replace)
    if target.is_dir() and not target.is_symlink():  # no rename replaces a folder that is not empty
        files.remove_directory(target)
    elif hidden.is_dir() and os.path.lexists(target):
        files.disk.unlink(target)
    files.disk.rename(hidden, target)
    files.disk.sync_directory(target.parent)


def _sync(path: Path) -> None:
    if path.is_dir():
        files.disk.sync_directory(path)
        return
    descriptor = files.disk.open(path)
    try:
        files.disk.sync(path, descriptor)
    finally:
        os.close(descriptor)


def nbytes_of(batch: Batch) -> int:
    """Size of the arrays of a batch."""
    return sum(int(a.nbytes) for arrays in batch.arrays.values() for a in arrays)


def _fill(
    kind: type[Writer], path: Path, schema: Schema, batches: Iterable[Batch], options: WriteOptions
) -> tuple[int, int]:
    entries = raw = 0
    writer = kind(path, schema, options)
    try:
        for batch in batches:
            if len(batch):
                writer.write(batch)
                entries += len(batch)
                raw += nbytes_of(batch)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    return entries, raw


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what went wrong before matters more
            path.unlink()
