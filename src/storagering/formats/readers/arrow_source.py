"""What all sources that give Arrow arrays share: names, types, and reading that finds the columns at fault."""

from __future__ import annotations

import threading
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from storagering.errors import (
    CorruptDataError,
    FormatError,
    LimitExceededError,
    StorageringError,
)
from storagering.formats.blob import Blob
from storagering.formats.forms import UnsupportedTypeError
from storagering.formats.readers.arrow_arrays import Flags, declared_flags, to_awkward, type_text, unit_of
from storagering.formats.readers.hierarchy import doc_of
from storagering.formats.readers.names import check_names
from storagering.formats.source import Source, UnreadableColumnsError
from storagering.urls import redact_text, redact_url

#: In the metadata of a field: why it cannot be read, and what it is all the same.
REASON, TYPENAME = b"storagering.reason", b"storagering.type"
#: In the metadata of a schema: here nullable means optional, as in the files that this program writes.
_EXACT = b"storagering.exact"


class ArrowSource(Source):
    """A table whose columns come as Arrow arrays; safe to use from several threads, one at a time inside.

    Subclasses set ``entries`` and give the arrays.
    """

    def __init__(self, blob: Blob, kind: str, schema: pa.Schema, bounds: Sequence[int]) -> None:
        self.format, self.url, self.tree = kind, blob.url, ""
        self.nbytes, self.version, self.checksum = blob.size, blob.version, blob.checksum
        self._blob, self._bounds = blob, list(bounds)
        self.entries = self._bounds[-1]
        self._fields: dict[str, int] = {}
        self._schema = schema
        self.repeated: list[str] = []
        with damage(blob.url, "its schema"):
            for number, name in enumerate(schema.names):
                if name in self._fields:
                    self.repeated.append(name)
                else:
                    self._fields[name] = number
            self.columns = {n: self._typename(schema.field(i)) for n, i in self._fields.items()}
        self._flags: dict[str, Flags] = {}
        self._lock = threading.RLock()

    def doc(self, name: str) -> str:
        field = self._schema.field(self._fields[name])
        said = doc_of({k.decode(errors="replace"): v for k, v in (field.metadata or {}).items()})
        return " ".join(text for text in (said, unit_of(field.type)) if text)

    def _typename(self, field: pa.Field) -> str:
        known = (field.metadata or {}).get(TYPENAME)
        return known.decode() if known else type_text(field.type)

    def boundaries(self, names: Iterable[str]) -> list[int]:  # noqa: ARG002  (all columns are cut alike)
        return sorted({0, *self._bounds})

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        check_names(names, self._fields, self.url)
        reasons = {n: why for n in names if (why := self._reason(n))}
        if reasons:
            raise UnreadableColumnsError(reasons, self.url)
        arrays: dict[str, Any] = {}
        with self._lock:
            try:
                found = self._arrays_of(names, start, stop)
            except CorruptDataError:  # one of them is to blame: which?
                found = {n: self._arrays_of([n], start, stop)[n] for n in names}
            for name in names:
                try:
                    with damage(self.url, f"column {name!r}"):
                        arrays[name] = to_awkward(found[name], self._flags_of(name))
                except UnsupportedTypeError as error:
                    reasons[name] = str(error)
                except CorruptDataError as error:
                    raise named(error, self.url, name) from error
        if reasons:
            raise UnreadableColumnsError(reasons, self.url)
        return arrays

    def close(self) -> None:
        self._blob.close()

    def _reason(self, name: str) -> str:
        known: dict[bytes, bytes] = self._schema.field(self._fields[name]).metadata or {}
        return known.get(REASON, b"").decode()

    def _arrays_of(self, names: Sequence[str], start: int, stop: int) -> Mapping[str, Any]:
        if not names:
            return {}
        with damage(self.url, f"column {names[0]!r}" if len(names) == 1 else "the file"):
            return self._read(names, start, stop)

    def _flags_of(self, name: str) -> Flags:
        if name not in self._flags:
            field = self._schema.field(self._fields[name])
            declared = declared_flags(field)
            sure = not any(declared) or _EXACT in (self._schema.metadata or {})
            self._flags[name] = declared if sure else self._find_flags(name, field)
        return self._flags[name]

    def _overlapping(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(block, first and last entry wanted, counted inside it) of the blocks that hold the entries."""
        last = bisect_left(self._bounds, stop)
        for number in range(max(0, bisect_right(self._bounds, start) - 1), last):
            here, end = self._bounds[number], self._bounds[number + 1]
            if max(start, here) < min(stop, end):
                yield number, max(start, here) - here, min(stop, end) - here

    @abstractmethod
    def _read(self, names: Sequence[str], start: int, stop: int) -> Mapping[str, pa.Array | pa.ChunkedArray]:
        """The columns; whatever pyarrow raises may come out."""

    @abstractmethod
    def _find_flags(self, name: str, field: pa.Field) -> Flags:
        """At which levels of a column values are missing, anywhere in the file, where the schema does not tell."""


def unreadable_field(name: str, typename: str, reason: str) -> pa.Field:
    """A column of a table that cannot be read; its array is one of nulls."""
    return pa.field(name, pa.null(), metadata={REASON: reason, TYPENAME: typename})


@contextmanager
def damage(url: str, what: str) -> Iterator[None]:
    """Turn whatever a library raises over the contents of a file into the matching error, without secrets.

    pyarrow raises OSError for damaged files; those of a server come out of the blob as ours already.
    """
    try:
        yield
    except StorageringError:
        raise
    except MemoryError as error:
        raise LimitExceededError(f"{redact_url(url)}: {what} asks for more memory than there is") from error
    except NotImplementedError as error:
        raise FormatError(f"{redact_url(url)}: {what} cannot be read ({_text(error, url)})") from error
    except Exception as error:
        raise CorruptDataError(f"{redact_url(url)}: {what} is damaged ({_text(error, url)}); fetch it again") from error


def named(error: CorruptDataError, url: str, column: str) -> CorruptDataError:
    """The error, naming file and column if it does not yet."""
    text = str(error)
    return error if repr(column) in text else type(error)(f"{redact_url(url)}: column {column!r}: {text}")


def _text(error: Exception, url: str) -> str:
    return redact_text(" ".join(str(error).split()), url)[:300] or type(error).__name__
