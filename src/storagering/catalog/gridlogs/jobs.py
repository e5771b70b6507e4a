"""Kinds of logs about jobs: HTCondor, JobMonitoring, WMArchive."""

from __future__ import annotations

from storagering.catalog.gridlogs.kinds import Kind, field
from storagering.catalog.gridlogs.reports import flatten_report
from storagering.catalog.gridlogs.values import FLOAT, INT, TEXT, TIME

_HOUR = 3600.0

CONDOR = Kind(
    "condor",
    "ClassAds of jobs of the HTCondor pools, raw or with what CMS's monitoring adds",
    "dmwm/CMSMonitoring, schemas/JobMonitoring.json; HTCondor manual, job ClassAd attributes",
    (
        field("id", TEXT, "GlobalJobId"),
        field("time", TIME, "RecordTime", "EnteredCurrentStatus", "CompletionDate"),
        field("queued", TIME, "QDate"),
        field("start", TIME, "JobStartDate", "JobCurrentStartDate"),
        field("stop", TIME, "CompletionDate", "EnteredCurrentStatus"),
        field("status", INT, "JobStatus"),
        field("exit_code", INT, "ExitCode", "Chirp_CRAB3_Job_ExitCode", "JobExitCode"),
        field("exit_reason", TEXT, "ExitReason", "RemoveReason"),
        field("site", TEXT, "Site", "MATCH_GLIDEIN_CMSSite", "GLIDEIN_CMSSite", "MachineAttrGLIDEIN_CMSSite0"),
        field("dataset", TEXT, "DESIRED_CMSDataset"),
        field("data_tier", TEXT, "CMSPrimaryDataTier"),
        field("owner", TEXT, "CRAB_UserHN", "Owner", "User"),
        field("type", TEXT, "CMS_JobType", "Type", "TaskType"),
        field("workflow", TEXT, "Workflow", "CRAB_Workflow", "WMAgent_RequestName"),
        field("schedd", TEXT, "ScheddName"),
        field("cores", INT, "RequestCpus"),
        field("wall_seconds", FLOAT, "RemoteWallClockTime", ("WallClockHr", _HOUR)),
        field("user_cpu_seconds", FLOAT, "RemoteUserCpu"),
        field("system_cpu_seconds", FLOAT, "RemoteSysCpu"),
        field("cpu_seconds", FLOAT, ("CpuTimeHr", _HOUR)),
        field("memory_mb", FLOAT, "MemoryMB", "MemoryUsage", ("ResidentSetSize", 1 / 1024)),
        field("read_bytes", INT, "ChirpCMSSWReadBytes", "ChirpCMSSW_cmsRun_ReadBytes", ("InputGB", 1e9)),
        field("read_seconds", FLOAT, ("ChirpCMSSWReadTimeMsecs", 1e-3), ("ChirpCMSSW_cmsRun_ReadTimeMsecs", 1e-3)),
        field("events", INT, "ChirpCMSSWEvents", "ChirpCMSSW_cmsRun_Events"),
        field("input_place", TEXT, "InputData"),
    ),
    needs=(("id",), ("status",), ("time", "queued")),
)

JOBMONITORING = Kind(
    "jobmonitoring",
    "jobs, and the files they read, as the job monitoring of CMS has them",
    "dmwm/CMSSpark, schemas.py: schema_jm; dmwm/CMSMonitoring, schemas/JobMonitoring.json",
    (
        field("id", TEXT, "JobId", "GlobalJobId"),
        field("start", TIME, "StartedRunningTimeStamp", "JobStartDate", "JobCurrentStartDate"),
        field("stop", TIME, "FinishedTimeStamp", "JobExecExitTimeStamp", "CompletionDate"),
        field("lfn", TEXT, "FileName"),
        field("dataset", TEXT, "InputCollection", "DESIRED_CMSDataset"),
        field("data_tier", TEXT, "CMSPrimaryDataTier"),
        field("block", TEXT, "BlockName", "CRAB_DataBlock"),
        field("protocol", TEXT, "ProtocolUsed"),
        field("file_read", INT, "SuccessFlag"),
        field("site", TEXT, "SiteName", "CMSSite", "Site"),
        field("exit_code", INT, "JobExecExitCode", "ExitCode"),
        field("owner", TEXT, "UserId", "CRAB_UserHN", "Owner"),
        field("type", TEXT, "Type", "CMS_JobType"),
        field("tool", TEXT, "SubmissionTool", "CMS_SubmissionTool"),
        field("task", TEXT, "TaskMonitorId", "Workflow"),
        field("cores", INT, "NCores", "RequestCpus"),
        field("wall_seconds", FLOAT, "WrapWC", ("WallClockHr", _HOUR)),
        field("cpu_seconds", FLOAT, "WrapCPU", ("CpuTimeHr", _HOUR)),
        field("read_bytes", INT, ("InputGB", 1e9)),
        field("read_seconds", FLOAT, ("ReadTimeHrs", _HOUR)),
        field("events", INT, "NEvProc", "ChirpCMSSWEvents"),
    ),
    needs=(("id",), ("site",), ("exit_code",), ("wall_seconds",)),
)

WMARCHIVE = Kind(
    "wmarchive",
    "framework job reports of the workload management",
    "dmwm/WMArchive, framework job reports and their Avro schema",
    (
        field("id", TEXT),
        field("task", TEXT),
        field("time", TIME),
        field("start", TIME),
        field("stop", TIME),
        field("state", TEXT),
        field("type", TEXT),
        field("host", TEXT),
        field("site", TEXT),
        field("exit_code", INT),
        field("exit_step", TEXT),
        field("error_type", TEXT),
        field("lfn", TEXT),
        field("dataset", TEXT),
        field("data_tier", TEXT),
        field("output_dataset", TEXT),
        field("input_files", INT),
        field("output_bytes", INT),
        field("events", INT),
        field("cores", INT),
        field("wall_seconds", FLOAT),
        field("cpu_seconds", FLOAT),
        field("read_bytes", INT, ("read_mb", 1 << 20)),
        field("read_seconds", FLOAT),
        field("write_bytes", INT, ("write_mb", 1 << 20)),
        field("memory_mb", FLOAT),
    ),
    needs=(("task",), ("id", "time")),
    prepare=flatten_report,
)
