"""What the report tells: plain records, as `gather` reads them from the catalog and the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """One line of the table of datasets.

    Attributes:
        created: seconds since 1970.
        here_bytes, here_chunks: what lies on the disk; None if the ledger does not know the dataset.
        reads: epochs, scans and exports.
        read_bytes: by all of them.
        last_read: seconds since 1970, None if never.
    """

    name: str
    entries: int
    columns: int
    chunks: int
    nbytes: int
    raw_bytes: int
    format: str
    version: int
    created: float
    here_bytes: int | None
    here_chunks: int | None
    reads: int
    read_bytes: int
    last_read: float | None


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column with its statistics.

    Attributes:
        quantiles: at .01 .05 .25 .5 .75 .95 .99, () if unknown.
        histogram: (low, high, count) of each bin, () if unknown.
    """

    name: str
    dtype: str
    kind: str
    unit: str
    doc: str
    mantissa_bits: int | None
    count: int | None
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    nan_count: int
    inf_count: int
    zero_count: int
    quantiles: tuple[float, ...]
    histogram: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """One training; ``time`` in seconds since 1970."""

    time: float
    recipe: str
    model: str
    dataset: str
    version: int | None
    epochs: int | None
    seconds: float | None
    metrics: tuple[tuple[str, float], ...]
    software: str


Row: TypeAlias = tuple[Any, ...]
#: Bytes that were read: (begin of the interval in seconds since 1970, tier, bytes), in order.
Series: TypeAlias = tuple[tuple[int, str, int], ...]


@dataclass(frozen=True, slots=True)
class Detail:
    """What is told of a dataset beyond its line of the table.

    Attributes:
        about: (name, text) of what it was made and how.
        columns: the first ones.
        sources: (url, class, tree, entries, bytes, format, verified) of the first ones.
        source_sums: number of sources, of verified ones, and bytes of all.
        versions: (version, digest, parent, seconds since 1970, entries, chunks, bytes, is current), newest first.
        skipped_columns: (name, type, reason) of the first ones.
        skipped_sources: (url, reason).
    """

    dataset: DatasetFacts
    about: tuple[tuple[str, str], ...]
    columns: tuple[ColumnFacts, ...]
    sources: tuple[Row, ...]
    source_sums: Row
    versions: tuple[Row, ...]
    skipped_columns: tuple[Row, ...]
    num_skipped_columns: int
    skipped_sources: tuple[Row, ...]
    accesses: Series


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """The cache's room, in bytes; ``quota`` is None without limit."""

    root: str
    quota: int | None
    free: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the report tells.

    Attributes:
        made: when, in seconds since 1970.
        interval: width of the intervals of ``accesses``, in seconds.
        users, hosts: how many have read.
        tiers: (tier, chunks, bytes, uses) of what lies in the cache.
        trainings: the latest of ``num_trainings``.
    """

    made: float
    software: str
    cache: CacheFacts
    datasets: tuple[DatasetFacts, ...]
    details: tuple[Detail, ...]
    interval: int
    accesses: Series
    users: int
    hosts: int
    tiers: tuple[tuple[str, int, int, int], ...]
    trainings: tuple[TrainingFacts, ...]
    num_trainings: int
