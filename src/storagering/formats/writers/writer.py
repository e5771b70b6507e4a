"""What every writer offers: one table, written batch by batch into one new file or folder."""

from __future__ import annotations

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from storagering.errors import OutputError, SpecError, StorageringError
from storagering.files import free_bytes
from storagering.types import Batch, Column, Schema

_COMPRESSION = re.compile(r"([a-z0-9]+)(?::(\d{1,2}))?")
#: Attribute with the name of a column.
NAME = "storagering_name"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write.

    Attributes:
        tree: name of the table, where the format names them.
        compression: ``zstd``, ``zlib:4``, ``none``, ...; None for the format's usual one.
        apart: jagged columns that must not share their counts with others (see `CountsDifferError`).
    """

    tree: str = "events"
    compression: str | None = None
    apart: frozenset[str] = frozenset()


class CountsDifferError(StorageringError):
    """Columns that began as one collection have lists of different lengths further on: start over.

    Attributes:
        names: the columns that need counts of their own.
    """

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(f"lists of different lengths: {', '.join(sorted(names))}")
        self.names = names


class Writer(ABC):
    """Writes one table; made, given batches, and closed or abandoned.

    Attributes:
        format: what ``--to`` calls it.
        compressions: the names it takes, each with the level that it uses (None: it has no levels);
            the first is the usual one.

    Args:
        path: file or folder to make; it does not exist yet.
        schema: columns, none of which `refusals` names.

    Raises:
        SpecError: an option that this format does not have.
        OutputError: the disk refuses.
    """

    format: ClassVar[str]
    compressions: ClassVar[Mapping[str, int | None]]

    @classmethod
    def refusals(cls, schema: Schema) -> dict[str, str]:
        """The columns that this format cannot hold bit for bit: name -> why, in one line."""
        return {c.name: why for c in schema.columns if (why := cls.refusal(c))}

    @classmethod
    @abstractmethod
    def refusal(cls, column: Column) -> str:
        """Why the format cannot hold this column, '' if it can."""

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        self.path, self.schema, self.options = path, schema, options
        self.codec, self.level = self._parse_compression(options.compression)

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Add the entries of a batch.

        Raises:
            CountsDifferError: start over, with these columns apart.
            SchemaError: a value that the format cannot hold, naming the column.
            OutputError: the disk refuses.
        """

    @abstractmethod
    def close(self) -> None:
        """Complete the file, also one without entries; raises as `write`."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of everything open; what lies at ``path`` is the caller's to remove."""

    def _parse_compression(self, text: str | None) -> tuple[str, int | None]:
        usual = next(iter(self.compressions))
        found = _COMPRESSION.fullmatch(usual if text is None else text.lower())
        if not found or found[1] not in self.compressions:
            raise SpecError(f"--compression {text!r}: {self.format} has {', '.join(self.compressions)}")
        level = self.compressions[found[1]]
        if found[2] is None:
            return found[1], level
        if level is None:
            raise SpecError(f"--compression {text!r}: {found[1]} has no levels in {self.format}")
        return found[1], int(found[2])


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what a library raises while it writes ``path`` into an `OutputError`; ours pass."""
    try:
        yield
    except StorageringError:
        raise
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full:
            why = f"the disk is full ({free_bytes(path.parent):,} bytes are free); free some space or write elsewhere"
        elif isinstance(error, OSError):
            why = f"cannot write it: {error.strerror or error}"
        else:
            why = f"cannot write it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise OutputError(f"{path}: {why}") from error


def dtype_refusal(column: Column, refused: str) -> str:
    """Why a format without the NumPy kinds or types in ``refused`` (``f2 c``) cannot hold the numbers."""
    for part in column.parts:
        if part.role == "data" and (part.dtype[1:] in refused.split() or part.dtype[1] in refused.split()):
            return f"it has no {column.dtype if column.kind != 'nested' else part.dtype}"
    return ""


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain_name(name: str, forbidden: str = "") -> bool:
    """Whether a name is some text without control characters and those forbidden."""
    return bool(name) and is_text(name) and not _CONTROL.search(name) and not set(forbidden) & set(name)


def node_attributes(column: Column, node: str) -> dict[str, str]:
    """What is said of a column beside its numbers; its name too where the node in the file has another."""
    said = {"doc": column.doc, "units": column.unit}
    return {k: text for k, text in said.items() if text} | ({} if node == column.name else {NAME: column.name})
