"""A table written whole or not at all: under a hidden name, synced, then renamed."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from storagering.errors import NotFoundError, SpecError
from storagering.formats.remote.options import scheme_of
from storagering.formats.writers.writer import CountsDifferError, WriteOptions, Writer
from storagering.outputs import check_target, publish_path
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
        OutputError: something is there that must stay: see `check_target`.
    """
    if scheme_of(str(out)) not in ("", "file"):
        raise SpecError(f"{redact_url(str(out))}: files are written to local paths only; copy it there afterwards")
    path = Path(str(out).removeprefix("file://")).expanduser().absolute()
    if not path.name or not path.parent.is_dir():
        raise NotFoundError(f"{path}: there is no folder {path.parent} to write into")
    check_target(path, replace=force)
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
    hidden = path.with_name(f".storagering-{secrets.token_hex(8)}{path.suffix}")
    try:
        while True:
            try:
                entries, raw = _fill(kind, hidden, schema, batches(), options)
                break
            except CountsDifferError as error:
                _remove(hidden)
                options = replace(options, apart=options.apart | error.names)
        nbytes = sum(file.stat().st_size for file in _files(hidden))
        publish_path(hidden, path, replace=force)
        return Written(entries, nbytes, raw)
    finally:
        _remove(hidden)


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
