"""Accesses to datasets, counted by week: from a table, from imported logs, from what loaders wrote down."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from storagering.cache.layout import Cache
from storagering.catalog.gridlogs.names import tier_of_dataset
from storagering.catalog.gridlogs.reading import opened_log
from storagering.catalog.logs import logs_in_memory
from storagering.catalog.query import sql
from storagering.config import Settings
from storagering.errors import FormatError, NotFoundError, SpecError, nearest_names
from storagering.formats.blob import BlobFile
from storagering.types import Array

#: Weeks begin on Mondays; number 0 began on this one.
_MONDAY = date(1970, 1, 5)
_ALL = "all"
_COUNTS = ("naccess", "accesses", "count")
_TIERS = ("tier", "data_tier")


@dataclass(frozen=True)
class WeeklyAccesses:
    """How often each dataset was read in each week.

    Attributes:
        datasets: names.
        tiers: of each dataset its data tier, ``all`` where none is known.
        counts: (datasets, weeks), the last week being the last that is complete.
        first_week: number of the first; as the table has it, or weeks since 1970-01-05.
    """

    datasets: tuple[str, ...]
    tiers: tuple[str, ...]
    counts: Array
    first_week: int = 0

    @property
    def num_weeks(self) -> int:
        """Number of weeks."""
        return int(self.counts.shape[1])


def count_weeks(
    datasets: Iterable[str], weeks: Array, accesses: Array, tiers: Iterable[str] | None = None
) -> WeeklyAccesses:
    """Counts from rows (dataset, week, accesses); several of one dataset and week add up.

    Raises:
        SpecError: there is no row.
    """
    names = np.asarray(list(datasets), dtype=object)
    if not len(names):
        raise SpecError("there are no accesses to learn from")
    known, first_row, row_of = np.unique(names.astype(str), return_index=True, return_inverse=True)
    first = int(weeks.min())
    counts = np.zeros((len(known), int(weeks.max()) - first + 1))
    np.add.at(counts, (row_of, weeks - first), accesses)
    given = list(tiers) if tiers is not None else None
    found = [given[row] for row in first_row] if given is not None else [tier_of_dataset(str(name)) for name in known]
    return WeeklyAccesses(tuple(map(str, known)), tuple(tier or _ALL for tier in found), counts, first)


def read_csv(source: str | Path, settings: Settings) -> WeeklyAccesses:
    """Counts from a CSV table, possibly packed, here or on a server.

    Its columns: ``dataset``, ``week`` (a number), ``naccess`` or ``accesses``; ``tier`` and ``dbs`` (which tells
    datasets of one name apart) may be absent.

    Raises:
        NotFoundError, SourceError: it cannot be opened.
        FormatError: it is no such table.
    """
    table = _read_table(str(source), settings)
    names = {name.lower(): name for name in table.column_names}
    count = next((names[name] for name in _COUNTS if name in names), None)
    for wanted in ("dataset", "week") if count else ("dataset", "week", "naccess"):
        if wanted not in names:
            raise FormatError(f"{source} has no column {wanted!r}{nearest_names(wanted, names)}")
    try:
        weeks = table.column(names["week"]).cast(pa.int64()).to_numpy()
        accesses = table.column(str(count)).cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise FormatError(f"{source}: weeks or accesses are no numbers: {error}") from error
    datasets = [str(name) for name in table.column(names["dataset"]).to_pylist()]
    if "dbs" in names:
        datasets = [f"{name}@{dbs}" for name, dbs in zip(datasets, table.column(names["dbs"]).to_pylist(), strict=True)]
    tier = next((names[name] for name in _TIERS if name in names), None)
    return count_weeks(datasets, weeks, accesses, table.column(tier).to_pylist() if tier else None)


def read_logs(cache: Cache, kind: str | None = None) -> WeeklyAccesses:
    """Counts from imported logs of one kind: the same access is in several.

    Args:
        kind: without it, the kind with most accesses.

    Raises:
        NotFoundError: no such logs are imported.
    """
    with logs_in_memory(cache) as connection:
        kinds = connection.execute(
            "SELECT kind FROM log_accesses GROUP BY kind ORDER BY count(*) DESC, kind"
        ).fetchall()
        known = [name for (name,) in kinds]
        if not known or kind not in (None, *known):
            what = f"of kind {kind!r} " if kind else ""
            hint = nearest_names(kind or "", known) if known else "; 'storagering catalog import-logs' takes them in"
            raise NotFoundError(f"no imported logs {what}tell of accesses to datasets{hint}")
        query = """SELECT dataset, epoch(time) AS seconds FROM log_accesses
            WHERE kind = ? AND dataset IS NOT NULL AND time IS NOT NULL"""
        table = connection.sql(query, params=[kind or known[0]]).to_arrow_table()
    return from_times(table.column("dataset").to_pylist(), table.column("seconds").to_numpy())


def read_accesses(settings: Settings) -> WeeklyAccesses:
    """Counts of what loaders, queries and exports of this cache wrote down.

    Raises:
        SpecError: nothing was written down before this week.
    """
    table = sql("SELECT dataset, epoch(time) AS seconds FROM accesses WHERE dataset IS NOT NULL", settings=settings)
    names, seconds = table.column("dataset").to_pylist(), table.column("seconds").to_numpy()
    return from_times(names, seconds, datetime.now(UTC))


def from_times(datasets: Iterable[str], seconds: Array, now: datetime | None = None) -> WeeklyAccesses:
    """Counts of single accesses; the week that has not ended yet is left out.

    Args:
        seconds: of each access, since 1970 UTC.
        now: when that is; without it, the last access.
    """
    days = np.floor(np.asarray(seconds, dtype=np.float64) / 86400).astype(np.int64)
    weeks = (days - (_MONDAY - date(1970, 1, 1)).days) // 7
    until = week_of(now) if now is not None else int(weeks.max(initial=0))
    whole = weeks < until
    names = [name for name, keep in zip(datasets, whole, strict=True) if keep]
    return count_weeks(names, weeks[whole], np.ones(int(whole.sum())))


def week_of(time: datetime) -> int:
    """Number of the week that a time is in, since 1970-01-05."""
    return (time.astimezone(UTC).date() - _MONDAY).days // 7


def monday_of(week: int) -> date:
    """The first day of a week of that number."""
    return _MONDAY + timedelta(weeks=week)


def _read_table(source: str, settings: Settings) -> pa.Table:
    with opened_log(source, settings) as blob:
        try:
            return pyarrow.csv.read_csv(io.BufferedReader(BlobFile(blob)))
        except pa.ArrowException as error:
            raise FormatError(f"{source} is no CSV table: {error}") from error
