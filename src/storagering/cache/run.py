"""One run over the tasks of a build: what is finished is kept, what failed is named."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from storagering.cache.build_space import BuildSpace
from storagering.cache.finished import BuiltChunks, FinishedTasks
from storagering.cache.messages import BuildContext, Task, is_bad_source, spool_of
from storagering.cache.progress import BuildProgress
from storagering.cache.sketches import SketchSum, decode_sketches
from storagering.errors import StorageringError
from storagering.files import remove_directory


class Run:
    """The log of one run over some tasks; those who do them report here, from any thread.

    Attributes:
        built: task number -> its chunks.
        sketches: those of all chunks together.
        failures: task number -> error, of tasks whose source is bad and may be left out.
        todo: the tasks that no earlier run has finished, in order.
    """

    def __init__(
        self, context: BuildContext, tasks: Sequence[Task], progress: BuildProgress, space: BuildSpace
    ) -> None:
        self._context, self._progress, self._space = context, progress, space
        self._finished = FinishedTasks(Path(context.staging))
        self._lock = threading.Lock()
        self.sketches = SketchSum()
        self.built: dict[int, BuiltChunks] = {}
        for task, built in self._finished.find(tasks):
            space.take(task.key, built)
            self._keep(task, built)
        self.failures: dict[int, StorageringError] = {}
        self.todo = [task for task in tasks if task.number not in self.built]
        self._open = Counter(source for task in self.todo for source in task.sources)

    def wanted(self, task: Task) -> bool:
        """Whether the task is still to be done: not if all that it reads is known to be bad.

        Tasks begin in order, so the failures that are known belong to earlier ones, whatever the number of workers.
        """
        with self._lock:
            bad = {error.source for error in self.failures.values()}
        if bad and bad.issuperset(task.sources):
            self._close(task)
            return False
        return True

    def done(self, task: Task, built: BuiltChunks) -> None:
        """The task's chunks are in the staging folder."""
        self._space.take(task.key, built)
        self._finished.keep(task, built)
        with self._lock:
            self._keep(task, built)
        self._close(task)

    def _keep(self, task: Task, built: BuiltChunks) -> None:
        """Add up the sketches at once: those of all chunks would not fit in memory."""
        for item in built:
            self.sketches.add(decode_sketches(item.sketches))
        self.built[task.number] = tuple(replace(item, sketches=b"") for item in built)

    def failed(self, task: Task, error: StorageringError) -> None:
        """The task ended with that error; raises it if the build must end with it."""
        self._finished.discard(task)
        if self._context.spec.on_bad_source == "fail" or error.source is None or not is_bad_source(error):
            raise error
        with self._lock:
            self.failures[task.number] = error
        self._close(task)

    def lost(self, task: Task, how: str) -> None:
        """The worker ended; the task will be given to another one."""
        self._finished.discard(task)
        self.tell(f"a conversion worker ended ({how}); its work is given to a new one")

    def advance(self, entries: int, decoded_bytes: int) -> None:
        """That much more was read and written."""
        with self._lock:
            self._progress.advance(entries, decoded_bytes)

    def tell(self, message: str) -> None:
        """A sentence for the user."""
        with self._lock:
            self._progress.tell(message)

    def _close(self, task: Task) -> None:
        """Drop what was spooled of sources that no task needs any more."""
        with self._lock:
            self._open.subtract(task.sources)
            over = [source for source in task.sources if not self._open[source]]
        for source in over if self._context.spool else ():
            remove_directory(Path(spool_of(self._context.spool, self._context.locations[source])))
