"""A dataset that is being made, here or by another process, to be read meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from storagering.cache.build import Job, find_dataset
from storagering.cache.dataset import Dataset
from storagering.cache.filler import Filler
from storagering.cache.finished import read_finished
from storagering.cache.first_epoch import read_first_epoch
from storagering.cache.layout import Cache
from storagering.cache.manifest import spec_key
from storagering.cache.peers.pull import adopt_dataset
from storagering.cache.progress import BuildProgress
from storagering.cache.residency import is_partial
from storagering.cache.store import ChunkReader, chunk_store
from storagering.cache.unfinished import FirstEpoch, Outline, outline_path, read_outline, record_path
from storagering.errors import CorruptDataError, LoaderError, NotFoundError, StorageringError, TruncatedError
from storagering.files import FileLock, safe_join
from storagering.types import Chunk, Schema

_POLL_SECONDS = 0.05
#: How often it is looked whether whoever makes it gets on.
_LOOK_SECONDS = 1.0


class FillingDataset:
    """A dataset of the cache that is there, or is being made while it is read. Safe to use from several threads.

    A process of its own makes it (see `storagering.cache.filler`), of whichever reader finds that nobody is at it:
    many readers read the sources once, and if the one dies whose process it was, another one's goes on.

    Attributes:
        name: what the dataset is, or will be, called.
    """

    def __init__(self, cache: Cache, name: str, job: Job | None, progress: BuildProgress | None = None) -> None:
        self.name = name
        self._cache, self._job, self._progress = cache, job, progress or BuildProgress()
        self._lock = threading.Lock()
        self._filler: Filler | None = None
        self._published: Dataset | None = None
        self._plan: _Plan | None = None
        self._number, self._look_again, self._since = 0, 0.0, time.monotonic()
        self._work: dict[str, int] | None = None

    def begin(self, seed: int | None) -> None:
        """Have it made, if nobody is at it and it is not there.

        Args:
            seed: of the order in which its parts are made, None for that of the dataset. An order that was begun
                is kept.
        """
        if self._job is not None:
            self._job = replace(self._job, seed=seed)
        self.tend()

    def published(self) -> Dataset | None:
        """The dataset, None if it is not complete yet.

        Raises:
            SpecError: there is another one of that name.
            SourceChangedError: it is there, but a local source has changed since.
            LoaderError: it was made in another way than this object knows of.
        """
        if self._published is None and self._cache.contains(self.name):
            manifest = find_dataset(self._cache, self._job) if self._job else self._cache.manifest(self.name)
            if manifest is not None:
                dataset = Dataset(self._cache, manifest)
                if self._plan and self._plan.outline.first_epoch != read_first_epoch(dataset.path, manifest.digest):
                    raise self._started_over()
                self._published = dataset
        return self._published

    def wait(self) -> Dataset:
        """The dataset, when it is complete.

        Raises:
            StorageringError: what ended the conversion.
        """
        if self.published() is None:
            self._progress.tell(f"waiting until dataset {self.name!r} is complete")
        self._wait_for(lambda: self.published() is not None)
        dataset = self.published()
        assert dataset is not None  # noqa: S101  (just found)
        return dataset

    def contents(self) -> tuple[Schema, FirstEpoch | None]:
        """The columns, and how the first epoch goes; waits until that is known.

        The latter is None where it is known only at the end which entries there are, or nothing was recorded.

        Raises:
            StorageringError: what ended the conversion.
        """
        self._wait_for(lambda: self.published() is not None or self._find_plan() is not None)
        if (dataset := self.published()) is not None:
            return dataset.schema, read_first_epoch(dataset.path, dataset.manifest.digest)
        return self._known.outline.schema, self._known.outline.first_epoch

    def is_finished(self, task: int) -> bool:
        """Whether the chunks of that task of the first epoch are there; sees to it that they will be.

        Raises:
            LoaderError: the conversion started over in another way.
            StorageringError: what ended the conversion.
        """
        if self._published is not None or self._is_kept(task) or self.published() is not None:
            return True
        self.tend()
        self._check_plan()
        return False

    def chunks(self, task: int) -> tuple[Chunk, ...] | None:
        """The chunks of a finished task, each counting its entries from 0; None if the dataset is published.

        Raises:
            CorruptDataError: the record of the task is damaged.
        """
        if self._published is None:
            try:
                return read_finished(self._known.staging, self._known.keys[task])
            except NotFoundError:
                if self.published() is None:
                    raise
        return None

    def open_chunk(self, chunk: Chunk) -> ChunkReader:
        """A reader of one of those chunks, numbered as in the dataset, which may be published by now.

        Raises:
            CorruptDataError: the file is not what it should be.
        """
        if self._published is None:
            outline = self._known.outline
            try:
                return chunk_store(outline.format).open(
                    safe_join(self._known.staging, chunk.file), chunk, outline.schema
                )
            except TruncatedError:
                if self.published() is None:
                    self._check_plan()
                    if not is_partial(self._known.staging):
                        raise
        dataset = self.wait()
        for found in dataset.manifest.chunks:
            if found.start == chunk.start and found.digest == chunk.digest:
                return dataset.open_chunk(found)
        raise CorruptDataError(f"dataset {self.name!r} does not hold the chunk that was read from entry {chunk.start}")

    def _is_kept(self, task: int) -> bool:
        """Whether a task is finished, and its chunks were not given up for want of room."""
        staging = self._known.staging
        if not self._known.record(task).exists():
            return False
        if not is_partial(staging):
            return True
        with suppress(StorageringError):
            return all(safe_join(staging, chunk.file).exists() for chunk in self.chunks(task) or ())
        return False

    def tend(self) -> None:
        """See that somebody makes the dataset, unless it is there.

        Raises:
            StorageringError: what ended the conversion.
        """
        with self._lock:
            if self._filler is not None and not self._filler.works:
                filler, self._filler = self._filler, None
                if (error := filler.stop()) is not None:
                    raise error
            if self._filler is None and self.published() is None:
                self._start_filler()

    def _start_filler(self) -> None:
        lock = (
            self._cache.build_lock(self.name) if self._job is None else self._cache.filler_lock(self.name, self._number)
        )
        if not lock.try_acquire():
            self._look_at_holder()
            return
        try:
            if self.published() is not None:  # since the last look
                return
            if self._job is not None:
                if self._plan is None and self._find_plan() is None:  # nobody has begun to read it in another order
                    adopt_dataset(self._cache, self.name, spec_key(self._job.spec), self._progress)
                if self.published() is not None:
                    return
            else:
                raise LoaderError(f"the conversion of {self.name!r} ended before it was complete; start it again")
            self._filler = Filler(self._job, self._cache.settings, self._progress, lock)
        finally:
            lock.release()

    def _look_at_holder(self) -> None:
        """Go on beside one who gets nothing done for so long that it may be stopped, or hang."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + _LOOK_SECONDS
        work = self._cache.work_on(self.name)
        if work != self._work:
            self._work, self._since = work, now
        elif now - self._since > self._cache.settings.lock_timeout_seconds:
            self._number, self._since = self._number + 1, now

    def renewed(self) -> FillingDataset:
        """The same for a forked process: nothing in it is shared with the one that it was forked from."""
        new = FillingDataset(self._cache, self.name, self._job, self._progress)
        new._plan, new._published = self._plan, self._published
        return new

    def close(self) -> None:
        """End the process that makes it, if it is ours; what is finished stays, and reading it further begins anew."""
        with self._lock:
            if self._filler is not None:
                filler, self._filler = self._filler, None
                filler.stop()

    def __enter__(self) -> FillingDataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _known(self) -> _Plan:
        assert self._plan is not None  # noqa: S101  (whoever knows of a task knows the plan)
        return self._plan

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.tend()
            time.sleep(_POLL_SECONDS)

    def _find_plan(self) -> _Plan | None:
        """What a builder that is at work has planned; one that died may have planned something else."""
        for folder, lock in self._cache.staging_folders(self.name):
            if self._job is not None and not folder.name.startswith(f"{self.name}.{self._job.key}"):
                continue
            if not _is_held(lock) or self._cache.is_of_another_machine(folder):
                continue  # whoever goes on there may plan anew
            with suppress(FileNotFoundError):
                begun, state = lock.stat().st_mtime_ns, _state_of(folder)
                outline = read_outline(folder)
                if outline is not None and not outline.parent and state[0] >= begun:
                    self._plan = _Plan(folder, outline, state, tuple(outline.tasks))
        return self._plan

    def _check_plan(self) -> None:
        plan = self._known
        with suppress(FileNotFoundError):
            if (state := _state_of(plan.staging)) == plan.state:
                return
            found = read_outline(plan.staging)
            if found is not None and found.first_epoch != plan.outline.first_epoch:
                raise self._started_over()
            self._plan = replace(plan, state=state)

    def _started_over(self) -> LoaderError:
        return LoaderError(
            f"the conversion of {self.name!r} started over in another way, because a column turned out to be "
            "unreadable or a source changed: begin again with a new loader"
        )


@dataclass(frozen=True)
class _Plan:
    """What a build will do, as its outline says; ``state`` tells a new outline from an old one."""

    staging: Path
    outline: Outline
    state: tuple[int, int]
    keys: tuple[str, ...]

    def record(self, task: int) -> Path:
        """Where the record of a task appears."""
        return record_path(self.staging, self.keys[task])


def _state_of(staging: Path) -> tuple[int, int]:
    found = outline_path(staging).stat()
    return found.st_mtime_ns, found.st_ino


def _is_held(lock: Path) -> bool:
    probe = FileLock(lock, shared=True)
    if not probe.try_acquire():
        return True
    probe.release()
    return False
