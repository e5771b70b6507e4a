"""Files of logs, in all their formats, become ours; what cannot be taken is told of."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.layout import Cache, open_cache
from storagering.catalog.gridlogs.importing import import_logs
from storagering.catalog.gridlogs.jobs import WMARCHIVE
from storagering.catalog.gridlogs.kinds import read_record
from storagering.catalog.gridlogs.store import list_logs, read_log
from storagering.catalog.gridlogs.values import RecordError
from storagering.config import load_settings
from storagering.errors import (
    CacheError,
    CorruptDataError,
    FormatError,
    NotFoundError,
    SpecError,
    StorageringError,
    TruncatedError,
)

READ = {
    "file_lfn": "/store/data/Run2016F/JetHT/AOD/23Sep2016-v1/7/D.root",
    "start_time": 1488325657000,
    "end_time": 1488326400000,
    "operation_time": 743,
    "read_bytes": 5,
}


@pytest.fixture
def opened(cache: Path) -> Cache:
    return open_cache(load_settings())


def rows(cache: Cache, kind: str) -> list[dict[str, Any]]:
    return [row for path in list_logs(cache, kind).values() for batch in read_log(path)[1] for row in batch.to_pylist()]


def avro_bytes(records: list[dict[str, Any]]) -> bytes:
    fields = [{"name": name, "type": ["null", "long", "string"]} for name in READ]
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema({"type": "record", "name": "read", "fields": fields}), records)
    return sink.getvalue()


def csv_bytes(records: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    lines = [list(READ), *(list(record.values()) for record in records)]
    return "".join(delimiter.join(map(str, line)) + "\n" for line in lines).encode()


ENCODINGS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "document": lambda some: json.dumps(some[0], indent=2).encode(),
    "documents": lambda some: "\n".join(json.dumps(one, indent=2) for one in some).encode(),
    "lines": lambda some: b"".join(json.dumps(one).encode() + b"\n" for one in some),
    "no last newline": lambda some: b"\n".join(json.dumps(one).encode() for one in some),
    "array": lambda some: json.dumps(some, indent=1).encode(),
    "envelopes": lambda some: b"\n".join(json.dumps({"data": one, "metadata": {}}).encode() for one in some),
    "search": lambda some: b"\n".join(json.dumps({"_index": "x", "_source": one}).encode() for one in some),
    "avro": avro_bytes,
    "csv": csv_bytes,
    "tsv": lambda some: csv_bytes(some, "\t"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_format_gives_the_same_rows(encoding: str, packed: bool, tmp_path: Path, opened: Cache) -> None:
    records = [READ | {"read_bytes": number} for number in range(3)]
    data = ENCODINGS[encoding](records)
    (tmp_path / "logs").write_bytes(gzip.compress(data) if packed else data)
    (found,) = import_logs("xrootd", tmp_path / "logs")
    expected = 1 if encoding == "document" else 3
    assert (found.log.records, found.log.bad, found.known) == (expected, 0, False)
    taken = rows(opened, "xrootd")
    assert [row["read_bytes"] for row in taken] == list(range(expected))
    assert {row["dataset"] for row in taken} == {"/JetHT/Run2016F-23Sep2016-v1/AOD"}
    assert {row["start"].timestamp() for row in taken} == {1488325657}


def test_the_same_records_are_taken_once(tmp_path: Path, opened: Cache) -> None:
    data = json.dumps(READ).encode()
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(gzip.compress(data))
    first, second = import_logs("xrootd", [tmp_path / "a", tmp_path / "b"])
    assert (first.known, second.known) == (False, True)
    assert second.log == first.log
    assert len(rows(opened, "xrootd")) == 1
    assert import_logs("xrootd", tmp_path / "a")[0].known


def test_bad_records_are_counted_and_told_with_their_lines(tmp_path: Path, opened: Cache) -> None:
    good = json.dumps(READ)
    broken = [
        good,
        '{"file_lfn": ',
        json.dumps(READ | {"read_bytes": "many"}),
        "[1, 2]",
        "",
        good,
        good[:-1] + ', "x": 1}',
    ]
    (tmp_path / "logs.json").write_text("\n".join(broken))
    (found,) = import_logs("xrootd", tmp_path / "logs.json")
    assert (found.log.records, found.log.bad) == (3, 3)
    assert [problem.rpartition(", line ")[2].partition(":")[0] for problem in found.problems] == ["2", "3", "4"]
    assert "read_bytes is no number: 'many'" in found.problems[1]
    assert str(tmp_path / "logs.json") in found.problems[0]


def test_bad_lines_of_csv(tmp_path: Path) -> None:
    data = csv_bytes([READ, READ, READ]).splitlines()
    data[2] += b",one more"
    (tmp_path / "logs.csv").write_bytes(b"\n".join(data))
    (found,) = import_logs("xrootd", tmp_path / "logs.csv")
    assert (found.log.records, found.log.bad) == (2, 1)
    assert "line 3: it has 6 fields, the others have 5" in found.problems[0]


def test_a_document_cut_short_keeps_those_before(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text(json.dumps([READ, READ], indent=1)[:-20])
    (found,) = import_logs("xrootd", tmp_path / "logs")
    assert (found.log.records, found.log.bad) == (1, 1)
    assert "what follows was not read" in found.problems[0]


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("cmssw", json.dumps(READ), "they look like 'xrootd'"),
        ("xrootd", '{"file_lfnn": 1, "b": 2}', "nearest names: 'file_lfnn'"),
        ("xrootd", "lfn,bytes\na,1\n", "it has no file_lfn"),
        ("phedex", csv_bytes([READ]).decode(), "they look like 'xrootd'"),
    ],
)
def test_logs_of_another_kind_are_refused(kind: str, data: str, text: str, tmp_path: Path, opened: Cache) -> None:
    (tmp_path / "logs").write_text(data)
    with pytest.raises(SpecError, match=f"holds no records of kind '{kind}'") as caught:
        import_logs(kind, tmp_path / "logs")
    assert text in str(caught.value)
    assert not list_logs(opened, kind)


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", FormatError, "is empty"),
        (b"root\x00\x01\x02\x00" * 100, FormatError, "neither JSON nor Avro nor CSV"),
        (b'{"file_lfn": tru', FormatError, "line 1"),
        (avro_bytes([READ])[:-10], TruncatedError, "ends within a block"),
        (gzip.compress(json.dumps(READ).encode())[:-12], TruncatedError, "ends before"),
    ],
)
def test_files_that_cannot_be_read(data: bytes, error: type[Exception], text: str, tmp_path: Path) -> None:
    (tmp_path / "logs").write_bytes(data)
    with pytest.raises(error, match=text):
        import_logs("xrootd", tmp_path / "logs")


@pytest.mark.parametrize("encoding", ["lines", "array", "avro", "csv"])
def test_damaged_files_give_our_errors_or_bad_records(encoding: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    whole = ENCODINGS[encoding]([READ | {"read_bytes": number} for number in range(20)])
    for number in range(25):
        data = bytearray(whole)
        for at in random.integers(0, len(data), 3):
            data[at] = random.integers(256)
        (tmp_path / f"{number}").write_bytes(data)
        with suppress(StorageringError):
            (found,) = import_logs("xrootd", tmp_path / f"{number}")
            assert found.log.records
            assert len(found.problems) == found.log.bad


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["errors", "input", "output", "value", "outputModule", "lfn", "x"]), inner)
    ),
    max_leaves=5,
)
STEP = st.dictionaries(st.sampled_from(["name", "errors", "input", "output", "performance", "start", "status"]), JSON)
PARTS = {
    "steps": st.lists(STEP, max_size=2) | st.dictionaries(st.just("cmsRun1"), STEP),
    "meta_data": JSON,
    "task": JSON,
}


@given(st.fixed_dictionaries(PARTS | {"time_stamp": st.just(1488325657), "LFNArray": JSON}))
@settings(max_examples=30, deadline=None)
def test_reports_of_any_form_are_taken_or_refused(report: dict[str, Any]) -> None:
    with suppress(RecordError):
        (row,) = read_record(WMARCHIVE, report)
        assert row.keys() == {field.name for field in WMARCHIVE.fields}


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nearest names: 'xrootd'"):
        import_logs("xroot", tmp_path / "logs")
    with pytest.raises(NotFoundError, match="no such file"):
        import_logs("xrootd", tmp_path / "logs")


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, opened: Cache) -> None:
    (tmp_path / "logs").write_text(json.dumps(READ))
    (opened.root / "logs").symlink_to(tmp_path)
    with pytest.raises(CacheError, match="is a link"):
        import_logs("xrootd", tmp_path / "logs")


def test_a_damaged_file_of_ours_is_told(tmp_path: Path, opened: Cache) -> None:
    (tmp_path / "logs").write_bytes(ENCODINGS["lines"]([READ | {"read_bytes": n} for n in range(500)]))
    import_logs("xrootd", tmp_path / "logs")
    (path,) = list_logs(opened, "xrootd").values()
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="remove it and import its source again"):
        rows(opened, "xrootd")


def test_real_records(shared_data: Path, opened: Cache) -> None:
    folder = shared_data / "cms_metadata"
    import_logs("xrootd", folder / "schemas_XrootD.json")
    (read,) = rows(opened, "xrootd")
    assert (read["read_bytes_at_close"], read["seconds"], read["remote"]) == (327039, 66.0, True)
    assert read["dataset"].startswith("/Neutrino_E-10_gun/RunIISummer17PrePremix-MCv2")
    for kind in ("condor", "jobmonitoring"):
        import_logs(kind, folder / "schemas_JobMonitoring.json")
        (job,) = rows(opened, kind)
        assert (job["site"], job["dataset"]) == ("T2_US_UCSD", "/JetHT/Run2017F-31Mar2018-v1/MINIAOD")
        assert (job["wall_seconds"], job["cpu_seconds"], job["exit_code"]) == (4617.0, 4410.0, 0)


def test_real_job_reports_of_all_forms(shared_data: Path, opened: Cache) -> None:
    found = import_logs("wmarchive", str(shared_data / "cms_metadata" / "*wjr*.json"))
    assert [(one.log.records, one.log.bad) for one in found] == [(1, 0)] * len(found)
    reports = {row["id"]: row for row in rows(opened, "wmarchive")}
    failed = reports["1257-0"]
    assert (failed["exit_code"], failed["exit_step"], failed["state"]) == (8001, "cmsRun1", "jobfailed")
    merged = reports["21-0"]
    assert (merged["input_files"], merged["events"], merged["output_bytes"]) == (20, 240, 170904850)
    assert merged["dataset"] == merged["output_dataset"]  # the names of its files are numbers into a list
    assert (merged["cpu_seconds"], merged["read_bytes"]) == (6.31004, round(164.267 * 2**20))
    assert reports["3268289-0"]["dataset"] == "/Charmonium/Run2015B-v1/RAW"
    assert reports["3268289-0"]["site"] == reports["99-0"]["site"] == "T1_US_FNAL"
