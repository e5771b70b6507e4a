"""Building a dataset: inspect, plan, run, and publish by one rename."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from storagering.cache.build_space import BuildSpace
from storagering.cache.finished import BuiltChunks, FinishedTasks, key_tasks
from storagering.cache.first_epoch import MIXED_SOURCES, plan_first_epoch, write_first_epoch
from storagering.cache.fit import fit_inspection, fit_plan
from storagering.cache.inspection import Inspection, inspect_sources, without_columns, without_source
from storagering.cache.layout import Cache
from storagering.cache.manifest import spec_key
from storagering.cache.messages import Task
from storagering.cache.mixed_build import mix_outcome
from storagering.cache.opened import KeptSource
from storagering.cache.pool import run_tasks
from storagering.cache.progress import BuildProgress
from storagering.cache.publish import Outcome, assemble_dataset
from storagering.cache.run import Run
from storagering.cache.sketches import Sketches
from storagering.cache.source_state import check_unchanged
from storagering.cache.tasks import BuildPlan, plan_build
from storagering.cache.turns import turn_to_build
from storagering.cache.unfinished import FirstEpoch, Outline, count_finished, read_outline, write_outline
from storagering.errors import (
    CacheError,
    ChecksumError,
    CorruptDataError,
    FormatError,
    LockTimeoutError,
    NotFoundError,
    SourceError,
    SpecError,
    StorageringError,
    VersionError,
)
from storagering.files import publish_directory, read_file, remove_directory, replace_file, sync_directory
from storagering.formats.source import Location, UnreadableColumnsError
from storagering.types import ConversionSpec, Manifest, sha256_hex

PROCESSES = "processes"
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^\s/@]+:\d+")

_SPOOL_NAME = "spool"
_DATASET_NAME = "dataset"
_UNREADABLE_NAME = "unreadable.json"
_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class Job:
    """What is to be built.

    Attributes:
        locations: where ``spec.sources`` are, with whatever secrets that needs.
        scheduler: ``processes`` or the address of a dask scheduler.
        into: the dataset that the chunks are to be added to, None for a new one.
        seed: of the order in which the tasks are done, for those who read them meanwhile; None for that of the dataset.
    """

    name: str
    spec: ConversionSpec
    locations: Sequence[Location] = field(repr=False)
    scheduler: str = PROCESSES
    into: Manifest | None = None
    seed: int | None = None

    @property
    def key(self) -> str:
        """Which builds of that name can go on from each other's work; their tasks may differ all the same."""
        shape = replace(self.spec, sources=(), on_bad_column="skip", on_bad_source="skip")
        return sha256_hex(f"{spec_key(shape)} {self.into.digest if self.into else ''}".encode())[:16]


def check_scheduler(scheduler: str) -> str:
    """The scheduler itself, if it is ``processes`` or an address.

    Raises:
        SpecError: it is neither.
    """
    if scheduler != PROCESSES and not _ADDRESS.fullmatch(scheduler):
        raise SpecError(f"scheduler {scheduler!r}: write 'processes', or an address as dask gives it, tcp://host:port")
    return scheduler


def build_dataset(cache: Cache, job: Job, progress: BuildProgress) -> tuple[Manifest, bool]:
    """The dataset of that name and spec: built, or as it is already there.

    What an interrupted build of it has finished is taken over. A dataset whose manifest is damaged is put into
    quarantine, and built anew.

    Returns:
        The manifest, and whether it was built by this call.

    Raises:
        SpecError: the name is taken by a dataset of another spec (lists the differences).
        SourceChangedError: it is there, but a source has changed since.
        StorageringError: whatever reading or writing raises; finished tasks are kept for the next time.
    """
    with suppress(CacheError):  # a cache that cannot be written may still hold the dataset
        cache.reclaim()
    with suppress(ChecksumError, FormatError):  # it is looked at again when nobody else may be mending it
        existing = find_dataset(cache, job)
        if existing is not None:
            return existing, False
    with turn_to_build(cache, job.name, progress) as alone:
        existing = _existing_or_aside(cache, job, progress)  # the holder we waited for may have built it
        if existing is not None:
            return existing, False
        _clear_target(cache, job.name, progress, alone=alone)
        key = job.key if alone else f"{job.key}-{secrets.token_hex(4)}"
        with ExitStack() as stack:
            staging = stack.enter_context(cache.staging(job.name, key, keep_others=not alone))
            if not alone:  # nobody could go on from there
                stack.callback(remove_directory, staging)
            space = stack.enter_context(closing(BuildSpace(cache, job.name, staging)))
            outcome = run_job(cache, job, staging, space, progress, is_kept=alone)
            manifest = assemble_dataset(job.name, outcome, staging / _DATASET_NAME)
            if (outline := read_outline(staging)) and outline.first_epoch:
                write_first_epoch(staging / _DATASET_NAME, manifest.digest, outline.first_epoch)
            space.announce()
            published = _publish(cache, staging / _DATASET_NAME, manifest)
            if published:
                space.publish(manifest)
            with suppress(CacheError):  # a later build removes what is left
                remove_directory(staging)
        return (manifest, True) if published else (find_dataset(cache, job) or cache.manifest(job.name), False)


def _clear_target(cache: Cache, name: str, progress: BuildProgress, *, alone: bool) -> None:
    """Move what is in the way of a dataset and is none into quarantine; it may be somebody's.

    An empty one is no obstacle. Nothing is ever published in place of another one, so what holds something
    but no manifest is no dataset, and will be none until it is removed here.

    Raises:
        LockTimeoutError: somebody else has the turn, and may be about to remove it.
    """
    folder = cache.path(name)
    if folder.is_dir() and any(folder.iterdir()) and not cache.contains(name):
        if not alone:
            raise LockTimeoutError(f"{folder} is in the way of dataset {name!r}, and is none: remove it")
        progress.tell(f"{folder} is no dataset: it is moved to {cache.put_aside(name)}")


def _publish(cache: Cache, folder: Path, manifest: Manifest) -> bool:
    """Give a complete dataset its name; whether it got it."""
    try:
        return publish_directory(folder, cache.path(manifest.name))
    except CacheError:
        if not cache.holds(manifest):
            raise
    with suppress(CacheError):  # it is there; should a power cut take it away, it is built again
        sync_directory(cache.path(manifest.name).parent)
    return True


def _existing_or_aside(cache: Cache, job: Job, progress: BuildProgress) -> Manifest | None:
    """The dataset as it is there; one whose manifest is damaged is put aside, to be built anew."""
    try:
        return find_dataset(cache, job)
    except VersionError:
        raise
    except (ChecksumError, FormatError) as error:
        progress.tell(f"{error}: put into {cache.put_aside(job.name)}, and built anew")
        return None


def find_dataset(cache: Cache, job: Job) -> Manifest | None:
    """The dataset that a job would make, None if it is not there yet; raises as `build_dataset`."""
    name, spec = job.name, job.spec
    if not cache.contains(name):
        return None
    manifest = cache.manifest(name)
    if manifest.spec_key != spec_key(spec):
        raise SpecError(
            f"dataset {name!r} is there already, made otherwise ({_differences(manifest.spec, spec)}); "
            f"choose another --name, or 'storagering remove {name}' first"
        )
    check_unchanged(manifest, job.locations, cache.settings)
    return manifest


def _differences(old: ConversionSpec, new: ConversionSpec) -> str:
    fields = [f for f in ConversionSpec.__dataclass_fields__ if getattr(old, f) != getattr(new, f)]
    shown = [f"{f}: {str(getattr(old, f))[:80]} there, {str(getattr(new, f))[:80]} asked for" for f in fields[:3]]
    return "; ".join(shown)


def run_job(
    cache: Cache, job: Job, staging: Path, space: BuildSpace, progress: BuildProgress, *, is_kept: bool = True
) -> Outcome:
    """Write all chunks into the staging folder; starts over without a column that fails half way.

    Args:
        is_kept: whether the next run finds the folder.
    """
    spool = str(staging / _SPOOL_NAME)
    settings = replace(cache.settings, fill_absent_chunks=job.spec.fill_absent_chunks)
    kept = KeptSource()
    try:
        inspection = inspect_sources(job.locations, job.spec, settings, spool, kept)
        if job.into is not None:
            inspection = fit_inspection(inspection, job.into)
        state = _state_of(inspection)
        inspection = _without_known(inspection, state, job.spec, staging)
        while True:
            try:
                plan = plan_build(inspection, job.spec, settings, str(staging), spool, kept)
            except (CorruptDataError, SourceError, NotFoundError) as error:
                inspection = without_source(inspection, error, job.spec)
                progress.tell(f"starting without {inspection.skipped_sources[-1].url}: {error}")
                continue
            if job.into is not None:
                plan = fit_plan(plan, job.into)
            space.check(plan.context)
            try:
                built, sketches, bad = _run_plan(plan, job, space, progress, kept)
            except UnreadableColumnsError as error:
                progress.tell(f"starting over without {', '.join(error.reasons)}: unreadable further on")
                inspection = without_columns(inspection, error.reasons, job.spec)
                _note_unreadable(state, error.reasons, staging)
            else:
                skipped = inspection.skipped + plan.skipped
                outcome = Outcome(plan.context, built, bad, skipped, inspection.skipped_sources, sketches)
                first = len(job.into.sources) if job.into else 0
                return outcome if plan.context.mixing is None else mix_outcome(outcome, first, space, progress)
    except BaseException:
        with suppress(StorageringError):  # what ended the build is what counts
            if is_kept and (left := count_finished(staging)) is not None:
                give_up = "" if job.into else f", 'storagering remove {job.name}' gives it up"
                progress.tell(f"what is done is kept ({left.extent}): the same command goes on from there{give_up}")
        raise
    finally:
        kept.close()


def _run_plan(
    plan: BuildPlan, job: Job, space: BuildSpace, progress: BuildProgress, kept: KeptSource
) -> tuple[BuiltChunks, Sketches, dict[int, str]]:
    """The chunks in order, their sketches together, and the sources that had to be left out, with the reason."""
    context, tasks = plan.context, plan.tasks
    bad: dict[int, str] = {}
    while True:
        first_epoch = _write_outline(plan, tasks, job)
        FinishedTasks(Path(context.staging)).keep_only(tasks)
        in_order = tasks
        if first_epoch:
            in_order = [tasks[n] for n in first_epoch.order]
            context = replace(context, sources_open=1 if in_order == tasks else MIXED_SOURCES)
        run = Run(context, in_order, progress, space)
        if run.built and not bad and (left := count_finished(Path(context.staging))):
            progress.tell(f"going on with what was interrupted: {left.extent} were done")
        progress.start(sum(task.entries for task in run.todo))
        if job.scheduler == PROCESSES:
            run_tasks(context, run, context.settings.workers, kept, plan.known)
        else:
            from storagering.cache.dask_pool import run_on_dask

            run_on_dask(job.scheduler, context, run)
        if not run.failures:
            return tuple(chunk for task in tasks for chunk in run.built[task.number]), run.sketches.total(), bad
        bad |= _blame(run.failures)
        tasks = key_tasks(context, _without_sources(tasks, bad))
        if not tasks:
            raise run.failures[min(run.failures)]
        for number in sorted(bad):
            progress.tell(f"starting over without {context.sources[number].url}: {bad[number]}")


def _write_outline(plan: BuildPlan, tasks: Sequence[Task], job: Job) -> FirstEpoch | None:
    """Tell those who wait what will come, and in which order if that can be known."""
    spec, staging = job.spec, Path(plan.context.staging)
    first_epoch = None
    if spec.where is None and spec.mix is None and spec.on_bad_source == "fail" and job.into is None:
        before = read_outline(staging)
        first_epoch = plan_first_epoch(tasks, job.seed, plan.chunk_entries, before.first_epoch if before else None)
    parent = job.into.digest if job.into else ""
    sources = {task.key: task.sources for task in tasks}
    schema = plan.context.schema
    write_outline(staging, Outline(job.name, parent, len(spec.sources), sources, schema, spec.format, first_epoch))
    return first_epoch


def _blame(failures: Mapping[int, StorageringError]) -> dict[int, str]:
    """Source number -> why it cannot be read: what its first task says, whichever ended first."""
    found: dict[int, str] = {}
    for number in sorted(failures):
        source = failures[number].source
        if source is not None:
            found.setdefault(source, str(failures[number]))
    return found


def _without_sources(tasks: Sequence[Task], bad: Container[int]) -> Iterator[Task]:
    """The same cut, so that tasks that read none of the bad sources need not be done again."""
    for task in tasks:
        pieces = tuple(piece for piece in task.pieces if piece.source not in bad)
        if pieces:
            yield replace(task, pieces=pieces)


class _Unreadable(msgspec.Struct):
    """Columns that turned out to be unreadable in some state of the sources."""

    state: str
    reasons: dict[str, str]


def _state_of(inspection: Inspection) -> str:
    return sha256_hex(msgspec.json.encode((inspection.files, inspection.typenames), order="deterministic"))


def _without_known(inspection: Inspection, state: str, spec: ConversionSpec, staging: Path) -> Inspection:
    """Without columns that a run before has found to be unreadable."""
    with suppress(NotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        noted = msgspec.json.decode(read_file(staging / _UNREADABLE_NAME, _LIMIT_BYTES), type=_Unreadable)
        if noted.state == state:
            return without_columns(inspection, noted.reasons, spec)
    return inspection


def _note_unreadable(state: str, reasons: dict[str, str], staging: Path) -> None:
    path = staging / _UNREADABLE_NAME
    with suppress(NotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        noted = msgspec.json.decode(read_file(path, _LIMIT_BYTES), type=_Unreadable)
        if noted.state == state:
            reasons = noted.reasons | reasons
    replace_file(path, msgspec.json.encode(_Unreadable(state, reasons)))
