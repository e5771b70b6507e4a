"""Framework job reports, nested by steps, as one flat record a job.

They come in three forms: of the agents ({"fwjr": ...}, steps and outputs by name), of WMArchive (steps in a list, file
names as numbers into ``LFNArray``), and by its Avro schema (steps by name, outputs as {outputModule, value}).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from storagering.catalog.gridlogs.names import dataset_of_lfn
from storagering.catalog.gridlogs.values import RecordError

Step = Mapping[str, Any]


def flatten_report(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The report of a job as names and values: what its fields are called in `jobs.WMARCHIVE`.

    Raises:
        RecordError: it is no report of a job.
    """
    report = record["fwjr"] if isinstance(record.get("fwjr"), Mapping) else record
    steps = _steps(report.get("steps"))
    if not steps:
        raise RecordError("it is no job report: it has no steps")
    runs = [step for step in steps if str(step["name"]).startswith("cmsRun")] or steps
    code, where, what = _first_failure(steps)
    meta = _mapping(report.get("meta_data"))
    lfns = report.get("LFNArray")
    inputs = [name for step in runs for name in _input_names(step, lfns if isinstance(lfns, list) else [])]
    yield {
        "id": record.get("wmaid") or meta.get("fwjr_id") or record.get("uid") or record.get("id") or record.get("_id"),
        "task": report.get("task"),
        "time": meta.get("ts") or record.get("time_stamp") or record.get("wmats"),
        "start": min(_numbers(runs, "start"), default=None),
        "stop": max(_numbers(steps, "stop"), default=None),
        "state": meta.get("jobstate") or ("jobfailed" if code else "success"),
        "type": meta.get("jobtype"),
        "host": meta.get("host"),
        "site": next((step["site"] for step in (*runs, *steps) if step.get("site")), None),
        "exit_code": code,
        "exit_step": where,
        "error_type": what,
        "lfn": inputs[0] if inputs else None,
        "dataset": dataset_of_lfn(inputs[0]) if inputs else None,
        "input_files": len(inputs),
        **_outputs(runs),
        **_performance(report, runs),
    }


def _steps(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, Mapping):
        return [{"name": name, **step} for name, step in found.items() if isinstance(step, Mapping)]
    if isinstance(found, list):
        return [{"name": "", **step} for step in found if isinstance(step, Mapping)]
    return []


def _first_failure(steps: list[dict[str, Any]]) -> tuple[int, str | None, str | None]:
    """(exit code, step, kind of error): what cmsRun says counts more than what followed from it."""
    for step in sorted(steps, key=lambda step: not str(step["name"]).startswith("cmsRun")):
        errors = step.get("errors")
        for error in errors if isinstance(errors, list) else ():
            code = _number(_mapping(error).get("exitCode"))
            if code:
                return int(code), str(step["name"]), str(_mapping(error).get("type", ""))
        if status := _number(step.get("status")):
            return int(status), str(step["name"]), None
    return 0, None, None


def _input_names(step: Step, lfns: list[Any]) -> Iterator[str]:
    for source in _entries(step.get("input")):
        lfn = source.get("lfn")
        if isinstance(lfn, int) and 0 <= lfn < len(lfns):
            lfn = lfns[lfn]
        if isinstance(lfn, str):
            yield lfn


def _entries(found: Any) -> Iterator[Mapping[str, Any]]:
    """The files of an input or output, however deep they are: by module, in lists, as {outputModule, value}."""
    if isinstance(found, list):
        for one in found:
            yield from _entries(one.get("value") if isinstance(one, Mapping) and "outputModule" in one else one)
    elif isinstance(found, Mapping):
        if {"lfn", "outputLFNs", "events", "guid"} & found.keys():
            yield found
        else:
            yield from chain.from_iterable(map(_entries, found.values()))


def _outputs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    files = [one for step in runs for one in _entries(step.get("output"))]
    events = [_number(one.get("events")) or 0 for step in runs for one in _entries(step.get("input"))]
    made = [_number(one.get("events")) or 0 for one in files]
    return {
        "output_dataset": next((name for one in files if (name := _output_dataset(one))), None),
        "output_bytes": int(sum(_number(one.get("size")) or 0 for one in files)),
        "events": int(sum(events) or max(made, default=0)),
    }


def _output_dataset(one: Mapping[str, Any]) -> str | None:
    if isinstance(one.get("outputDataset"), str):
        return one["outputDataset"] or None
    found = _mapping(one.get("dataset"))
    parts = [found.get(name) for name in ("primaryDataset", "processedDataset", "dataTier")]
    return "/" + "/".join(map(str, parts)) if all(parts) else None


def _performance(report: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    def total(group: str, name: str) -> float | None:
        values = [_number(_mapping(_mapping(step.get("performance")).get(group)).get(name)) for step in runs]
        known = [value for value in values if value is not None and value >= 0]
        return sum(known) if known else None

    return {
        "wall_seconds": total("cpu", "TotalJobTime") or _mapping(report.get("WMTiming")).get("WMTotalWallClockTime"),
        "cpu_seconds": total("cpu", "TotalJobCPU"),
        "cores": total("cpu", "NumberOfThreads"),
        "read_mb": total("storage", "readTotalMB"),
        "read_seconds": total("storage", "readTotalSecs") or None,  # 0 where it was not measured
        "write_mb": total("storage", "writeTotalMB"),
        "memory_mb": total("memory", "PeakValueRss"),
    }


def _numbers(steps: list[dict[str, Any]], name: str) -> list[float]:
    return [value for step in steps if (value := _number(step.get(name)))]


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and abs(value) < 1e18 else None  # neither infinite nor NaN


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
