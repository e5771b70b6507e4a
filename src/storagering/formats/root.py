"""TTrees and RNTuples as sources of columns, read by uproot through fsspec.

The only place where ROOT's words (branch, basket, leaf) are used.
"""

from __future__ import annotations

import lzma
import re
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import cramjam
import fsspec
import uproot

from storagering.config import Settings
from storagering.errors import (
    CorruptDataError,
    FormatError,
    NotFoundError,
    StorageringError,
    TruncatedError,
    nearest_names,
)
from storagering.files import redact_text, redact_url
from storagering.formats.limits import bounded_memory
from storagering.formats.remote import is_far_end, map_source_error, scheme_of, source_errors, storage_options

_TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
#: Where the first record of a ROOT file may begin (100 in all releases); tells one from text like "root:x:0:0".
_FIRST_RECORDS = range(64, 1024)
_DAMAGE = re.compile(
    r"checksum|decompress|corrupt|expected Chunk of length|not enough (data|bytes)|end of stream", re.I
)
_DAMAGE_ERRORS = (zlib.error, lzma.LZMAError, cramjam.DecompressionError, MemoryError)
_LEAFLIST = re.compile(r"[\w.#]+(\[[^\]]*\])*(/[A-Za-z]+(\[.*\])?)?(:[\w.]+(\[[^\]]*\])*(/[A-Za-z]+)?)*_?")


class UnreadableColumnsError(StorageringError):
    """Some columns cannot be read as arrays, though the file is sound.

    Attributes:
        reasons: name -> why, in one line.
    """

    exit_code = 3

    def __init__(self, reasons: dict[str, str], url: str) -> None:
        listed = "; ".join(f"{name!r}: {why}" for name, why in list(reasons.items())[:5])
        super().__init__(f"{redact_url(url)}: {len(reasons)} column(s) cannot be read: {listed}")
        self.reasons = reasons


class Source(Protocol):
    """One tree of one file: a table of columns that is read by ranges of entries."""

    url: str
    tree: str
    entries: int
    nbytes: int
    version: str
    columns: dict[str, str]
    """Column name -> the type's name in the source, in order."""
    repeated: list[str]
    """Names that further columns have too, which therefore cannot be told apart from the first."""

    def doc(self, name: str) -> str:
        """The column's title, '' if it says nothing."""

    def boundaries(self, names: Iterable[str]) -> list[int]:
        """Entry numbers, from 0 to ``entries``, between which no compressed block is cut."""

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """Entries ``start`` to ``stop`` of the named columns as Awkward arrays.

        Raises:
            UnreadableColumnsError: naming all columns that uproot cannot interpret.
            CorruptDataError: the file is damaged there, naming the column.
            SourceError: the server failed.
        """

    def close(self) -> None:
        """Give the file back."""


def open_source(url: str, tree: str | None, settings: Settings) -> Source:
    """Open the tree of that name in a file, or the only one there is.

    Raises:
        NotFoundError: no such file or tree, or several trees and none named (all listed).
        FormatError: not a ROOT file, or one without trees.
        TruncatedError: the file is shorter than its header says.
        SourceError: the server failed.
    """
    options = storage_options(url, settings)
    with source_errors(url):
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        info = filesystem.info(path)
        _check_header(filesystem, path, url, info)
        handler = {"handler": _CheckedSource} if scheme_of(url) else {}
        file = uproot.open({url: None}, array_cache=None, **handler, **options)
        try:
            name = _find_tree(file, tree, url)
            model = file[name]
            kind = NtupleSource if "RNTuple" in file.classname_of(name) else TreeSource
            return kind(url, name.rpartition(";")[0] or name, model, info, file)
        except BaseException:
            file.close()
            raise


class _CheckedSource(uproot.source.fsspec.FSSpecSource):  # type: ignore[misc]
    """Raises what reading a range of a remote file raised: uproot takes the exception for the range's bytes."""

    def _open(self) -> None:
        super()._open()
        self._fs: Any = _RaisingFileSystem(self._fs)


class _RaisingFileSystem:
    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)

    async def _cat_ranges(self, **ranges: Any) -> list[bytes]:
        found: list[Any] = await self._filesystem._cat_ranges(**ranges)
        for data in found:
            if isinstance(data, BaseException):
                raise data
        return found


def list_trees(file: Any) -> list[str]:
    """Paths of all trees in an open file, each with its newest cycle only."""
    newest: dict[str, int] = {}
    for key, classname in file.classnames(recursive=True).items():
        if classname in _TREE_CLASSES:
            name, _, cycle = key.rpartition(";")
            newest[name] = max(newest.get(name, 0), int(cycle))
    return [f"{name};{cycle}" for name, cycle in newest.items()]


def _check_header(filesystem: Any, path: str, url: str, info: dict[str, Any]) -> None:
    size, shown = info.get("size"), redact_url(url)
    head = filesystem.cat_file(path, start=0, end=64)
    if head[:4] != b"root" or (len(head) > 11 and int.from_bytes(head[8:12], "big") not in _FIRST_RECORDS):
        raise FormatError(f"{shown} is not a ROOT file (it begins with {head[:8]!r})")
    if len(head) < 64:
        raise TruncatedError(f"{shown} has only {len(head)} bytes: not even a whole header")
    wide = int.from_bytes(head[4:8], "big") >= 1_000_000
    end = int.from_bytes(head[12:20] if wide else head[12:16], "big")
    if size is not None and size < end:
        raise TruncatedError(f"{shown} has {size:,} bytes, its header says {end:,}: fetch it again")


def _find_tree(file: Any, tree: str | None, url: str) -> str:
    keys, shown = list_trees(file), redact_url(url)
    if not keys:
        raise FormatError(f"{shown} holds no TTree or RNTuple (it holds: {', '.join(file.keys()[:8]) or 'nothing'})")
    names = [key.rpartition(";")[0] for key in keys]
    if tree is None:
        if len(keys) == 1:
            return keys[0]
        raise NotFoundError(f"{shown} holds {len(keys)} trees: {', '.join(names[:40])}; choose one with --tree NAME")
    matches = [key for key, name in zip(keys, names, strict=True) if tree in (key, name)]
    if not matches:
        raise NotFoundError(f"{shown} holds no tree {tree!r}{nearest_names(tree, names)}")
    return matches[0]


class _RootSource(ABC):
    """What the two kinds of trees share: identity, and reading that finds the columns at fault."""

    def __init__(self, url: str, tree: str, model: Any, info: dict[str, Any], file: Any) -> None:
        self.url, self.tree, self._model, self._file = url, tree, model, file
        self.entries = int(model.num_entries)
        self.nbytes = int(info.get("size") or 0)
        self.version = str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")
        self.columns: dict[str, str] = {}
        self.repeated: list[str] = []
        self._together = True  # whether reading several columns at once is better than one by one

    def close(self) -> None:
        self._file.close()

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        if not names:
            return {}
        if self._together or len(names) == 1:
            try:
                return self._read_quietly(names, start, stop)
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
            raise UnreadableColumnsError(reasons, self.url)
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


class TreeSource(_RootSource):
    """A TTree; its columns are the branches that hold numbers, by their full path."""

    def __init__(self, url: str, tree: str, model: Any, info: dict[str, Any], file: Any) -> None:
        super().__init__(url, tree, model, info, file)
        self._together = bool(scheme_of(url))  # one request instead of many
        self._branches: dict[str, Any] = {}
        self._bare_names = Counter(branch.name for branch in model.itervalues(recursive=True))
        for name, branch in model.iteritems(recursive=True):
            if _is_group(branch):
                continue
            if name in self._branches:
                self.repeated.append(name)
            else:
                self._branches[name] = branch
        self.columns = {n: _typename(b) for n, b in self._branches.items()}

    def doc(self, name: str) -> str:
        title = str(self._branches[name].title or "")
        return "" if _LEAFLIST.fullmatch(title) else title

    def boundaries(self, names: Iterable[str]) -> list[int]:
        common: set[int] | None = None
        for name in names:
            branch = self._branches[name]
            if branch.num_baskets:
                own = {int(offset) for offset in branch.entry_offsets}
                common = own if common is None else common & own
        return sorted({0, self.entries} | {e for e in common or () if 0 < e < self.entries})

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """From a server in one request where that is safe, otherwise one by one.

        uproot's ``arrays`` looks branches up by their bare names: quadratic in their number, and wrong for
        all but the first of a name.
        """
        together = [n for n in names if self._is_unique(n)] if len(names) > 1 else []
        wanted = {id(self._branches[name]) for name in together}
        read: dict[str, Any] = {}
        if together:
            read = self._model.arrays(
                filter_branch=lambda b: id(b) in wanted, entry_start=start, entry_stop=stop, library="ak", how=dict
            )
        return {n: read[n] if n in read else self._read_one(self._branches[n], start, stop) for n in names}

    def _read_one(self, branch: Any, start: int, stop: int) -> Any:
        if not _is_object(branch):
            return branch.array(entry_start=start, entry_stop=stop, library="ak")
        try:
            with bounded_memory():
                return branch.array(entry_start=start, entry_stop=stop, library="ak")
        except MemoryError as error:
            raise _MisreadError("uproot takes it for larger than memory") from error

    def _is_unique(self, name: str) -> bool:
        branch = self._branches[name]
        return self._bare_names[branch.name] == 1 and "/" not in name and not _is_object(branch)


class NtupleSource(_RootSource):
    """An RNTuple; its columns are its top-level fields."""

    def __init__(self, url: str, tree: str, model: Any, info: dict[str, Any], file: Any) -> None:
        super().__init__(url, tree, model, info, file)
        self._fields = dict(model.iteritems(recursive=False))
        self.columns = {n: _typename(f) for n, f in self._fields.items()}
        # uproot reads one cluster too many when a range ends on a boundary: the next read finds it here.
        self._cache = uproot.cache.LRUArrayCache("100 MB")

    def doc(self, name: str) -> str:
        return str(getattr(self._fields[name], "description", "") or "")

    def boundaries(self, names: Iterable[str]) -> list[int]:  # noqa: ARG002  (clusters are the same for all)
        return sorted({0, self.entries} | {int(c.num_first_entry) for c in self._model.ntuple.cluster_summaries})

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        if len(names) == 1:
            field = self._fields[names[0]]
            return {names[0]: field.array(entry_start=start, entry_stop=stop, array_cache=self._cache)}
        wanted = set(names)
        record = self._model.arrays(
            filter_name=lambda name: name in wanted, entry_start=start, entry_stop=stop, array_cache=self._cache
        )
        return {name: record[name] for name in names}


class _MisreadError(Exception):
    """A column's type sends uproot astray."""


def _is_object(branch: Any) -> bool:
    """Whether uproot reads the branch object by object, believing every length that it finds."""
    return _interpretation(branch) == "AsObjects"


def _is_group(branch: Any) -> bool:
    """A branch that only holds other branches."""
    return len(branch.branches) > 0 and _interpretation(branch) in ("AsGrouped", "UnknownInterpretation")


def _interpretation(branch: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return type(branch.interpretation).__name__
        except Exception:  # noqa: BLE001  (uproot raises many kinds)
            return "UnknownInterpretation"


def _typename(item: Any) -> str:
    try:
        return str(item.typename)
    except Exception:  # noqa: BLE001  (uproot raises KeyError and others on exotic leaves)
        return "unknown"
