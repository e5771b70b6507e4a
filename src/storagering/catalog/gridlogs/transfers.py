"""Kinds of logs about files that are read or moved: XRootD (AAA), EOS, CMSSW, FTS, ASO."""

from __future__ import annotations

from collections.abc import Iterator

from storagering.catalog.gridlogs.kinds import Field, Kind, Record, field
from storagering.catalog.gridlogs.values import FLAG, FLOAT, INT, TEXT, TIME

_FILE = (field("lfn", TEXT, "file_lfn"), field("dataset", TEXT, "dataset"), field("data_tier", TEXT, "data_tier"))
_READS = (
    field("file_bytes", INT, "file_size"),
    field("read_bytes", INT),
    field("read_bytes_at_close", INT),
    field("read_single_bytes", INT),
    field("read_single_operations", INT),
    field("read_vector_bytes", INT),
    field("read_vector_operations", INT),
)
_ENDS = (
    field("server_host", TEXT),
    field("server_domain", TEXT),
    field("client_host", TEXT),
    field("client_domain", TEXT),
)


def _span(start: str, stop: str) -> tuple[Field, Field]:
    return field("start", TIME, start), field("stop", TIME, stop)


def _unpack_eos(record: Record) -> Iterator[Record]:
    """EOS writes ``name=value&name=value``; later brokers unpack it, some with ``eos.`` before each name."""
    raw = record.get("raw")
    flat = {str(name).removeprefix("eos."): value for name, value in record.items()}
    if isinstance(raw, str):
        pairs = (pair.partition("=") for pair in raw.strip('"\\ ').split("&"))
        flat = {name: value for name, equals, value in pairs if equals} | flat
    yield flat


XROOTD = Kind(
    "xrootd",
    "reads over XRootD, from the federation's servers (AAA)",
    "dmwm/CMSMonitoring, schemas/XrootD.json",
    (
        field("id", TEXT, "unique_id"),
        *_span("start_time", "end_time"),
        *_FILE,
        *_READS,
        field("read_operations", INT),
        field("write_bytes", INT),
        field("write_bytes_at_close", INT),
        field("operation", TEXT),
        field("seconds", FLOAT, "operation_time"),
        field("throughput", FLOAT),
        field("remote", FLAG, "remote_access"),
        field("is_transfer", FLAG),
        field("server_site", TEXT, "src_experiment_site", "src_site", "server_site"),
        field("client_site", TEXT, "dst_experiment_site", "dst_site"),
        *_ENDS,
        field("owner", TEXT, "user"),
        field("vo", TEXT),
        field("app_info", TEXT),
    ),
    needs=(("lfn",), ("start",), ("stop",), ("seconds", "throughput", "remote")),
)

CMSSW = Kind(
    "cmssw",
    "files read by CMSSW, as it reports when it closes them",
    "dmwm/CMSSpark, schemas.py: schema_cmssw, schema_cmspop_json",
    (
        field("id", TEXT, "unique_id"),
        *_span("start_time", "end_time"),
        *_FILE,
        *_READS,
        field("site", TEXT, "site_name"),
        field("fallback", TEXT),
        *_ENDS,
        field("app_info", TEXT),
    ),
    needs=(("lfn",), ("stop",), ("site",), ("read_bytes", "read_bytes_at_close")),
)

EOS = Kind(
    "eos",
    "files opened on EOS, from its own log",
    "cern-eos/eos, doc on report log files; dmwm/CMSSpark, spark_utils.py: eos_tables",
    (
        field("id", TEXT, "log"),
        *_span("ots", "cts"),
        field("lfn", TEXT, "path", "eos_path"),
        *_FILE[1:],
        field("file_bytes", INT, "csize"),
        field("opened_bytes", INT, "osize"),
        field("read_bytes", INT, "rb"),
        field("write_bytes", INT, "wb"),
        field("read_seconds", FLOAT, ("rt", 1e-3)),
        field("write_seconds", FLOAT, ("wt", 1e-3)),
        field("read_calls", INT, "nrc"),
        field("write_calls", INT, "nwc"),
        field("server_host", TEXT, "host", "eos_host"),
        field("client_host", TEXT, "sec.host", "sec_host"),
        field("owner", TEXT, "sec.name", "sec_name"),
        field("application", TEXT, "sec.app", "sec_app"),
    ),
    needs=(("lfn",), ("stop",), ("read_bytes",)),
    prepare=_unpack_eos,
)

FTS = Kind(
    "fts",
    "transfers that FTS completed",
    "FTS3 messages, topic transfer.fts_monitoring_complete",
    (
        field("id", TEXT, "tr_id"),
        *_span("tr_timestamp_start", "tr_timestamp_complete"),
        field("source", TEXT, "file_metadata.src_rse", "src_site_name", "src_hostname"),
        field("destination", TEXT, "file_metadata.dst_rse", "dst_site_name", "dst_hostname"),
        field("lfn", TEXT, "dst_url", "src_url"),
        *_FILE[1:],
        field("file_bytes", INT, "f_size", "file_size"),
        field("moved_bytes", INT, "tr_bt_transfered"),
        field("state", TEXT, "t_final_transfer_state"),
        field("error_code", INT, "t_error_code"),
        field("error", TEXT, "t__error_message", "t_error_message"),
        field("error_category", TEXT, "tr_error_category"),
        field("retries", INT, "retry"),
        field("activity", TEXT, "activity", "file_metadata.activity"),
        field("issuer", TEXT, "job_metadata.issuer"),
        field("vo", TEXT),
    ),
    needs=(("source",), ("destination",), ("stop",), ("state",)),
)

ASO = Kind(
    "aso",
    "outputs of users' jobs that ASO moved to where they belong",
    "dmwm/CMSSpark, schemas.py: schema_asodb; states: dmwm/CRABServer, ServerUtilities.py",
    (
        field("id", TEXT, "tm_id"),
        *_span("tm_start_time", "tm_end_time"),
        field("updated", TIME, "tm_last_update"),
        field("source", TEXT, "tm_source"),
        field("destination", TEXT, "tm_destination"),
        field("lfn", TEXT, "tm_destination_lfn", "tm_source_lfn"),
        *_FILE[1:],
        field("file_bytes", INT, "tm_filesize"),
        field("state", INT, "tm_transfer_state"),
        field("publication_state", INT, "tm_publication_state"),
        field("retries", INT, "tm_transfer_retry_count"),
        field("error", TEXT, "tm_transfer_failure_reason"),
        field("owner", TEXT, "tm_username"),
        field("task", TEXT, "tm_taskname"),
        field("fts_id", TEXT, "tm_fts_id"),
    ),
    needs=(("source",), ("destination",), ("state",), ("start", "stop", "updated")),
    orders=(
        "tm_id tm_username tm_taskname tm_destination tm_destination_lfn tm_source tm_source_lfn tm_filesize "
        "tm_publish tm_jobid tm_job_retry_count tm_type tm_aso_worker tm_transfer_retry_count "
        "tm_transfer_max_retry_count tm_publication_retry_count tm_publication_max_retry_count tm_rest_host "
        "tm_rest_uri tm_transfer_state tm_publication_state tm_transfer_failure_reason "
        "tm_publication_failure_reason tm_fts_id tm_fts_instance tm_last_update tm_start_time tm_end_time",
    ),
)
