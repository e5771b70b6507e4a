"""What an interrupted build left in its staging folder: how far it came, for people and for cleaning up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from storagering.errors import CorruptDataError, NotFoundError
from storagering.files import list_directory, read_file, replace_file
from storagering.types import Schema, StoreFormat, sha256_hex

_OUTLINE_NAME = "outline.json"
_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class FirstEpoch:
    """An epoch that is read while the dataset is made: it counts in tasks of the build.

    Attributes:
        entries: of each task, in the order of the dataset.
        order: numbers of the tasks in the order in which they are done.
        task_chunks: about how many chunks a task has.
        fingerprint: hash of all that, and of what the tasks read and how.
    """

    entries: tuple[int, ...]
    order: tuple[int, ...]
    task_chunks: float
    fingerprint: str


@dataclass(frozen=True)
class Outline:
    """The work of one build, in short.

    Attributes:
        parent: digest of the version that is appended to, '' for a dataset of its own.
        sources: number of source files.
        tasks: key of each task -> numbers of the sources that it reads; in the order of the dataset.
        first_epoch: None if it is known only at the end which entries there are.
    """

    name: str
    parent: str
    sources: int
    tasks: dict[str, tuple[int, ...]]
    schema: Schema
    format: StoreFormat
    first_epoch: FirstEpoch | None


@dataclass(frozen=True)
class UnfinishedBuild:
    """How far a build came.

    Attributes:
        files: number of source files that need not be read again, and of all.
        tasks: the same of tasks.
    """

    name: str
    files: tuple[int, int]
    tasks: tuple[int, int]
    appends: bool

    @property
    def extent(self) -> str:
        """How much is done, in words."""
        done, total = self.files
        return f"{done:,} of {total:,} files" if done else f"{self.tasks[0]:,} of {self.tasks[1]:,} parts"

    def __str__(self) -> str:
        what = "an unfinished append" if self.appends else "unfinished"
        return f"{self.name}: {what}, {self.extent}; run the same command to go on"


def record_path(staging: Path, key: str) -> Path:
    """Where the record of a finished task lies."""
    return staging / f"task-{key}.json"


def holds_finished_work(staging: Path) -> bool:
    """Whether a task is finished there."""
    return bool(list_directory(staging, "task-*.json"))


def outline_path(staging: Path) -> Path:
    """Where it is noted what is to be done."""
    return staging / _OUTLINE_NAME


def write_outline(staging: Path, outline: Outline) -> None:
    """Note what is to be done, for `read_outline`."""
    replace_file(outline_path(staging), seal(msgspec.json.encode(outline)))


def read_outline(staging: Path) -> Outline | None:
    """What was to be done; None where nothing tells."""
    try:
        return msgspec.json.decode(unseal(read_file(outline_path(staging), _LIMIT_BYTES)), type=Outline)
    except (CorruptDataError, NotFoundError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def seal(body: bytes) -> bytes:
    """The contents of a file, with their sha256 in a line before them."""
    return sha256_hex(body).encode() + b"\n" + body


def unseal(data: bytes) -> bytes:
    """What was sealed.

    Raises:
        ValueError: it was changed.
    """
    digest, _, body = data.partition(b"\n")
    if sha256_hex(body).encode() != digest:
        raise ValueError("the contents are not what their checksum says")
    return body


def count_finished(staging: Path) -> UnfinishedBuild | None:
    """How far the build in that folder came, None if nothing in it is of use."""
    outline = read_outline(staging)
    if outline is None or not holds_finished_work(staging):
        return None
    todo = [sources for key, sources in outline.tasks.items() if not record_path(staging, key).exists()]
    missing = {source for sources in todo for source in sources}
    files = outline.sources - len(missing), outline.sources
    tasks = len(outline.tasks) - len(todo), len(outline.tasks)
    return UnfinishedBuild(outline.name, files, tasks, bool(outline.parent))
