"""The report's facts from the catalog's tables: a few queries, however many datasets there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import duckdb

from storagering.catalog.report.facts import (
    CacheFacts,
    ColumnFacts,
    DatasetFacts,
    Detail,
    Facts,
    Row,
    TrainingFacts,
)

#: Columns that are told of in all, and of each dataset at least and at most.
COLUMNS, FEWEST_COLUMNS, MOST_COLUMNS = 2400, 20, 200
SHOWN_ROWS = 20
#: Widths of the intervals in which accesses are counted, in seconds: the first with few enough of them is taken.
_INTERVALS = (3600, 86_400, 7 * 86_400, 28 * 86_400)
_MOST_INTERVALS = 120
_MONDAY = 4 * 86_400  # 1970 began on a Thursday

_DATASETS = """
SELECT d.name, num_entries, num_columns, num_chunks, d.nbytes, raw_bytes, format, version, epoch(created),
    here.nbytes, here.chunks, coalesce(a.reads, 0), coalesce(a.nbytes, 0)::BIGINT, a.last
FROM datasets d
LEFT JOIN (
    SELECT dataset, sum(nbytes)::BIGINT AS nbytes, count(*) AS chunks FROM residents WHERE tier = 'disk' GROUP BY 1
) here ON here.dataset = d.name
LEFT JOIN (
    SELECT dataset, count(*) AS reads, sum(nbytes) AS nbytes, max(epoch(time)) AS last FROM accesses GROUP BY 1
) a ON a.dataset = d.name
ORDER BY d.nbytes DESC, d.name"""
_TIERS = """
SELECT coalesce(tier, ''), count(*), sum(nbytes)::BIGINT, coalesce(sum(uses), 0)::BIGINT
FROM residents GROUP BY 1 ORDER BY 3 DESC, 1"""
_BINNED = f"""
(floor((epoch(time) - {_MONDAY}) / $width) * $width)::BIGINT + {_MONDAY} AS begin, coalesce(tier, '') AS tier,
    coalesce(sum(nbytes), 0)::BIGINT AS nbytes"""
_TRAININGS = """
SELECT epoch(time), coalesce(recipe, ''), coalesce(model, ''), coalesce(dataset, ''), version, epochs, seconds,
    map_entries(metrics), coalesce(software, '')
FROM trainings"""
_COLUMNS = """name, dtype, kind, coalesce(unit, ''), coalesce(doc, ''), mantissa_bits, count, min, max, mean, std,
    coalesce(nan_count, 0), coalesce(inf_count, 0), coalesce(zero_count, 0), quantiles, histogram"""
_ABOUT = {
    "selection": "selection",
    "classes": "array_to_string(classes, ', ')",
    "mixed with seed": "mix::VARCHAR",
    "profile": "profile",
    "made by": "software",
    "digest": "digest",
    "specification": "spec_key",
}
_READERS = 'SELECT count(DISTINCT "user"), count(DISTINCT host) FROM accesses'
_FIRST = f"QUALIFY row_number() OVER (PARTITION BY dataset ORDER BY source) <= {SHOWN_ROWS} ORDER BY source"
_VERSIONS = "version, digest, parent, epoch(created), num_entries, num_chunks, nbytes, current"


def gather_facts(
    connection: duckdb.DuckDBPyConnection, cache: CacheFacts, *, made: float, software: str, details: int
) -> Facts:
    """Read what the report tells.

    Args:
        connection: has the catalog's tables.
        made: the time now, in seconds since 1970.
        details: number of datasets that are told of at length: those that are read most, and the largest.
    """
    datasets = tuple(DatasetFacts(*row) for row in connection.execute(_DATASETS).fetchall())
    width = _interval(connection)
    binned = f"SELECT {_BINNED} FROM accesses GROUP BY ALL ORDER BY ALL"  # noqa: S608  (fixed text)
    ((users, hosts),) = connection.execute(_READERS).fetchall()
    latest = connection.execute(f"{_TRAININGS} ORDER BY time DESC LIMIT {SHOWN_ROWS}").fetchall()
    return Facts(
        made=made,
        software=software,
        cache=cache,
        datasets=datasets,
        details=tuple(_details(connection, choose_datasets(datasets, details), width)),
        interval=width,
        accesses=tuple(connection.execute(binned, {"width": width}).fetchall()),
        users=users,
        hosts=hosts,
        tiers=tuple(connection.execute(_TIERS).fetchall()),
        trainings=tuple(map(_training, latest)),
        num_trainings=connection.execute("SELECT count(*) FROM trainings").fetchall()[0][0],
    )


def choose_datasets(datasets: Sequence[DatasetFacts], number: int) -> list[DatasetFacts]:
    """Those that are read most, up to half of the number, and then the largest; the largest first."""
    read = sorted((d for d in datasets if d.reads), key=lambda d: d.read_bytes, reverse=True)[: number // 2]
    names = {d.name for d in read}
    names |= {d.name for d in [d for d in datasets if d.name not in names][: number - len(read)]}
    return [d for d in datasets if d.name in names]


def _interval(connection: duckdb.DuckDBPyConnection) -> int:
    ((first, last),) = connection.execute("SELECT min(epoch(time)), max(epoch(time)) FROM accesses").fetchall()
    span = last - first if last is not None else 0
    return next((width for width in _INTERVALS if span / width < _MOST_INTERVALS), _INTERVALS[-1])


def _details(connection: duckdb.DuckDBPyConnection, datasets: Sequence[DatasetFacts], width: int) -> list[Detail]:
    names = [d.name for d in datasets]

    def rows(table: str, what: str, rest: str = "", **more: Any) -> dict[str, list[Row]]:
        """Rows of those datasets, by dataset."""
        query = f"SELECT dataset, {what} FROM {table} WHERE dataset IN (SELECT unnest($names)) {rest}"  # noqa: S608
        found = defaultdict(list)
        for name, *row in connection.execute(query, {"names": names, **more}).fetchall():
            found[name].append(tuple(row))
        return found

    about = rows("(SELECT *, name AS dataset FROM datasets)", ", ".join(_ABOUT.values()))
    most = min(max(COLUMNS // max(len(names), 1), FEWEST_COLUMNS), MOST_COLUMNS)
    columns = rows("columns", _COLUMNS, "AND position < $most ORDER BY position", most=most)
    sources = rows("source_files", "url, label, tree, entries, nbytes, format, verified", _FIRST)
    sums = rows("source_files", "count(*), count(*) FILTER (verified), sum(nbytes)::BIGINT", "GROUP BY dataset")
    versions = rows("versions", _VERSIONS, "ORDER BY version DESC")
    skipped = rows("skipped_columns", "name, typename, reason", "ORDER BY name")
    bad = rows("skipped_sources", "url, reason", "ORDER BY url")
    accesses = rows("accesses", _BINNED, "GROUP BY ALL ORDER BY ALL", width=width)
    return [
        Detail(
            dataset=d,
            about=tuple((key, text) for key, text in zip(_ABOUT, about[d.name][0], strict=True) if text),
            columns=tuple(map(_column, columns[d.name])),
            sources=tuple(sources[d.name]),
            source_sums=sums[d.name][0] if d.name in sums else (0, 0, 0),
            versions=tuple(versions[d.name][:SHOWN_ROWS]),
            skipped_columns=tuple(skipped[d.name][:SHOWN_ROWS]),
            num_skipped_columns=len(skipped[d.name]),
            skipped_sources=tuple(bad[d.name]),
            accesses=tuple(accesses[d.name]),
        )
        for d in datasets
    ]


def _column(row: Row) -> ColumnFacts:
    *plain, quantiles, histogram = row
    bins = tuple((b["low"], b["high"], b["count"]) for b in histogram or ())
    return ColumnFacts(*[*plain, tuple(quantiles or ()), bins])


def _training(row: Row) -> TrainingFacts:
    *plain, metrics, software = row
    return TrainingFacts(*[*plain, tuple((m["key"], m["value"]) for m in metrics or ()), software])
