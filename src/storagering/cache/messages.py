"""What travels between the process that builds a dataset and its workers, as JSON lines."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from storagering import errors
from storagering.cache.chunks import BuiltChunk
from storagering.config import Settings
from storagering.errors import (
    AuthError,
    CorruptDataError,
    InternalError,
    NotFoundError,
    SchemaError,
    SourceChangedError,
    SourceError,
    SpecError,
    StorageringError,
)
from storagering.formats.source import Location, UnreadableColumnsError
from storagering.types import ConversionSpec, Schema, SourceFile, Span, sha256_hex
from storagering.urls import redact_text


@dataclass(frozen=True)
class Deal:
    """A file of entries that were dealt into piles.

    Attributes:
        sources: numbers in the manifest of the sources that its ids count.
    """

    file: str
    nbytes: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Mixing:
    """How entries are mixed.

    Attributes:
        bits: there are 2^bits piles.
        deals: the files to be mixed, in order; none while they are written.
        first_source: number in the manifest of the first of the context's sources.
    """

    bits: int
    deals: tuple[Deal, ...] = ()
    first_source: int = 0


@dataclass(frozen=True)
class BuildContext:
    """What all tasks of one build share.

    Attributes:
        locations: where the sources are, secrets included; never written to a file.
        read_names: columns of the sources to read.
        staging: folder for finished chunks.
        spool: folder for source files that are unpacked or fetched whole.
        sources_open: how many a worker keeps open between tasks.
        run: no other build has it.
        mixing: None if entries keep their order.
    """

    spec: ConversionSpec
    schema: Schema
    sources: tuple[SourceFile, ...]
    locations: tuple[Location, ...]
    read_names: tuple[str, ...]
    staging: str
    spool: str
    settings: Settings
    sources_open: int = 1
    run: str = field(default_factory=secrets.token_hex)
    mixing: Mixing | None = None


@dataclass(frozen=True)
class Share:
    """Piles that are mixed at a time, or a part of one that is large.

    Attributes:
        piles: numbers of the first and the last one.
        part: number of the part, and of how many.
        entries: about so many in a part; otherwise exactly.
    """

    piles: tuple[int, int]
    part: tuple[int, int]
    entries: int


@dataclass(frozen=True)
class Task:
    """A run of pieces that become chunks of their own; each piece is read at once.

    Attributes:
        key: hash of all that the chunks depend on; the chunks' files begin with it.
        share: what is to be mixed, instead of pieces to be read.
    """

    number: int
    pieces: tuple[Span, ...]
    key: str = ""
    share: Share | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers of the sources that it reads, in order."""
        return tuple(dict.fromkeys(piece.source for piece in self.pieces))

    @property
    def entries(self) -> int:
        """How many there are to be read, or mixed."""
        return self.share.entries if self.share else sum(piece.stop - piece.start for piece in self.pieces)


@dataclass(frozen=True)
class Failure:
    """An error on its way between processes."""

    error: str
    message: str
    reasons: dict[str, str] = field(default_factory=dict)
    source: int | None = None


@dataclass(frozen=True)
class _Reply:
    chunks: tuple[BuiltChunk, ...] = ()
    failure: Failure | None = None


@contextmanager
def blamed_on(source: int) -> Iterator[None]:
    """Mark errors about bytes, servers and types with the number of the source that could not be read."""
    try:
        yield
    except (CorruptDataError, SourceError, NotFoundError, SchemaError) as error:
        error.source = source
        raise


def is_bad_source(error: StorageringError) -> bool:
    """Whether an error says that a source is bad, so that ``on_bad_source="skip"`` leaves it out.

    Refused credentials, and a change while it is read, are no fault of a file: it must not be lost over them.
    """
    if isinstance(error, AuthError | SourceChangedError):
        return False
    return isinstance(error, CorruptDataError | SourceError | NotFoundError | SchemaError | SpecError)


def urls_of(locations: Iterable[Location]) -> list[str]:
    """All URLs behind the locations, secrets included: what must be redacted in messages."""
    return [url for one in locations for url in (one.url, *one.replicas, *(friend for friend, _ in one.friends))]


def spool_of(spool: str, location: Location) -> str:
    """The folder for what is unpacked or fetched of one source, so that it can be dropped by itself."""
    return f"{spool}/{sha256_hex(location.shown.encode())[:16]}" if spool else ""


def read_by(context: BuildContext, task: Task) -> str:
    """The files that a task reads, for messages."""
    files = [context.sources[number].url for number in task.sources]
    if task.share is not None:
        return "mixing entries"
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def describe_failure(error: Exception, urls: Sequence[str]) -> Failure:
    """The error by name, without the secrets of ``urls``."""
    if isinstance(error, UnreadableColumnsError):
        return Failure("UnreadableColumnsError", "", error.reasons)
    if isinstance(error, StorageringError):
        return Failure(type(error).__name__, str(error), {}, error.source)
    return Failure("InternalError", redact_text("".join(traceback.format_exception(error))[-4000:], *urls))


def restore_failure(failure: Failure) -> StorageringError:
    """The error that was described."""
    if failure.reasons:
        return UnreadableColumnsError(failure.reasons, "")
    error: StorageringError = getattr(errors, failure.error, InternalError)(failure.message)
    error.source = failure.source
    return error


def encode_reply(run: Callable[[], tuple[BuiltChunk, ...]], urls: Sequence[str] = ()) -> bytes:
    """The outcome of a task as one JSON line."""
    try:
        reply = _Reply(run())
    except Exception as error:  # noqa: BLE001  (the parent raises it, or reports it as a bug of ours)
        reply = _Reply(failure=describe_failure(error, urls))
    return msgspec.json.encode(reply) + b"\n"


def decode_reply(line: bytes) -> tuple[BuiltChunk, ...]:
    """The chunks of a task, or the error that it ended with, raised."""
    reply = msgspec.json.decode(line, type=_Reply)
    if reply.failure is None:
        return reply.chunks
    raise restore_failure(reply.failure)


def encode_message(message: object) -> bytes:
    """A context, task or order as one JSON line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"  # paths are the only foreign type


def decode_path(kind: type, text: str) -> Any:
    """The hook for msgspec that makes paths of their text."""
    return kind(text)
