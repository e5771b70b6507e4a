"""What a kind of log is: the fields that are kept, what they are called in its records, what a record must have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storagering.catalog.gridlogs.names import (
    dataset_of_block,
    dataset_of_lfn,
    short_lfn,
    site_of_storage,
    tier_of_dataset,
)
from storagering.catalog.gridlogs.values import FLAG, FLOAT, INT, TEXT, TIME, RecordError, read_value

Record = Mapping[str, Any]
Row = dict[str, Any]
_SITES = frozenset({"site", "source", "destination", "server_site", "client_site"})
_SQL = {TEXT: "VARCHAR", INT: "BIGINT", FLOAT: "DOUBLE", TIME: "TIMESTAMP WITH TIME ZONE", FLAG: "BOOLEAN"}


class MissingFieldsError(RecordError):
    """A record without fields that every record of its kind has.

    Attributes:
        wanted: what those are called in the system.
        found: the names that the record has.
    """

    def __init__(self, wanted: list[str], found: list[str]) -> None:
        super().__init__(f"it has no {' or '.join(wanted[:3])}")
        self.wanted, self.found = wanted, found


@dataclass(frozen=True, slots=True)
class Field:
    """A column, and where its value is found.

    Attributes:
        type: as in `values`.
        sources: (name in the record, factor); the first that says something counts. A dot leads into a record.
    """

    name: str
    type: str
    sources: tuple[tuple[str, float], ...]

    @property
    def sql(self) -> str:
        """Its definition for DuckDB."""
        return f"{self.name} {_SQL[self.type]}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of log.

    Attributes:
        reference: where its fields are documented.
        needs: of each group a record must have one column.
        prepare: the flat records in one that is nested or packed.
        orders: names of the columns of its CSV files without a header, with spaces between.
    """

    name: str
    title: str
    reference: str
    fields: tuple[Field, ...]
    needs: tuple[tuple[str, ...], ...]
    prepare: Callable[[Record], Iterable[Record]] = lambda record: (record,)
    orders: tuple[str, ...] = ()

    def names_of(self, column: str) -> list[str]:
        """What a column is called in records."""
        return [name for field in self.fields if field.name == column for name, _ in field.sources]


def field(name: str, type_: str, *sources: str | tuple[str, float]) -> Field:
    """A field; without sources, one of the column's own name. Factors are 1 unless given."""
    named = sources or (name,)
    return Field(name, type_, tuple((s, 1.0) if isinstance(s, str) else s for s in named))


def read_record(kind: Kind, record: Any) -> list[Row]:
    """The rows of a record: column -> value.

    Raises:
        MissingFieldsError: it has not what every record of the kind has.
        RecordError: it is no record, or a field is not of its type.
    """
    return [_row(kind, one) for one in kind.prepare(_unwrap(record))]


def _unwrap(record: Any) -> Record:
    """The record itself, of what message brokers and search engines send: {"data": ..., "metadata": ...}."""
    if not isinstance(record, dict):
        raise RecordError("it is no record of names and values")
    for envelope, beside in (("data", "metadata"), ("_source", "_index")):
        inner = record.get(envelope)
        if inner is not None and (beside in record or len(record) == 1):
            return inner if isinstance(inner, dict) else {"raw": inner}
    return record


def _row(kind: Kind, record: Record) -> Row:
    lowered = {str(name).lower(): value for name, value in record.items()}
    row: Row = {one.name: _value(one, lowered) for one in kind.fields}
    for group in kind.needs:
        if all(row[column] is None for column in group):
            wanted = [name for column in group for name in kind.names_of(column)]
            raise MissingFieldsError(wanted, list(record))
    _settle_names(row)
    return row


def _value(one: Field, record: Record) -> Any:
    for name, factor in one.sources:
        found = _find(record, name.lower())
        if found is None:
            continue
        try:
            value = read_value(found, one.type, factor)
        except RecordError as error:
            raise RecordError(f"{name} {error}") from None
        if value is not None:
            return value
    return None


def _find(record: Record, name: str) -> Any:
    if name in record or "." not in name:
        return record.get(name)
    outer, _, rest = name.partition(".")
    inner = record.get(outer)
    return _find({str(k).lower(): v for k, v in inner.items()}, rest) if isinstance(inner, dict) else None


def _settle_names(row: Row) -> None:
    """One way to write files, datasets and sites, for all kinds."""
    if lfn := row.get("lfn"):
        row["lfn"] = short_lfn(lfn)
    if "dataset" in row:
        named = row["dataset"] or row.get("block") or ""
        row["dataset"] = dataset_of_block(named) or (dataset_of_lfn(lfn) if lfn else None) or row["dataset"]
        row["data_tier"] = tier_of_dataset(row["dataset"] or "") or row.get("data_tier")
    for column in _SITES & row.keys():
        if row[column] is not None:
            row[column] = site_of_storage(row[column])
