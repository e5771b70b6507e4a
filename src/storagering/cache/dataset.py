"""An open dataset: what it holds, and its entries as Awkward arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from storagering.cache.access import ChunkAccess
from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.cache.quantiles import spread_of
from storagering.cache.statistics import read_sketches
from storagering.cache.store import ChunkReader, read_batch
from storagering.cache.tally import Tally
from storagering.config import load_settings
from storagering.distributions import Bin, Distribution
from storagering.errors import SchemaError, SpecError
from storagering.types import Batch, Chunk, Manifest, Schema

if TYPE_CHECKING:
    from storagering.cache.view import View


class Dataset:
    """A published dataset. Holds no open files, so it may be sent to other processes.

    Attributes:
        name: what `open_dataset` calls it.
        path: its folder.
        cache: where that is.
        manifest: everything known about it.
    """

    def __init__(self, cache: Cache, manifest: Manifest) -> None:
        self.name = manifest.name
        self.path = cache.path(manifest.name)
        self.cache = cache
        self.manifest = manifest

    @property
    def num_entries(self) -> int:
        """Number of entries."""
        return self.manifest.num_entries

    @property
    def schema(self) -> Schema:
        """Its columns; each has ``name``, ``dtype``, ``kind``, ``unit`` and ``doc``."""
        return self.manifest.schema

    @property
    def created(self) -> datetime:
        """When it was published here; not part of the manifest, which is the same wherever it is made."""
        return datetime.fromtimestamp((self.path / MANIFEST_NAME).stat().st_mtime, UTC)

    def __len__(self) -> int:
        return self.num_entries

    def __repr__(self) -> str:
        return f"<Dataset {self.name!r}: {self.num_entries:,} entries, {len(self.schema.columns)} columns>"

    def open_chunk(self, chunk: Chunk) -> ChunkReader:
        """A reader of one of ``manifest.chunks``; every byte that it gives was checked.

        Raises:
            TruncatedError, ChecksumError: the file is not what the manifest says.
            StorageringError: it was evicted, and cannot be fetched again.
        """
        with self.access() as access:
            return access.open(chunk)

    def access(self, purpose: str = "reading") -> ChunkAccess:
        """A way to many of its chunks, which keeps open what fetching them needs; close it."""
        return ChunkAccess(self.cache, self.manifest, purpose)

    def batches(
        self, columns: Iterable[str] | None = None, start: int = 0, stop: int | None = None, *, purpose: str = "batches"
    ) -> Iterator[Batch]:
        """The chunks that hold entries ``start`` to ``stop``, decoded, whole and in order.

        Args:
            purpose: what the catalog's table of accesses says that they were read for.
        """
        schema = self.schema.select(columns)
        start, stop = self._range(start, stop)
        with self.access() as access, self.tally(access, purpose, schema.names) as tally:
            for chunk in self.manifest.chunks:
                if chunk.start < stop and chunk.stop > start:
                    reader = access.open(chunk)
                    tally.add(reader, min(stop, chunk.stop) - max(start, chunk.start))
                    yield read_batch(reader, schema, chunk.num_entries)

    def tally(self, access: ChunkAccess, purpose: str, columns: Sequence[str]) -> Tally:
        """Has what is read by an access in a ``with`` block noted in the journal."""
        return Tally(self.cache, self.manifest, access, purpose, columns)

    def arrays(self, columns: Iterable[str] | None = None, start: int = 0, stop: int | None = None) -> Any:
        """Entries ``start`` to ``stop`` as an Awkward record array, one field a column.

        Values and types equal those of the source, bit for bit.

        Raises:
            SchemaError: no such column (lists the nearest names).
            SpecError: the range is not within the dataset.
            CorruptDataError: the cache is damaged.
        """
        import awkward as ak

        from storagering.formats.forms import to_awkward

        schema = self.schema.select(columns)
        start, stop = self._range(start, stop)
        pieces = []
        at = next((c.start for c in self.manifest.chunks if c.stop > start), 0)
        for batch in self.batches(schema.names, start, stop, purpose="arrays"):
            pieces.append(to_awkward(batch)[max(0, start - at) : stop - at])
            at += len(batch)
        if not pieces:
            return _no_entries(schema)
        return pieces[0] if len(pieces) == 1 else ak.concatenate(pieces)

    def where(self, expression: str) -> View:
        """The entries for which a selection is true, as a view that loaders take, too; nothing is read yet.

        Args:
            expression: as that of ``convert --where``, over columns of the dataset: ``"(MET_pt > 200) & (nJet > 2)"``.

        Raises:
            SpecError: it is not an expression of these columns.
        """
        from storagering.cache.view import View

        return View(self, expression)

    def quantiles(self, column: str, probabilities: Iterable[float]) -> list[float]:
        """Quantiles of a column's finite numbers, as `numpy.quantile` has them, without reading the column.

        Each lies between estimates of the numbers of the two nearest ranks; these are at most 2^-7 off, relatively.
        They are exact at 0 and 1, for integers up to 256, and where there are at most 64 different values. Bools count
        as 0 and 1, and the numbers of lists and arrays each for themselves.

        Args:
            probabilities: each from 0 to 1.

        Raises:
            SchemaError: there is no such column (lists the nearest names), or it has no finite numbers.
            SpecError: a probability is not within 0 and 1.
            CorruptDataError: the table of statistics is damaged.
        """
        self._distribution(column)
        number = self.schema.names.index(column)
        sketch = read_sketches(self.path, self.manifest, [column])[column]
        spread = spread_of(self.schema.columns[number], self.manifest.statistics[number], sketch)
        return [] if spread is None else spread.quantiles(probabilities)

    def histogram(self, column: str) -> tuple[Bin, ...]:
        """At most 64 bins (low, high, count) that hold all of a column's finite numbers, without reading the column.

        Bins are of equal width where most numbers lie, and two wider ones hold what is beyond, if there is something;
        counts are off by what a quantile is off. Where there are at most 64 different values, each has a bin with
        ``low == high``, and the counts are exact.

        Raises:
            SchemaError: there is no such column (lists the nearest names), or it has no finite numbers.
        """
        return self._distribution(column).bins

    def _distribution(self, column: str) -> Distribution:
        self.schema.select([column])
        found = self.manifest.distributions[self.schema.names.index(column)]
        if found is None:
            raise SchemaError(f"column {column!r} of dataset {self.name!r} has no finite numbers")
        return found

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.num_entries if stop is None else min(stop, self.num_entries)
        if start < 0 or stop < 0:
            raise SpecError(f"entries {start} to {stop}: count from the start, the dataset has {self.num_entries}")
        return start, max(start, stop)


def _no_entries(schema: Schema) -> Any:
    from storagering.formats.forms import empty_array, to_awkward, to_batch

    return to_awkward(to_batch(schema, {c.name: empty_array(c) for c in schema.columns}, 0))


def open_dataset(name: str, *, version: int | None = None, cache: Cache | None = None) -> Dataset:
    """The published dataset of that name.

    Args:
        version: an earlier one, from before something was appended; the present one without it.

    Raises:
        NotFoundError: there is none (lists the nearest names), or no such version.
        CorruptDataError: its manifest is damaged.
    """
    cache = cache or open_cache(load_settings())
    return Dataset(cache, cache.manifest(name, version))
