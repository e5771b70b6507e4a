from __future__ import annotations

from pathlib import Path

from storagering import convert, sql
from storagering.catalog.schemas import catalog_schemas, dataset_schema
from storagering.testing.toys import write_toy_tree


def test_they_are_what_queries_see(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "t.root", entries=5)
    dataset = convert(str(tmp_path / "t.root"), name="toys", workers=1)
    known = {**catalog_schemas(), "toys": dataset_schema(dataset)}
    assert {"datasets", "columns", "lineage"} <= set(known)
    assert not any(name.startswith("_") for name in known)
    for name, columns in known.items():
        asked = sql(f"DESCRIBE {name}").to_pylist()
        assert columns == {row["column_name"]: row["column_type"] for row in asked}, name
