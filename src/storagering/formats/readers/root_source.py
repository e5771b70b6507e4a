"""What TTrees and RNTuples share: identity, and reading that finds the columns at fault."""

from __future__ import annotations

import lzma
import re
import warnings
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import cramjam

from storagering.errors import CorruptDataError, NotFoundError, SourceError, StorageringError, TruncatedError
from storagering.formats.blob import Blob
from storagering.formats.remote.errors import is_far_end, map_source_error
from storagering.formats.source import Source, Storage, UnreadableColumnsError
from storagering.urls import redact_text, redact_url

_DAMAGE = re.compile(
    r"checksum|decompress|corrupt|expected Chunk of length|not enough (data|bytes)|end of stream", re.I
)
_DAMAGE_ERRORS = (zlib.error, lzma.LZMAError, cramjam.DecompressionError, MemoryError)
#: 0 is the default of the ROOT that wrote it: zlib in all releases that write a 0.
_ALGORITHMS = {0: "zlib", 1: "zlib", 2: "lzma", 3: "old zlib", 4: "lz4", 5: "zstd"}


class RootSource(Source):
    """What the two kinds of trees share: identity, and reading that finds the columns at fault."""

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any) -> None:
        self.url, self.tree, self._model, self._file = blob.url, tree, model, file
        self.entries = int(model.num_entries)
        if self.entries < 0:
            raise CorruptDataError(f"{redact_url(blob.url)}: {tree!r} claims {self.entries} entries; fetch it again")
        self.nbytes, self.version, self.checksum = blob.size, blob.version, blob.checksum
        self.columns: dict[str, str] = {}
        self.repeated: list[str] = []
        self._together = True  # whether reading several columns at once is better than one by one

    @abstractmethod
    def storage(self) -> dict[str, Storage]:
        """How each column lies in the file."""

    def nbytes_of(self, names: Iterable[str]) -> int:
        stored = self.storage()
        return sum(stored[name].stored_bytes or 0 for name in names)

    def close(self) -> None:
        self._file.close()

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        if not names:
            return {}
        if self._together or len(names) == 1:
            try:
                return self._read_quietly(names, start, stop)
            except (SourceError, NotFoundError, CorruptDataError):  # the blob knows best what happened
                raise
            except Exception as error:
                if len(names) == 1 or is_far_end(error):
                    raise self._verdict(names[0], error) from error
        arrays: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for name in names:
            try:
                arrays |= self.read([name], start, stop)
            except UnreadableColumnsError as error:
                reasons |= error.reasons
        if reasons:
            raise UnreadableColumnsError(reasons, self.url, arrays)
        return arrays

    def _read_quietly(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._read(names, start, stop)

    @abstractmethod
    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """The columns; whatever uproot raises may come out."""

    def _verdict(self, name: str, error: Exception) -> StorageringError:
        """A damaged file stops a conversion; a type that uproot cannot read only loses its column."""
        text = redact_text(" ".join(str(error).split()), self.url)[:300]
        mapped = map_source_error(error, self.url)
        if isinstance(mapped, TruncatedError):
            return TruncatedError(f"{redact_url(self.url)}: column {name!r} ends too early ({text}); fetch it again")
        if is_far_end(error):
            return mapped
        if isinstance(error, _DAMAGE_ERRORS) or _DAMAGE.search(text):
            return CorruptDataError(f"{redact_url(self.url)}: column {name!r} is damaged ({text}); fetch it again")
        return UnreadableColumnsError({name: f"{type(error).__name__}: {text}"}, self.url)


def compression_name(setting: int) -> str:
    """Algorithm and level of ROOT's number for both, '' for none."""
    algorithm, level = divmod(int(setting), 100)
    return f"{_ALGORITHMS.get(algorithm, f'algorithm {algorithm}')} {level}" if setting > 0 and level else ""


def plain_text(text: Any) -> str:
    """Text of a file as proper text; what is not UTF-8 is taken for Latin-1, as old code has written it."""
    stored = str(text or "").encode(errors="surrogateescape")
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored.decode("latin-1")


def typename_of(item: Any) -> str:
    """The C++ type of a branch or field, as uproot names it."""
    try:
        return plain_text(item.typename)
    except Exception:  # noqa: BLE001  (uproot raises KeyError and others on exotic leaves)
        return "unknown"
