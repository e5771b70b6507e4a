"""Made-up logs have the fields of the real ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from storagering.errors import InputError
from storagering.testing.gridlogs import GridLogs, write_grid_logs
from storagering.testing.gridlogs.avro import report_schema
from storagering.testing.gridlogs.weekly import NEW_TIER, make_weekly_accesses

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> GridLogs:
    return write_grid_logs(tmp_path_factory.mktemp("logs"), seed=1, num_jobs=40)


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line)["data"] for line in text.splitlines()]


def fits(value: Any, schema: dict[str, Any]) -> bool:
    kind = schema["type"]
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def test_reads_have_all_fields_of_the_schema(written: GridLogs, shared_data: Path) -> None:
    schema = json.loads((shared_data / "cms_metadata" / "jsonschemas_XrootD.schema").read_text())
    for record in lines(written.files["xrootd"][0]):
        assert record.keys() == schema["properties"].keys()
        assert all(fits(value, schema["properties"][name]) for name, value in record.items())


def test_jobs_have_fields_of_the_schema(written: GridLogs, shared_data: Path) -> None:
    schema = json.loads((shared_data / "cms_metadata" / "jsonschemas_JobMonitoring.schema").read_text())["properties"]
    for record in lines(written.files["condor"][0]):
        assert record.keys() <= schema.keys()
        wrong = {name for name, value in record.items() if not fits(value, schema[name])}
        assert not wrong


def test_reports_have_the_real_avro_schema(written: GridLogs, shared_data: Path) -> None:
    real = json.loads((shared_data / "cms_metadata" / "fwjr.avsc").read_text())
    assert shape(report_schema()) == shape(real)
    with written.files["wmarchive"][0].open("rb") as file:
        reports = list(fastavro.reader(file))
    assert len(reports) == sum(job.exit_code == 0 for job in written.world.jobs)


def shape(schema: Any) -> Any:
    """An Avro schema without the made-up names of its records, and without an order."""
    if isinstance(schema, dict) and schema["type"] == "record":
        return {field["name"]: shape(field["type"]) for field in schema["fields"]}
    return [shape(schema["items"])] if isinstance(schema, dict) else schema


def test_the_same_seed_gives_the_same_logs(tmp_path: Path) -> None:
    first, second, other = (
        write_grid_logs(tmp_path / name, seed=seed, num_jobs=20) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.world == second.world != other.world
    for kind, files in first.files.items():
        for one, again in zip(files, second.files[kind], strict=True):
            assert one.suffix == ".avro" or one.read_bytes() == again.read_bytes()


def test_weekly_accesses() -> None:
    data = make_weekly_accesses(seed=1, weeks=20, per_tier=10)
    new = [tier == NEW_TIER for tier in data.tiers]
    assert not data.counts[new, :10].any()
    assert data.counts[new, 10:].any()
    assert (data.counts == make_weekly_accesses(seed=1, weeks=20, per_tier=10).counts).all()
    with pytest.raises(InputError, match="at least 10"):
        make_weekly_accesses(seed=1, weeks=5)
    with pytest.raises(InputError, match="at least 150"):
        write_grid_logs(Path("nowhere"), days=3)
