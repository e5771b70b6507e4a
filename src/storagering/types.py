"""The core types. Read these and you know the program.

All are frozen and hold no open files. What is stored (everything but `Batch`) is written as JSON by
`storagering.cache.manifest`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storagering.distributions import Distribution
from storagering.errors import CorruptDataError, SchemaError, nearest_names

Array = npt.NDArray[Any]
Kind = Literal["flat", "fixed-shape", "sparse", "jagged", "doubly-jagged", "string", "nested"]
Role = Literal["data", "counts", "places", "index", "mask", "tags"]
StoreFormat = Literal["zarr", "parquet"]
Profile = Literal["small", "fast"]
Layout = Literal["columns", "rows"]
OnBadColumn = Literal["skip", "fail"]
OnBadSource = Literal["skip", "fail"]

#: Version of the on-disk format; a reader refuses any other by name.
FORMAT_VERSION = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a column: a flat column has one part, a jagged one counts and values.

    Attributes:
        name: path below the column, e.g. ``values``, ``counts``, ``item/counts``; '' for a flat column.
        role: ``data``; ``counts`` (list lengths; offsets in memory, counts on disk); ``places`` of the values
            of a sparse column in the array of one entry, flattened in C order; ``index``, ``mask`` and
            ``tags`` of optional and union types.
        dtype: NumPy dtype in memory, little-endian (``<f4``); for counts that of the offsets, ``<i8``.
        shape: shape of one element, ``()`` for a scalar.
        key: name of the buffer in Awkward's ``to_buffers``.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it is called, what it holds, and the parts it is stored as.

    Attributes:
        dtype: type of the innermost numbers (``float32``), ``string``, or the type in words if nested.
        unit: unit if the source states one ('' if not).
        doc: title of the ROOT branch or field.
        form: Awkward form as JSON, from which arrays are rebuilt exactly.
        key: safe unique name inside chunk files; equals ``name`` wherever that is a plain name.
        mantissa_bits: bits of the mantissa that were kept on request (relative error at most
            2^-(mantissa_bits + 1)), None if all.
    """

    name: str
    dtype: str
    kind: Kind
    unit: str
    doc: str
    form: str
    key: str
    parts: tuple[Part, ...]
    mantissa_bits: int | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether a loader can make a tensor of it."""
        return self.kind in ("flat", "fixed-shape", "sparse", "jagged")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one entry, or of one item of a list; () if these are not numbers.

        That of a sparse column is the shape of the array that an entry stands for.
        """
        if self.kind != "sparse":
            return self.parts[-1].shape if self.parts else ()
        form, sizes = json.loads(self.form), []
        while form["class"] == "RegularArray":
            sizes.append(form["size"])
            form = form["content"]
        return (*sizes, *form["inner_shape"])


@dataclass(frozen=True, slots=True)
class Schema:
    """Ordered columns."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)

    def select(self, names: Iterable[str] | None) -> Schema:
        """The named columns in the given order (all if None).

        Raises:
            SchemaError: a name is unknown (lists the nearest ones) or given twice.
        """
        if names is None:
            return self
        known = {c.name: c for c in self.columns}
        wanted = list(names)
        for name in wanted:
            if name not in known:
                raise SchemaError(f"no column {name!r}{nearest_names(name, known)}")
            if wanted.count(name) > 1:
                raise SchemaError(f"column {name!r} is asked for twice")
        return Schema(tuple(known[n] for n in wanted))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file, as it was when it was read.

    Attributes:
        url: without user info, tokens or signatures.
        label: class name it was given with ``--label``, else None.
        version: token of its state (modification time or etag) when it was read, '' if unknown.
        format: what it is (``ttree``, ``rntuple``, ``parquet``, ...).
        checksum: whole-file checksum that was found right (``adler32:0a1b2c3d``), '' if none was compared.
        verified: whether every byte that was used is covered by a checksum that was compared: that of
            the whole file, or those inside it.
    """

    url: str
    label: str | None
    tree: str
    entries: int
    nbytes: int
    version: str
    format: str = ""
    checksum: str = ""
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Entries ``start`` to ``stop`` of the source file number ``source``."""

    source: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ConversionSpec:
    """What a dataset is made of and how: the same spec gives the same dataset.

    Attributes:
        sources: (url, class name or None) in order, patterns resolved, secrets removed.
        tree: name asked for, None if it is to be found.
        define: (name, expression) in the order of definition.
        where: selection expression, None to keep every entry.
        classes: class names; the column ``label`` holds the index into them.
        chunk_bytes: decoded size aimed at for one chunk.
        friends: further trees of the same entries, whose columns are added.
        precision: (pattern of columns, mantissa bits to keep), the first that matches counts.
        fill_absent_chunks: whether chunks that a Zarr or HDF5 source has not are its fill value, or an error.
        mix: seed of the permutation in which the entries of all sources are stored, None for their own order.
        layout: ``rows`` packs the flat columns of each entry together, so that any entry can be read alone.
        sparse: patterns of fixed-shape columns of which only what is not zero is stored.
    """

    sources: tuple[tuple[str, str | None], ...]
    tree: str | None = None
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    define: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    classes: tuple[str, ...] = ()
    format: StoreFormat = "zarr"
    profile: Profile = "small"
    chunk_bytes: int = 16 << 20
    on_bad_column: OnBadColumn = "skip"
    on_bad_source: OnBadSource = "fail"
    friends: tuple[str, ...] = ()
    precision: tuple[tuple[str, int], ...] = ()
    fill_absent_chunks: bool = False
    mix: int | None = None
    layout: Layout = "columns"
    sparse: tuple[str, ...] = ()
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Statistics of the numbers of one column, over finite values; bools count as 0 and 1.

    Attributes:
        count: numbers seen, NaN and infinities included.
        sum_squares: sum of squared deviations from ``mean``.
    """

    count: int = 0
    nan_count: int = 0
    inf_count: int = 0
    zero_count: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    sum_squares: float = 0.0

    @property
    def std(self) -> float | None:
        """Population standard deviation, None without finite values (or if their squares overflow)."""
        finite = self.count - self.nan_count - self.inf_count
        return float(np.sqrt(self.sum_squares / finite)) if self.mean is not None else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One immutable file: entries ``start`` to ``stop`` of the dataset with all their columns.

    Attributes:
        raw_bytes: size decoded; that of sparse columns when they are dense.
        digest: BLAKE3 of the file: its name among nodes.
        trusted_from: the bytes from here to the end of the file are covered by ``checksum`` and checked
            when the file is opened; those before are covered by checksums inside that region.
        checksum: XXH3-64 (hex) of that region.
        spans: the source entries it was made from, before selection.
    """

    start: int
    stop: int
    file: str
    nbytes: int
    raw_bytes: int
    digest: str
    trusted_from: int
    checksum: str
    spans: tuple[Span, ...]

    @property
    def num_entries(self) -> int:
        """Number of entries."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class SkippedColumn:
    """A column of the source that is not in the dataset, and why."""

    name: str
    typename: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class SkippedSource:
    """A source that is not in the dataset, and why (under ``on_bad_source="skip"``)."""

    url: str
    label: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The truth about one dataset; never edited after publishing.

    The same spec and sources give the same manifest, byte for byte, on any machine and at any time.

    Attributes:
        spec_key: sha256 of the canonical JSON of ``spec``.
        statistics: one per column in schema order, None for columns without numbers.
        chunk_statistics: file name and sha256 of the statistics of each chunk, and the sketches (a Parquet table).
        skipped_sources: bad files that were left out, on request.
        version: 1, and one more for each `append`.
        parent: digest of the version before, '' for the first.
        distributions: one per column in schema order, None for columns without finite numbers.
        digest: sha256 of the canonical JSON of everything else.
    """

    name: str
    software: str
    spec: ConversionSpec
    spec_key: str
    schema: Schema
    sources: tuple[SourceFile, ...]
    chunks: tuple[Chunk, ...]
    statistics: tuple[ColumnStatistics | None, ...]
    chunk_statistics: tuple[str, str]
    skipped: tuple[SkippedColumn, ...] = ()
    skipped_sources: tuple[SkippedSource, ...] = ()
    version: int = 1
    parent: str = ""
    distributions: tuple[Distribution | None, ...] = ()
    digest: str = ""

    @property
    def num_entries(self) -> int:
        """Number of entries of the dataset."""
        return self.chunks[-1].stop if self.chunks else 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Some entries of some columns, in memory: per column one array for each part.

    Counts are held as offsets (int64, one longer than the lists that they cut), so that a jagged column
    is ``(offsets, values)``. ``num_entries`` is kept apart because a batch may have no columns.
    """

    schema: Schema
    num_entries: int
    arrays: Mapping[str, tuple[Array, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.num_entries

    def check(self) -> Batch:
        """Itself, if every array has the dtype and length that the schema promises.

        Raises:
            CorruptDataError: naming the column that does not.
        """
        for column in self.schema.columns:
            arrays = self.arrays[column.name]
            if len(arrays) != len(column.parts):
                raise CorruptDataError(f"column {column.name!r} has {len(arrays)} arrays, not {len(column.parts)}")
            for part, array in zip(column.parts, arrays, strict=True):
                if array.dtype != np.dtype(part.dtype) or array.shape[1:] != part.shape:
                    raise CorruptDataError(
                        f"column {column.name!r}: {part.role} is {array.dtype}{array.shape[1:]}, "
                        f"not {part.dtype}{part.shape}"
                    )
            first = column.parts[0].role if column.parts else ""
            length = len(arrays[0]) - (first == "counts") if arrays else self.num_entries
            if first in ("data", "counts") and column.kind != "nested" and length != self.num_entries:
                raise CorruptDataError(f"column {column.name!r} has {length} entries, not {self.num_entries}")
            if column.kind in ("jagged", "doubly-jagged", "string"):
                _check_lists(column, arrays)
            elif column.kind == "sparse":
                check_places(column, arrays)
        return self


def _check_lists(column: Column, arrays: tuple[Array, ...]) -> None:
    """Offsets rise from 0 to the number of what they cut."""
    for part, offsets, content in zip(column.parts, arrays, arrays[1:], strict=False):
        length = len(content) - (part is not column.parts[-2])
        if offsets[0] != 0 or offsets[-1] != length or (offsets[1:] < offsets[:-1]).any():
            raise CorruptDataError(f"column {column.name!r}: its lists do not add up to its {length} values")


def check_places(column: Column, arrays: tuple[Array, ...]) -> None:
    """That the values of a sparse column have places of their own within the array that an entry stands for.

    Raises:
        CorruptDataError: they have not.
    """
    offsets, places, values = arrays
    counted = len(places) if len(places) == len(values) else -1
    if offsets[0] != 0 or offsets[-1] != counted or (offsets[1:] < offsets[:-1]).any():
        raise CorruptDataError(f"column {column.name!r}: {len(values)} values do not fit its places and counts")
    if counted and int(places.max()) >= math.prod(column.shape):
        raise CorruptDataError(f"column {column.name!r}: place {places.max()} is not in arrays of shape {column.shape}")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a loader stands: its whole checkpoint."""

    epoch: int = 0
    step: int = 0

    def next_epoch(self) -> Position:
        """The start of the epoch after this one."""
        return replace(self, epoch=self.epoch + 1, step=0)


def sha256_hex(data: bytes) -> str:
    """sha256 as hex digits."""
    return hashlib.sha256(data).hexdigest()
