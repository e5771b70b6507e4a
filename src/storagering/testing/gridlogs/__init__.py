"""Logs of a made-up grid, in the formats and with the fields of the real systems, and with facts planted in them.

For tests and examples of `storagering catalog import-logs`. Everything but the bytes of packed files follows from the
seed.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np

from storagering.catalog.gridlogs.registry import KINDS
from storagering.errors import InputError
from storagering.testing.gridlogs import avro, jobs, reads
from storagering.testing.gridlogs.world import DAY, FAILING_SITE, HOT_SITE, SITES, SLOW_SITE, World, make_world

_MIN_DAYS = 150


@dataclass(frozen=True)
class GridLogs:
    """What was written, and what is true of it.

    Attributes:
        files: kind of log -> its files.
        failing_site: 40 % of its jobs fail, 3 % elsewhere.
        slow_site: its storage gives about 1 MB/s to a job, others 20 to 80.
        cold_dataset: kept at sites, read in the first 20 days only.
        hot_dataset: read all the last 28 days at ``hot_site``, which has no replica.
    """

    files: dict[str, list[Path]]
    world: World
    failing_site: str
    slow_site: str
    cold_dataset: str
    hot_dataset: str
    hot_site: str


def write_grid_logs(folder: Path, *, seed: int = 0, days: int = 200, num_jobs: int = 1500) -> GridLogs:
    """Write logs of all kinds into a folder: JSON, Avro and CSV, some packed.

    Args:
        days: that the logs cover, from 2018-01-01 on.
        num_jobs: jobs that read a file each; a tenth more make the planted facts.

    Raises:
        InputError: too few days or jobs for what is planted.
    """
    if days < _MIN_DAYS or num_jobs < 1:
        raise InputError(f"{days} days, {num_jobs} jobs: at least {_MIN_DAYS} days and one job are needed")
    world = make_world(seed, days, num_jobs)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = ([job for job in world.jobs if bool(job.exit_code) == bad] for bad in (False, True))
    at_cern = [job for job in world.jobs if job.server == "T2_CH_CERN"]
    written = {
        "xrootd": [_lines(folder / "xrootd.json.gz", map(reads.xrootd_record, world.jobs))],
        "eos": [_lines(folder / "eos.json", map(reads.eos_record, at_cern))],
        "condor": [_lines(folder / "condor.json", (ad for job in world.jobs for ad in jobs.condor_records(job)))],
        "fts": [_lines(folder / "fts.json", reads.fts_records(world, seed))],
        "cmssw": [_avro(folder / "cmssw.avro", avro.cmssw_schema(), map(reads.cmssw_record, world.jobs))],
        "jobmonitoring": [_avro(folder / "jobmonitoring.avro", avro.jm_schema(), map(jobs.jm_record, world.jobs))],
        "wmarchive": [
            _avro(folder / "reports.avro", avro.report_schema(), map(jobs.report, done)),
            _write(folder / "failed.json", msgspec.json.encode([jobs.failed_report(job) for job in failed])),
        ],
        "aso": [_csv(folder / "aso.csv", "aso", 0, _aso_rows(world, seed), header=False)],
        "dbs": [_csv(folder / "dbs.csv", "dbs", 1, _dbs_rows(world), header=True)],
        "phedex": [_csv(folder / "phedex.csv.gz", "phedex", 0, _phedex_rows(world), header=False)],
    }
    return GridLogs(written, world, FAILING_SITE, SLOW_SITE, world.cold.name, world.hot.name, HOT_SITE)


def _aso_rows(world: World, seed: int) -> Iterable[dict[str, Any]]:
    rng = np.random.default_rng([seed, 2])
    for job in world.jobs[::5]:
        state = 2 if rng.random() < 0.1 else 3
        yield {
            "tm_id": f"{job.number:060x}",
            "tm_username": job.user,
            "tm_taskname": f"180101_120000:{job.user}_crab_task",
            "tm_destination": str(rng.choice(SITES)),
            "tm_destination_lfn": f"/store/user/{job.user}/Task/out/180101_120000/0000/out_{job.number}.root",
            "tm_source": job.site,
            "tm_source_lfn": f"/store/temp/user/{job.user}/Task/out/180101_120000/0000/out_{job.number}.root",
            "tm_filesize": job.read_bytes // 20,
            "tm_transfer_state": state,
            "tm_publication_state": 0,
            "tm_transfer_failure_reason": "No space left on device, or quota" if state == 2 else "",
            "tm_last_update": job.stop + 900,
            "tm_start_time": job.stop,
            "tm_end_time": job.stop + 800,
        }


def _dbs_rows(world: World) -> Iterable[dict[str, Any]]:
    for number, one in enumerate(world.datasets):
        yield {
            "b_block_id": number,
            "b_block_name": f"{one.name}#00000000-0000-0000-0000-{number:012d}",
            "b_dataset_id": number,
            "b_open_for_writing": 0,
            "b_origin_site_name": one.replicas[0],
            "b_block_size": float(one.files * one.file_bytes),
            "b_file_count": one.files,
            "b_creation_date": float(world.end - 400 * DAY),
        }


def _phedex_rows(world: World) -> Iterable[dict[str, Any]]:
    """One picture of all replicas, on the last day."""
    created = world.end - 400 * DAY
    for number, one in enumerate(world.datasets):
        for site in one.replicas:
            size = one.files * one.file_bytes
            yield {
                "now_sec": float(world.end),
                "dataset_name": one.name,
                "dataset_id": number,
                "dataset_is_open": "n",
                "block_name": f"{one.name}#00000000-0000-0000-0000-{number:012d}",
                "block_files": one.files,
                "block_bytes": size,
                "node_name": f"{site}_Disk" if site.startswith("T1") else site,
                "br_is_active": "y",
                "br_node_files": one.files,
                "br_node_bytes": size,
                "br_is_custodial": "n",
                "replica_time_create": float(created),
                "replica_time_updater": float(created),
            }


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def _lines(path: Path, records: Iterable[Any]) -> Path:
    return _write(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def _avro(path: Path, schema: Any, records: Iterable[Any]) -> Path:
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(schema), records, codec="snappy" if path.name[0] == "c" else "deflate")
    return _write(path, sink.getvalue())


def _csv(path: Path, kind: str, order: int, rows: Iterable[dict[str, Any]], *, header: bool) -> Path:
    """With the columns that files of the kind have, in their order; what is not told is empty."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, KINDS[kind].orders[order].split(), restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return _write(path, sink.getvalue().encode())
