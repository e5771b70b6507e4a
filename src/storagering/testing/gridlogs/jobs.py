"""What HTCondor, JobMonitoring and WMArchive write down of jobs, with the fields that they really have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from storagering.testing.gridlogs.reads import envelope
from storagering.testing.gridlogs.world import Job

#: What JobMonitoring's records hold, all as text but for the times (dmwm/CMSSpark, schemas.py: schema_jm).
_JM_TEXTS = (
    "JobId FileName IsParentFile ProtocolUsed SuccessFlag FileType LumiRanges StrippedFiles BlockId StrippedBlocks "
    "BlockName InputCollection Application ApplicationVersion Type GenericType NewGenericType NewType SubmissionTool "
    "InputSE TargetCE SiteName SchedulerName JobMonitorId TaskJobId SchedulerJobIdV2 TaskId TaskMonitorId "
    "NEventsPerJob NTaskSteps JobExecExitCode WrapWC WrapCPU ExeCPU NCores NEvProc NEvReq WNHostName JobType UserId "
    "GridName"
)
JM_TEXTS = tuple(_JM_TEXTS.split())
JM_TIMES = ("JobExecExitTimeStamp", "StartedRunningTimeStamp", "FinishedTimeStamp")


def condor_records(job: Job) -> Iterator[dict[str, Any]]:
    """The ClassAd while the job runs and when it has ended (dmwm/CMSMonitoring, schemas/JobMonitoring.json)."""
    ad = {
        "GlobalJobId": f"crab3@vocms0120.cern.ch#{job.number}.0#{job.start - 600}",
        "ClusterId": job.number,
        "ProcId": 0,
        "CMS_JobType": "Analysis",
        "CMSPrimaryDataTier": job.dataset.tier,
        "CRAB_UserHN": job.user,
        "DESIRED_CMSDataset": job.dataset.name,
        "GLIDEIN_CMSSite": job.site,
        "InputData": "Onsite" if job.site == job.server else "Offsite",
        "JobStartDate": job.start,
        "JobUniverse": 5,
        "Owner": "cms1727",
        "QDate": job.start - 600,
        "RequestCpus": 1,
        "RequestMemory": 2500,
        "ScheddName": "crab3@vocms0120.cern.ch",
        "Site": job.site,
        "Type": "analysis",
        "VO": "cms",
        "Workflow": f"{job.user}_crab_task",
    }
    yield envelope(ad | {"JobStatus": 2, "Status": "Running", "RecordTime": job.start + 60}, "condor", job.start + 60)
    ad |= {
        "JobStatus": 4,
        "Status": "Completed",
        "RecordTime": job.stop,
        "CompletionDate": job.stop,
        "EnteredCurrentStatus": job.stop,
        "ExitCode": job.exit_code,
        "ExitBySignal": False,
        "RemoteWallClockTime": job.wall,
        "RemoteUserCpu": int(job.cpu * 0.98),
        "RemoteSysCpu": int(job.cpu * 0.02),
        "WallClockHr": job.wall / 3600,
        "CpuTimeHr": job.cpu / 3600,
        "CpuEff": 100 * job.cpu / job.wall,
        "MemoryMB": 1601.9,
        "ChirpCMSSWReadBytes": job.read_bytes,
        "ChirpCMSSWReadTimeMsecs": int(1000 * job.reading),
        "ChirpCMSSWEvents": 10_000,
    }
    yield envelope(ad, "condor", job.stop)


def jm_record(job: Job) -> dict[str, Any]:
    """A job and the file that it read."""
    record: dict[str, Any] = dict.fromkeys(JM_TEXTS, "unknown")
    record |= {
        "JobId": str(1_672_000_000 + job.number),
        "FileName": "/" + job.lfn,
        "IsParentFile": "0",
        "ProtocolUsed": "Local" if job.site == job.server else "Remote",
        "SuccessFlag": "1",
        "FileType": "EDM",
        "BlockName": f"{job.dataset.name}#block-{job.number % 5}",
        "InputCollection": job.dataset.name,
        "Application": "CMSSW",
        "Type": "analysis",
        "SubmissionTool": "crab3",
        "SiteName": job.site,
        "TaskMonitorId": f"180101_120000:{job.user}_crab_task",
        "JobExecExitCode": str(job.exit_code),
        "WrapWC": str(job.wall),
        "WrapCPU": f"{job.cpu:.1f}",
        "ExeCPU": "0",
        "NCores": "1",
        "NEvProc": "10000",
        "UserId": str(1000 + int(job.user.removeprefix("user"))),
    }
    return record | {
        "JobExecExitTimeStamp": job.stop * 1000,
        "StartedRunningTimeStamp": job.start * 1000,
        "FinishedTimeStamp": job.stop * 1000,
    }


def report(job: Job) -> dict[str, Any]:
    """A framework job report as WMArchive keeps it in Avro; of jobs without an error (see `avro.report_schema`)."""
    blank = {"stageOut1": _step(job), "logArch1": _step(job)}
    output = {
        **dict.fromkeys(("branch_hash", "lfn", "InputPFN", "guid", "acquisitionEra", "configURL", "validStatus"), ""),
        **dict.fromkeys(("ouput_module_class", "globalTag", "pfn", "catalog", "module_label", "inputPath"), ""),
        **dict.fromkeys(
            ("StageOutCommand", "OutputPFN", "user_vogroup", "user_vorole", "processingStr", "prep_id"), ""
        ),
        **dict.fromkeys(("user_dn", "location", "async_dest")),
        "dataset": {
            "applicationName": "cmsRun",
            "dataTier": "MINIAOD",
            "primaryDataset": "Charmonium",
            "processedDataset": "Run2017F-31Mar2018-v1",
            "applicationVersion": "CMSSW_9_4_0",
        },
        "checksums": {"adler32": "7c8c3a85", "cksum": "2119238509"},
        "size": job.read_bytes // 10,
        "input": [job.lfn],
        "events": 800,
        "merged": 1,
        "inputpfns": [f"root://xrd.example.org/{job.lfn}"],
        "runs": [{"runNumber": 1, "lumis": [10, 11]}],
        "processingVer": 1,
    }
    source = {
        **dict.fromkeys(("pfn", "catalog", "guid"), ""),
        "runs": [{"runNumber": 1, "lumis": [10, 11]}],
        "input_source_class": "PoolSource",
        "input_type": "primaryFiles",
        "lfn": job.lfn,
        "module_label": "source",
        "events": 1000,
    }
    run = _step(job) | {
        "performance": _performance(job),
        "output": [{"outputModule": "Merged", "value": [output]}],
        "input": {"source": [source]},
    }
    meta = {"agent_ver": "1.0.16", "fwjr_id": f"{job.number}-0", "host": "vocms001.cern.ch", "ts": job.stop + 60}
    return {
        "task": f"/pdmvserv_task_{job.dataset.tier}/DataProcessing",
        "skippedFiles": [],
        "fallbackFiles": [],
        "wmaid": f"{job.number:032x}",
        "wmats": float(job.stop + 120),
        "meta_data": meta,
        "steps": blank | {"cmsRun1": run},
        "stype": "avroio",
    }


def failed_report(job: Job) -> dict[str, Any]:
    """The report of a job that failed, as WMArchive has it in JSON: steps in a list, file names by number."""
    full = report(job)
    steps = [{"name": name} | step for name, step in full["steps"].items()]
    run = steps[-1]
    error = {"type": "Fatal Exception", "details": "An exception occurred", "exitCode": str(job.exit_code)}
    run |= {"status": job.exit_code, "errors": [error], "output": []}
    run["input"] = [run["input"]["source"][0] | {"lfn": 0}]
    arrays = {"LFNArray": [job.lfn], "LFNArrayRef": ["lfn", "inputLFNs"], "PFNArray": [], "PFNArrayRef": ["inputPFNs"]}
    meta = full["meta_data"] | {"jobstate": "jobfailed", "jobtype": "Processing"}
    return {k: v for k, v in full.items() if k not in ("wmaid", "wmats")} | arrays | {"meta_data": meta, "steps": steps}


def _step(job: Job) -> dict[str, Any]:
    empty: dict[str, Any] = {"multicore": {}, "storage": {}, "cpu": {}, "memory": {}}
    return {
        "status": 0,
        "errors": [],
        "logs": {},
        "parameters": {},
        "start": job.start,
        "stop": job.stop,
        "site": f"{job.site}_Disk" if job.site.startswith("T1") else job.site,
        "analysis": {},
        "performance": empty,
        "cleanup": {},
        "output": [],
        "input": {},
    }


def _performance(job: Job) -> dict[str, Any]:
    storage = dict.fromkeys(
        (
            "writeTotalMB", "readPercentageOps", "readAveragekB", "readNumOps", "readCachePercentageOps", "readMBSec",
            "readMaxMSec", "writeTotalSecs",
        ),
        1.0,
    )  # fmt: skip
    cpu = dict.fromkeys(
        ("TotalEventCPU", "AvgEventCPU", "AvgEventTime", "MinEventCPU", "MaxEventTime", "MinEventTime", "MaxEventCPU"),
        1.0,
    )
    return {
        "multicore": {},
        "storage": storage | {"readTotalMB": job.read_bytes / (1 << 20), "readTotalSecs": job.reading},
        "cpu": cpu | {"TotalJobCPU": job.cpu, "TotalJobTime": float(job.wall)},
        "memory": {"PeakValueRss": 771.7, "PeakValueVsize": 979.2},
    }
