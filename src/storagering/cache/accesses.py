"""Who read which dataset, and what was trained on it: lines of the journals (see `storagering.cache.journal`)."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec

from storagering.cache.journal import append
from storagering.cache.layout import Cache
from storagering.cache.leases import this_process
from storagering.cache.manifest import software
from storagering.types import Manifest
from storagering.urls import redact_urls_in

#: Kinds of journals.
ACCESSES, TRAININGS = "accesses", "trainings"
_TEXT_LENGTH = 1000
#: Where batch systems say which job this is.
_JOB_VARIABLES = {"SLURM_JOB_ID": "slurm", "PBS_JOBID": "pbs", "LSB_JOBID": "lsf", "FLUX_JOB_ID": "flux"}
_CONDOR_VARIABLE, _CONDOR_BYTES = "_CONDOR_JOB_AD", 1 << 20

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Somebody has read a dataset: a loader an epoch or a part of one, or a query, `Dataset.arrays` or an export.

    Attributes:
        time: when it ended.
        version, digest: of the dataset; None if it was not complete.
        job: of the batch system, as ``slurm:4711``; None outside of one.
        purpose: ``loader``, ``sql``, ``arrays`` or ``export``.
        columns: that were read.
        entries: that were delivered.
        nbytes: that were read, as they are stored; of an exact shuffle what its entries take on average.
        tier: ``disk``, or ``ram`` if most chunks came from there.
        hits: uses of chunks that were there; a chunk counts once for each window, or scan, that it is used in.
        misses: chunks that had to be fetched or made.
        epoch: of a loader, None otherwise.
        seconds: from its begin to its end; of an epoch with what the training did meanwhile.
    """

    time: Moment
    dataset: str
    version: Count | None
    digest: str | None
    user: str
    host: str
    pid: Count
    job: str | None
    purpose: str
    columns: tuple[str, ...]
    entries: Count
    nbytes: Count
    tier: str
    hits: Count
    misses: Count
    epoch: Count | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training has ended, or was interrupted.

    Attributes:
        time: when it did.
        id: the same for all parts of a training that was interrupted and resumed, and for no other.
        run: its output folder.
        epochs: that are complete, by all parts.
        seconds: spent training, by all parts.
        metrics: by name; ``loss`` is that of the last complete epoch.
        finished: whether nothing of it is left to be done.
    """

    time: Moment
    id: str
    recipe: str
    model: str
    dataset: str
    version: Count | None
    digest: str | None
    run: str
    epochs: Count
    seconds: float
    metrics: dict[str, float]
    seed: int
    user: str
    host: str
    software: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read of a dataset: see `Access`."""

    entries: int
    nbytes: int
    hits: int
    misses: int
    tier: str = "disk"


def note_access(
    cache: Cache,
    dataset: Manifest | str,
    purpose: str,
    columns: Sequence[str],
    taken: Taken,
    *,
    seconds: float,
    epoch: int | None = None,
) -> bool:
    """Note that a dataset was read; see `append`.

    Args:
        dataset: its manifest, or its name while it has none.
    """
    if not cache.settings.journal or sys.is_finalizing():  # modules are gone that this needs
        return False
    pid, manifest = os.getpid(), None if isinstance(dataset, str) else dataset
    user, host, job = _who(pid)
    found = Access(
        time=datetime.now(UTC),
        dataset=_shown(dataset if isinstance(dataset, str) else dataset.name),
        version=None if manifest is None else manifest.version,
        digest=None if manifest is None else manifest.digest,
        user=user,
        host=host,
        pid=pid,
        job=job,
        purpose=purpose,
        columns=tuple(map(_shown, columns)),
        entries=taken.entries,
        nbytes=taken.nbytes,
        tier=taken.tier,
        hits=taken.hits,
        misses=taken.misses,
        epoch=epoch,
        seconds=seconds,
    )
    return append(cache, ACCESSES, found)


def note_training(
    cache: Cache,
    manifest: Manifest,
    *,
    id: str,  # noqa: A002  (as the column)
    recipe: str,
    model: str,
    run: Path,
    epochs: int,
    seconds: float,
    metrics: Mapping[str, float],
    seed: int,
    finished: bool,
) -> bool:
    """Note that a training ended; metrics that are no numbers are left out. See `append` and `Training`."""
    if not cache.settings.journal:
        return False
    user, host, _ = _who(os.getpid())
    found = Training(
        time=datetime.now(UTC),
        id=id,
        recipe=_shown(recipe),
        model=_shown(model),
        dataset=_shown(manifest.name),
        version=manifest.version,
        digest=manifest.digest,
        run=_shown(str(run)),
        epochs=epochs,
        seconds=seconds,
        metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
        seed=seed,
        user=user,
        host=host,
        software=software(),
        finished=finished,
    )
    return append(cache, TRAININGS, found)


@lru_cache(maxsize=1)
def _who(pid: int) -> tuple[str, str, str | None]:  # noqa: ARG001  (a forked process may be told of another job)
    """User, host and job of this process."""
    me = this_process("")
    return _shown(me.user), _shown(me.host), find_job(os.environ)


def find_job(environment: Mapping[str, str]) -> str | None:
    """The job of a batch system that this process belongs to: ``slurm:4711``, ``condor:4711.0``."""
    for variable, system in _JOB_VARIABLES.items():
        if environment.get(variable):
            return f"{system}:{_shown(environment[variable])}"
    if path := environment.get(_CONDOR_VARIABLE):
        return _condor_job(Path(path))
    return None


def _condor_job(path: Path) -> str | None:
    """Cluster and process in HTCondor's description of the job."""
    try:
        with path.open(errors="replace") as file:
            lines = file.read(_CONDOR_BYTES).splitlines()
    except OSError:
        return None
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    cluster, process = found.get("clusterid", ""), found.get("procid", "0")
    return f"condor:{cluster}.{process}" if cluster.isdecimal() and process.isdecimal() else None


def _shown(text: str) -> str:
    """Without secrets, in bounds, and fit for JSON."""
    if text.isascii() and "://" not in text and len(text) <= _TEXT_LENGTH:  # as columns are: all of this is for others
        return text
    return redact_urls_in(text)[:_TEXT_LENGTH].encode("utf-8", "replace").decode()
