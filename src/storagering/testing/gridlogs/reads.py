"""What XRootD, EOS, CMSSW and FTS write down of jobs and transfers, with the fields that they really have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from storagering.testing.gridlogs.world import DOMAINS, SITES, Job, World

#: What CMSSW's records hold, all as text but for the dates (dmwm/CMSSpark, schemas.py: schema_cmssw).
_CMSSW_TEXTS = (
    "UNIQUE_ID FILE_LFN FILE_SIZE CLIENT_DOMAIN CLIENT_HOST SERVER_DOMAIN SERVER_HOST SITE_NAME READ_BYTES_AT_CLOSE "
    "READ_BYTES READ_SINGLE_BYTES READ_SINGLE_OPERATIONS READ_SINGLE_AVERAGE READ_SINGLE_SIGMA READ_VECTOR_BYTES "
    "READ_VECTOR_OPERATIONS READ_VECTOR_AVERAGE READ_VECTOR_SIGMA READ_VECTOR_COUNT_AVERAGE READ_VECTOR_COUNT_SIGMA "
    "FALLBACK USER_DN APP_INFO START_TIME END_TIME"
)
CMSSW_TEXTS = tuple(_CMSSW_TEXTS.split())
CMSSW_DATES = ("START_DATE", "END_DATE", "INSERT_DATE")
_OPERATIONS = ("average", "bytes", "max", "min", "operations", "sigma")


def xrootd_record(job: Job) -> dict[str, Any]:
    """As the brokers send it, times in ms (dmwm/CMSMonitoring, schemas/XrootD.json)."""
    single, vector = job.read_bytes // 50, job.read_bytes - job.read_bytes // 50
    counts = {f"{what}_{name}": 0 for what in ("read", "read_single", "read_vector", "write") for name in _OPERATIONS}
    counts |= {f"read_vector_count_{name}": 0 for name in ("average", "max", "min", "sigma")}
    data = counts | {
        "activity": "r",
        "app_info": f"{job.number}_https://glidein.cern.ch/{job.number}/180101:120000:{job.user}:crab:task_0",
        "client_domain": DOMAINS[job.site],
        "client_host": f"wn{job.number % 300:03d}",
        "dst_country": job.site[3:5],
        "dst_experiment_site": job.site,
        "dst_federation": job.site,
        "dst_site": job.site,
        "dst_tier": int(job.site[1]),
        "end_time": job.stop * 1000,
        "file_lfn": job.lfn,
        "file_size": job.dataset.file_bytes,
        "is_transfer": False,
        "operation": "read",
        "operation_time": job.wall,
        "read_bytes": job.read_bytes,
        "read_bytes_at_close": job.read_bytes,
        "read_operations": 60,
        "read_single_bytes": single,
        "read_single_operations": 20,
        "read_vector_bytes": vector,
        "read_vector_operations": 40,
        "remote_access": job.site != job.server,
        "server_domain": DOMAINS[job.server],
        "server_host": f"xrd{job.number % 20:02d}",
        "server_site": None,
        "server_username": "",
        "src_country": job.server[3:5],
        "src_experiment_site": job.server,
        "src_federation": job.server,
        "src_site": job.server,
        "src_tier": int(job.server[1]),
        "start_time": job.start * 1000,
        "throughput": job.read_bytes / job.wall,
        "unique_id": f"{job.number:08x}-0000-11e8-9717-47f48e80beef",
        "user": job.user,
        "user_dn": "",
        "user_fqan": "",
        "user_protocol": None,
        "user_role": "",
        "vo": "cms",
        "write_bytes_at_close": 0,
    }
    return envelope(data, "xrootd", job.stop)


def eos_record(job: Job) -> dict[str, Any]:
    """As EOS's own log has it, all of it text (cern-eos/eos, report log files)."""
    data = {
        "log": f"{job.number:08x}-1d8e-11e7-ba07-a0369f1fbf0c",
        "path": f"/eos/cms{job.lfn}",
        "ruid": "8959",
        "rgid": "1399",
        "td": f"{job.user}.{job.number}:472@wn{job.number % 300}",
        "host": f"p{job.number % 90:02d}.cern.ch",
        "fid": str(job.number),
        "fsid": "18722",
        "ots": str(job.start),
        "otms": "918",
        "cts": str(job.stop),
        "ctms": "225",
        "nrc": "72",
        "nwc": "0",
        "rb": str(job.read_bytes),
        "rb_min": "104",
        "rb_max": "524288",
        "rb_sigma": "239596.05",
        "wb": "0",
        "rt": f"{1000 * job.reading:.2f}",
        "wt": "0.00",
        "osize": str(job.dataset.file_bytes),
        "csize": str(job.dataset.file_bytes),
        "sec.name": job.user,
        "sec.host": f"wn{job.number % 300:03d}.{DOMAINS[job.site]}",
        "sec.app": "",
    }
    if job.number % 2:  # earlier releases send it as one text
        return envelope("&".join(f"{name}={value}" for name, value in data.items()), "eos", job.stop)
    return envelope(data, "eos", job.stop)


def cmssw_record(job: Job) -> dict[str, Any]:
    """As CMSSW sends it when it closes a file; some dates are ms, times are s as text."""
    record: dict[str, Any] = dict.fromkeys(CMSSW_TEXTS, "0")
    record |= {
        "UNIQUE_ID": f"{job.number:08X}-0FFE-E611-B710-BC305B3909F1-1",
        "FILE_LFN": job.lfn,
        "FILE_SIZE": str(job.dataset.file_bytes),
        "CLIENT_DOMAIN": DOMAINS[job.site],
        "CLIENT_HOST": f"wn{job.number % 300:03d}",
        "SERVER_DOMAIN": DOMAINS[job.server],
        "SERVER_HOST": f"xrd{job.number % 20:02d}",
        "SITE_NAME": job.site,
        "READ_BYTES_AT_CLOSE": str(job.read_bytes),
        "READ_BYTES": str(job.read_bytes),
        "FALLBACK": "-" if job.site == job.server else "true",
        "USER_DN": "",
        "APP_INFO": f"{job.number}_https://glidein.cern.ch/{job.number}",
        "START_TIME": str(job.start),
        "END_TIME": str(job.stop),
    }
    return record | dict.fromkeys(CMSSW_DATES, job.stop * 1000) | {"START_DATE": job.start * 1000}


def fts_records(world: World, seed: int) -> Iterator[dict[str, Any]]:
    """Transfers of files between sites, as the servers tell when they are done (topic fts_monitoring_complete)."""
    rng = np.random.default_rng([seed, 1])
    for number in range(400):
        dataset = world.datasets[int(rng.integers(len(world.datasets)))]
        source, target = dataset.replicas[0], str(rng.choice([s for s in SITES if s != dataset.replicas[0]]))
        start = int(rng.uniform(world.jobs[0].start, world.end - 7200))
        failed, seconds = bool(rng.random() < 0.05), int(rng.uniform(30, 3600))
        lfn = dataset.lfn(int(rng.integers(dataset.files)))
        data = {
            "activity": "Production Output",
            "block_size": 0,
            "dst_hostname": f"se.{DOMAINS[target]}",
            "dst_site_name": "",
            "dst_url": f"gsiftp://se.{DOMAINS[target]}:2811/{lfn}",
            "endpnt": "fts3.cern.ch",
            "f_size": dataset.file_bytes,
            "file_metadata": {"src_rse": f"{source}_Disk", "dst_rse": target, "filesize": dataset.file_bytes},
            "job_metadata": {"issuer": "rucio", "multi_sources": False},
            "job_state": "FAILED" if failed else "FINISHED",
            "retry": 0,
            "src_hostname": f"se.{DOMAINS[source]}",
            "src_site_name": "",
            "src_url": f"gsiftp://se.{DOMAINS[source]}:2811/{lfn}",
            "t__error_message": "TRANSFER globus_ftp_client: the server responded with an error" if failed else "",
            "t_error_code": "5" if failed else "0",
            "t_final_transfer_state": "Error" if failed else "Ok",
            "tr_bt_transfered": 0 if failed else dataset.file_bytes,
            "tr_error_category": "COMMUNICATION_ERROR_ON_SEND" if failed else "",
            "tr_id": f"2018-01-01-0000__{source}__{target}__{number}",
            "tr_timestamp_complete": (start + seconds) * 1000,
            "tr_timestamp_start": start * 1000,
            "vo": "cms",
        }
        yield envelope(data, "fts", start + seconds)


def envelope(data: Any, producer: str, time: int) -> dict[str, Any]:
    """What brokers put around a record."""
    metadata = {"producer": producer, "timestamp": time * 1000, "hostname": "broker.cern.ch", "version": "003"}
    return {"data": data, "metadata": metadata}
