"""SQL over the imported logs: what all kinds have in common, and five questions that sites and experiments ask.

Logs of several kinds may tell of the same read or job (CMSSW, XRootD and EOS each write down an opened file), so sums
are kept apart by ``kind``. "Now" is the latest time in the logs, which may be old.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Of several records of one transfer or job (its state at several times, a file imported twice) the last counts.
_LAST = "QUALIFY id IS NULL OR row_number() OVER (PARTITION BY kind, id ORDER BY coalesce(stop, start) DESC) = 1"
_JM_LAST = "row_number() OVER (PARTITION BY id ORDER BY stop DESC) = 1"

_TRANSFERS = f"""
SELECT * FROM (
    SELECT 'xrootd' AS kind, id, start, stop, lfn, dataset, data_tier, coalesce(server_site, server_domain) AS source,
        coalesce(client_site, client_domain) AS destination, owner,
        greatest(coalesce(read_bytes, 0), coalesce(read_bytes_at_close, 0))
            + greatest(coalesce(write_bytes, 0), coalesce(write_bytes_at_close, 0)) AS nbytes,
        seconds, remote, NULL::BOOLEAN AS failed, NULL::VARCHAR AS error
    FROM log_xrootd
    UNION ALL BY NAME
    SELECT 'cmssw' AS kind, id, start, stop, lfn, dataset, data_tier, server_domain AS source, site AS destination,
        greatest(coalesce(read_bytes, 0), coalesce(read_bytes_at_close, 0)) AS nbytes,
        epoch(stop) - epoch(start) AS seconds, server_domain <> client_domain AS remote
    FROM log_cmssw
    UNION ALL BY NAME
    SELECT 'eos' AS kind, id, start, stop, lfn, dataset, data_tier,
        CASE WHEN server_host LIKE '%.cern.ch' THEN 'T2_CH_CERN' ELSE server_host END AS source,
        client_host AS destination, owner, coalesce(read_bytes, 0) + coalesce(write_bytes, 0) AS nbytes,
        epoch(stop) - epoch(start) AS seconds
    FROM log_eos
    UNION ALL BY NAME
    SELECT 'fts' AS kind, id, start, stop, lfn, dataset, data_tier, source, destination,
        coalesce(moved_bytes, file_bytes, 0) AS nbytes, epoch(stop) - epoch(start) AS seconds, true AS remote,
        lower(state) <> 'ok' AS failed, coalesce(error_category, error) AS error
    FROM log_fts
    UNION ALL BY NAME
    SELECT 'aso' AS kind, id, start, coalesce(stop, updated) AS stop, lfn, dataset, data_tier, source, destination,
        owner, CASE state WHEN 3 THEN coalesce(file_bytes, 0) ELSE 0 END AS nbytes,
        epoch(coalesce(stop, updated)) - epoch(start) AS seconds, source <> destination AS remote,
        state = 2 AS failed, error
    FROM log_aso WHERE state IN (2, 3)
) {_LAST}"""  # noqa: S608  (fixed text)

_JOBS = f"""
SELECT * FROM (
    SELECT 'condor' AS kind, id, start, coalesce(stop, time) AS stop, site, dataset, data_tier, owner, type,
        status = 3 OR coalesce(exit_code, 0) <> 0 AS failed, exit_code, coalesce(cores, 1) AS cores,
        coalesce(cpu_seconds, user_cpu_seconds + system_cpu_seconds) AS cpu_seconds, wall_seconds, read_bytes,
        read_seconds, events
    FROM log_condor WHERE status IN (3, 4)
    UNION ALL BY NAME
    SELECT 'jobmonitoring' AS kind, id, start, stop, site, dataset, data_tier, owner, type, exit_code <> 0 AS failed,
        exit_code, coalesce(cores, 1) AS cores, cpu_seconds, wall_seconds, read_bytes, read_seconds, events
    FROM log_jobmonitoring QUALIFY {_JM_LAST}
    UNION ALL BY NAME
    SELECT 'wmarchive' AS kind, id, start, coalesce(stop, time) AS stop, site, dataset, data_tier, type,
        exit_code <> 0 OR state = 'jobfailed' AS failed, exit_code, coalesce(cores, 1) AS cores, cpu_seconds,
        wall_seconds, read_bytes, read_seconds, events
    FROM log_wmarchive
) {_LAST}"""  # noqa: S608  (fixed text)

_ACCESSES = """
SELECT kind, start AS time, dataset, data_tier, destination AS site, owner, nbytes, remote
FROM log_transfers WHERE kind IN ('xrootd', 'cmssw', 'eos') AND dataset IS NOT NULL AND nbytes > 0
UNION ALL BY NAME
SELECT 'jobmonitoring' AS kind, start AS time, dataset, data_tier, site, owner, read_bytes AS nbytes,
    lower(protocol) = 'remote' AS remote
FROM log_jobmonitoring WHERE dataset IS NOT NULL
UNION ALL BY NAME
SELECT kind, coalesce(start, stop) AS time, dataset, data_tier, site, owner, read_bytes AS nbytes, NULL AS remote
FROM log_jobs WHERE kind IN ('condor', 'wmarchive') AND dataset IS NOT NULL"""

_REPLICAS = """
SELECT dataset, any_value(data_tier) AS data_tier, site, sum(nbytes)::BIGINT AS nbytes, sum(files)::BIGINT AS files,
    min(created) AS created, max(time) AS time
FROM log_phedex
WHERE nbytes > 0 AND time > (SELECT max(time) FROM log_phedex) - INTERVAL 1 DAY
GROUP BY dataset, site"""

#: What all kinds of logs say of transfers, jobs, accesses to datasets, and replicas.
JOINED: Mapping[str, str] = {
    "log_transfers": _TRANSFERS,
    "log_jobs": _JOBS,
    "log_accesses": _ACCESSES,
    "log_replicas": _REPLICAS,
}

_SITE_TRAFFIC = """
SELECT site, dataset, kind, count(*) AS transfers, sum(sent)::BIGINT AS sent_bytes,
    sum(received)::BIGINT AS received_bytes,
    sum(CASE WHEN remote THEN sent + received ELSE 0 END)::BIGINT AS remote_bytes,
    min(start) AS first, max(stop) AS last
FROM (
    SELECT kind, source AS site, dataset, nbytes AS sent, 0 AS received, remote, start, stop FROM log_transfers
    UNION ALL
    SELECT kind, destination, dataset, 0, nbytes, remote, start, stop FROM log_transfers
)
WHERE site IS NOT NULL
GROUP BY site, dataset, kind
ORDER BY sum(sent + received) DESC, site, dataset, kind"""

#: The lower end of Wilson's 95 % interval: few jobs that all fail do not go before many that often do.
_AT_LEAST = """(rate + 1.9208 / n - 1.96 * sqrt(rate * (1 - rate) / n + 0.9604 / (n * n))) / (1 + 3.8416 / n)"""

_FAILURES = f"""
SELECT site, what, kind, n AS total, failed, rate AS failure_rate, greatest(0, {_AT_LEAST}) AS at_least, most_frequent
FROM (
    SELECT site, 'jobs' AS what, kind, count(*) AS n, count(*) FILTER (failed) AS failed,
        avg(failed::INT) AS rate, mode(exit_code) FILTER (failed)::VARCHAR AS most_frequent
    FROM log_jobs WHERE site IS NOT NULL AND failed IS NOT NULL GROUP BY site, kind
    UNION ALL
    SELECT site, direction, kind, count(*), count(*) FILTER (failed), avg(failed::INT), mode(error) FILTER (failed)
    FROM (
        SELECT source AS site, 'transfers from' AS direction, kind, failed, error FROM log_transfers
        UNION ALL
        SELECT destination, 'transfers to', kind, failed, error FROM log_transfers
    )
    WHERE site IS NOT NULL AND failed IS NOT NULL GROUP BY site, direction, kind
)
ORDER BY at_least DESC, total DESC, site"""  # noqa: S608  (fixed text)

_COLD = """
WITH newest AS (
    SELECT greatest((SELECT max(time) FROM log_accesses), (SELECT max(time) FROM log_replicas)) AS time
), used AS (
    SELECT dataset, max(last) AS last_access, max(number) AS accesses
    FROM (SELECT dataset, max(time) AS last, count(*) AS number FROM log_accesses GROUP BY dataset, kind)
    GROUP BY dataset
)
SELECT r.dataset, any_value(r.data_tier) AS data_tier, list(r.site ORDER BY r.site) AS sites,
    sum(r.nbytes)::BIGINT AS nbytes, min(r.created) AS created, any_value(u.last_access) AS last_access,
    coalesce(any_value(u.accesses), 0) AS accesses,
    floor((epoch(any_value(n.time)) - epoch(coalesce(any_value(u.last_access), min(r.created)))) / 86400)::BIGINT
        AS idle_days
FROM log_replicas r CROSS JOIN newest n LEFT JOIN used u ON u.dataset = r.dataset
GROUP BY r.dataset
HAVING coalesce(any_value(u.last_access), min(r.created)) < any_value(n.time) - INTERVAL 90 DAY
ORDER BY nbytes DESC, r.dataset"""

_HOT = """
WITH newest AS (SELECT max(time) AS time FROM log_accesses),
replicas AS (SELECT dataset, list(DISTINCT site ORDER BY site) AS sites FROM log_replicas GROUP BY dataset)
SELECT a.dataset, any_value(a.data_tier) AS data_tier, a.site, a.kind, count(*) AS accesses,
    sum(a.nbytes)::BIGINT AS nbytes, count(DISTINCT a.owner) AS owners, any_value(r.sites) AS replicas
FROM log_accesses a CROSS JOIN newest n LEFT JOIN replicas r ON r.dataset = a.dataset
WHERE a.time > n.time - INTERVAL 28 DAY AND a.site IS NOT NULL
    AND NOT list_contains(coalesce(r.sites, []), a.site) AND a.remote IS DISTINCT FROM false
GROUP BY a.dataset, a.site, a.kind
HAVING count(*) >= 10
ORDER BY accesses DESC, nbytes DESC, a.dataset, a.site"""

_CPU = """
SELECT site, kind, CASE WHEN grouping(low) = 0 THEN low END AS mb_per_second_from,
    CASE WHEN grouping(low) = 0 THEN 2 * low END AS mb_per_second_to, count(*) AS jobs,
    sum(cpu_seconds) / sum(wall_seconds * cores) AS cpu_efficiency, median(rate) AS mb_per_second,
    sum(read_seconds) / sum(wall_seconds) FILTER (read_seconds IS NOT NULL) AS waiting_share
FROM (
    SELECT *, CASE WHEN rate > 0 THEN pow(2, floor(log2(rate))) ELSE 0 END AS low
    FROM (
        SELECT site, kind, cpu_seconds, wall_seconds, cores, read_seconds,
            read_bytes / 1e6 / coalesce(nullif(read_seconds, 0), wall_seconds) AS rate
        FROM log_jobs
        WHERE NOT failed AND wall_seconds > 0 AND cpu_seconds IS NOT NULL AND read_bytes > 0 AND site IS NOT NULL
    )
)
GROUP BY GROUPING SETS ((site, kind), (site, kind, low))
ORDER BY site, kind, grouping(low) DESC, low"""

#: The named questions: how much goes through each site, what fails where, what nobody reads, what is read from
#: afar though it is popular, and whether jobs wait for their data.
INSIGHTS: Mapping[str, str] = {
    "insight_site_traffic": _SITE_TRAFFIC,
    "insight_failures": _FAILURES,
    "insight_cold": _COLD,
    "insight_hot_without_replica": _HOT,
    "insight_cpu_efficiency": _CPU,
}
