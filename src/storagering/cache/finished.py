"""The finished tasks of a build, kept in its staging folder: the next run takes them from there.

A task is known by a hash of all that its chunks depend on, not by its number: a plan that was cut anew
because a file went takes what still fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec

from storagering.cache.chunks import BuiltChunk
from storagering.cache.manifest import software
from storagering.cache.messages import BuildContext, Task
from storagering.cache.residency import is_partial
from storagering.cache.store import digest_of
from storagering.cache.unfinished import record_path, seal, unseal
from storagering.errors import ChecksumError, CorruptDataError, NotFoundError, StorageringError
from storagering.files import (
    list_directory,
    load_mapped,
    map_file,
    read_file,
    remove_file,
    replace_file,
    safe_join,
)
from storagering.types import Chunk, SourceFile, Span

BuiltChunks = tuple[BuiltChunk, ...]

#: The keys of tasks that mix begin with this; those of others are hexadecimal.
MIX_KEY = "mix"
_LIMIT_BYTES = 1 << 30


def key_tasks(context: BuildContext, tasks: Iterable[Task]) -> list[Task]:
    """The tasks with their keys: hashes of what is read, of how, and by which release."""
    common = key_context(context)
    states = [msgspec.json.encode(_state_of(file, context.run)) for file in context.sources]

    def key(task: Task) -> str:
        digest = sha256(common)
        for piece in task.pieces:
            digest.update(states[piece.source] + msgspec.json.encode((piece.start, piece.stop)))
        return digest.hexdigest()[:24]

    return [replace(task, key=key(task)) for task in tasks]


def key_context(context: BuildContext) -> bytes:
    """A hash of how the tasks of a build are done, and by which release."""
    spec = replace(context.spec, sources=(), on_bad_column="skip", on_bad_source="skip")
    bits = None if context.mixing is None else context.mixing.bits
    what = software(), spec, context.schema, context.read_names, bits
    return sha256(msgspec.json.encode(what, order="sorted")).digest()


def _state_of(file: SourceFile, run: str) -> SourceFile:
    """The file as far as its chunks depend on it; one that does not tell its version is another in each run."""
    return replace(file, version=file.version or file.checksum or run, verified=False)


@dataclass(frozen=True)
class _Record:
    pieces: tuple[Span, ...]
    chunks: BuiltChunks


class FinishedTasks:
    """The records and chunk files of one staging folder, which the caller holds the lock of."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging

    def find(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, BuiltChunks]]:
        """Every task that is finished and sound, with its chunks; what is not is removed."""
        files = self._files()
        for task in tasks:
            try:
                found = self._take(task)
            except (CorruptDataError, NotFoundError, msgspec.MsgspecError, ValueError):
                _unlink(files.get(task.key, []))
            else:
                yield task, found

    def keep(self, task: Task, built: BuiltChunks) -> None:
        """Note that a task is finished; its chunk files are on the disk already."""
        replace_file(record_path(self._staging, task.key), seal(msgspec.json.encode(_Record(task.pieces, built))))

    def discard(self, task: Task) -> None:
        """Remove what an unfinished task has written."""
        _unlink(self._files().get(task.key, []))

    def keep_only(self, tasks: Collection[Task], *, mixing: bool = False) -> None:
        """Remove whatever belongs to other tasks: those that read, or those that mix."""
        keys = {task.key for task in tasks}
        for key, paths in self._files().items():
            if key not in keys and key.startswith(MIX_KEY) == mixing:
                _unlink(paths)

    def _files(self) -> dict[str, list[Path]]:
        """Key -> its record and chunk files, whole or not."""
        files: dict[str, list[Path]] = {}
        for path in list_directory(self._staging, "task-*"):
            files.setdefault(path.name.removesuffix(".json").split("-")[1], []).append(path)
        return files

    def _take(self, task: Task) -> BuiltChunks:
        record = _read_record(self._staging, task.key)
        given_up = is_partial(self._staging)
        for item in record.chunks:
            path = safe_join(self._staging, item.chunk.file)
            if given_up and not path.exists():
                continue
            if digest_of(load_mapped(path, map_file(path, item.chunk.nbytes))) != item.chunk.digest:
                raise ValueError(item.chunk.file)
        numbers = {old.source: new.source for old, new in zip(record.pieces, task.pieces, strict=True)}
        return renumber(record.chunks, numbers)


def read_finished(staging: Path, key: str) -> tuple[Chunk, ...]:
    """The chunks of a finished task, each counting its entries from 0; whoever reads them checks their bytes.

    Raises:
        NotFoundError: the task is not finished, or its dataset is published and gone from here.
        ChecksumError: its record is damaged.
    """
    try:
        return tuple(item.chunk for item in _read_record(staging, key).chunks)
    except StorageringError:
        raise
    except (ValueError, msgspec.MsgspecError) as error:
        raise ChecksumError(f"{record_path(staging, key)} is damaged; run the conversion again") from error


def _read_record(staging: Path, key: str) -> _Record:
    return msgspec.json.decode(unseal(read_file(record_path(staging, key), _LIMIT_BYTES)), type=_Record)


def renumber(chunks: BuiltChunks, numbers: dict[int, int]) -> BuiltChunks:
    """The chunks with other numbers of their sources (old -> new)."""

    def moved(item: BuiltChunk) -> BuiltChunk:
        spans = tuple(replace(span, source=numbers[span.source]) for span in item.chunk.spans)
        return replace(item, chunk=replace(item.chunk, spans=spans))

    return tuple(moved(item) for item in chunks)


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        remove_file(path)
