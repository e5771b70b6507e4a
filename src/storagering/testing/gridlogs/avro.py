"""The Avro schemas of CMSSW, JobMonitoring and WMArchive records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from storagering.testing.gridlogs.jobs import JM_TEXTS, JM_TIMES
from storagering.testing.gridlogs.reads import CMSSW_DATES, CMSSW_TEXTS

_STORAGE = (
    "writeTotalMB readPercentageOps readAveragekB readTotalMB readNumOps readCachePercentageOps readMBSec readMaxMSec "
    "readTotalSecs writeTotalSecs"
)
_CPU = (
    "TotalJobCPU TotalEventCPU AvgEventCPU AvgEventTime MinEventCPU MaxEventTime TotalJobTime MinEventTime MaxEventCPU"
)


def cmssw_schema() -> dict[str, Any]:
    """Of CMSSW's records."""
    return _popularity("cmssw", CMSSW_TEXTS, CMSSW_DATES)


def jm_schema() -> dict[str, Any]:
    """Of JobMonitoring's records."""
    return _popularity("jobmonitoring", JM_TEXTS, JM_TIMES)


def report_schema() -> dict[str, Any]:
    """Of framework job reports (dmwm/WMArchive, test/data/fwjr.avsc): those of jobs without an error."""
    names = count()

    def record(fields: Mapping[str, Any]) -> dict[str, Any]:
        number = next(names)
        found = [{"name": name, "type": kind} for name, kind in fields.items()]
        return {"type": "record", "name": f"name{number}", "namespace": f"ns{number}", "fields": found}

    def step(performance: Mapping[str, Any], output: Any, source: Mapping[str, Any]) -> dict[str, Any]:
        groups = {name: record(performance.get(name, {})) for name in ("multicore", "storage", "cpu", "memory")}
        one = record({"outputModule": "string", "value": _list(output)})
        return record({
            "status": "long", "errors": _list("null"), "logs": record({}), "parameters": record({}), "start": "long",
            "stop": "long", "site": "string", "analysis": record({}), "performance": record(groups),
            "cleanup": record({}), "output": _list(one), "input": record(source),
        })  # fmt: skip

    def sums() -> dict[str, Any]:
        return record(_all("adler32 cksum", "string"))

    def runs() -> dict[str, Any]:
        return _list(record({"runNumber": "long", "lumis": _list("long")}))

    archived = record({
        "runs": _list("null"), **_all("lfn pfn module_label", "string"), "location": "null", "checksums": sums(),
        **_all("events merged size", "long"),
    })  # fmt: skip
    named = record(_all("applicationName dataTier primaryDataset processedDataset applicationVersion", "string"))
    made = record({
        "branch_hash": "string", "user_dn": "null", "lfn": "string", "dataset": named, "InputPFN": "string",
        "checksums": sums(), "guid": "string", "size": "long", **_all("acquisitionEra configURL", "string"),
        "location": "null", "input": _list("string"), **_all("events merged", "long"),
        **_all("validStatus ouput_module_class globalTag", "string"), "inputpfns": _list("string"),
        **_all("pfn catalog module_label", "string"), "async_dest": "null",
        **_all("inputPath StageOutCommand", "string"), "runs": runs(),
        **_all("OutputPFN user_vogroup user_vorole", "string"), "processingVer": "long",
        **_all("processingStr prep_id", "string"),
    })  # fmt: skip
    source = record({
        "runs": runs(), **_all("input_source_class input_type lfn pfn catalog module_label guid", "string"),
        "events": "long",
    })  # fmt: skip
    figures = {
        "storage": _all(_STORAGE, "double"),
        "cpu": _all(_CPU, "double"),
        "memory": _all("PeakValueRss PeakValueVsize", "double"),
    }
    steps = {
        "stageOut1": step({}, "null", {}),
        "logArch1": step({}, archived, {}),
        "cmsRun1": step(figures, made, {"source": _list(source)}),
    }
    return record({
        "task": "string", "skippedFiles": _list("null"), "wmaid": "string", "wmats": "double",
        "fallbackFiles": _list("null"), "meta_data": record({**_all("agent_ver fwjr_id host", "string"), "ts": "long"}),
        "steps": record(steps), "stype": "string",
    })  # fmt: skip


def _popularity(name: str, texts: Iterable[str], times: Iterable[str]) -> dict[str, Any]:
    fields = [{"name": one, "type": ["null", "string"]} for one in texts]
    fields += [{"name": one, "type": ["null", "long"]} for one in times]
    return {"type": "record", "name": name, "fields": fields}


def _all(names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}
