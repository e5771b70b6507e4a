"""A catalog in memory, with what a test needs in it."""

from __future__ import annotations

from typing import Any

import duckdb

from storagering.catalog.index import catalog_tables, make_tables
from storagering.catalog.report.facts import CacheFacts, Facts
from storagering.catalog.report.gather import gather_facts

NOW = 1_780_000_000.0
DAY = 86_400
CACHE = CacheFacts("/scratch/cache", 10_000_000, 5_000_000)


class SmallCatalog:
    """Tables to be filled row by row; what a row does not say has a value of no importance, or is NULL."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:", config={"threads": 1})
        make_tables(self.connection, catalog_tables())

    def close(self) -> None:
        self.connection.close()

    def add(self, table: str, **values: Any) -> None:
        """One row; times are seconds since 1970."""
        marks = ", ".join("to_timestamp(?)" if name in ("time", "created") else "?" for name in values)
        names = ", ".join(f'"{name}"' for name in values)
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))

    def add_dataset(self, name: str, nbytes: int = 1000, raw_bytes: int = 2500, **values: Any) -> None:
        """A dataset without columns."""
        usual = {"num_entries": 100, "num_columns": 1, "num_chunks": 1, "format": "zarr", "profile": "small"}
        usual |= {"classes": ["top", "qcd"], "digest": "d" * 64, "version": 1, "spec_key": "5" * 64}
        usual |= {"created": NOW - DAY, "software": "storagering 0"}
        self.add("datasets", **usual | {"name": name, "nbytes": nbytes, "raw_bytes": raw_bytes} | values)

    def add_column(self, dataset: str, name: str = "x", position: int = 0, **values: Any) -> None:
        """A column of numbers from 0 to 10."""
        usual = {"dtype": "float32", "kind": "flat", "unit": "", "doc": "", "count": 100, "nan_count": 0}
        usual |= {"inf_count": 0, "zero_count": 0, "min": 0.0, "max": 10.0, "mean": 4.0, "std": 2.0}
        self.add("columns", **usual | {"dataset": dataset, "name": name, "position": position} | values)

    def add_access(
        self, dataset: str, time: float = NOW, nbytes: int = 1000, tier: str = "disk", **values: Any
    ) -> None:
        """An epoch."""
        usual = {"user": "ada", "host": "node1", "entries": 100, "purpose": "epoch"}
        self.add("accesses", **usual | {"dataset": dataset, "time": time, "nbytes": nbytes, "tier": tier} | values)

    def facts(self, details: int = 40) -> Facts:
        """What the report would tell."""
        return gather_facts(self.connection, CACHE, made=NOW, software="storagering 0", details=details)


def bins(*counts: int, low: float = 0.0, width: float = 1.0) -> list[dict[str, float]]:
    """A histogram of bins of equal width, as the catalog has it."""
    return [{"low": low + n * width, "high": low + (n + 1) * width, "count": c} for n, c in enumerate(counts)]
