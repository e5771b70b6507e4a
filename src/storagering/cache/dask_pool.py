"""Runs the tasks of a build on the workers of a dask.distributed cluster.

Orders and replies are JSON, chunks are bytes: nothing is shared but the network, and the sources, which all
workers must reach by the same names. This process alone writes into the cache.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from storagering.cache.chunks import BuiltChunk
from storagering.cache.finished import renumber
from storagering.cache.manifest import software
from storagering.cache.messages import BuildContext, Task, decode_path, decode_reply, encode_reply, read_by, urls_of
from storagering.cache.run import Run
from storagering.cache.store import digest_of
from storagering.cache.worker import run_task
from storagering.errors import (
    ChecksumError,
    ConfigError,
    MissingExtraError,
    StorageringError,
    UnreachableError,
    WorkerDiedError,
)
from storagering.files import safe_join, write_new
from storagering.urls import redact_text

#: Tasks that are given out for each thread of a worker: one to do, and one that waits.
_TASKS_PER_THREAD = 2
_own = threading.local()


@dataclass(frozen=True)
class _Order:
    software: str
    context: BuildContext
    task: Task


class _OfRelease(msgspec.Struct):
    software: str


class Sealed(bytes):
    """Bytes that no log of dask shows: orders may hold tokens."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def run_on_dask(address: str, context: BuildContext, run: Run) -> None:
    """Do what is to do in a run, in order.

    Raises:
        MissingExtraError: dask.distributed is not installed.
        UnreachableError: no scheduler answers at the address, or it went away.
        ConfigError: a worker has another release of Storagering, or none.
        WorkerDiedError: workers ended again and again over the same task.
        StorageringError: the first error that the run ends with.
    """
    if not run.todo:
        return
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(
            "--scheduler with an address needs dask.distributed: pip install 'storagering[dask]'"
        ) from error
    with _connected(distributed, address, context) as client:
        try:
            if not client.nthreads():
                run.tell(f"waiting for the first worker of {address}")
            _RemoteCrew(client, distributed.as_completed(loop=client.loop), context, run, address).serve()
        except StorageringError:
            raise
        except (CancelledError, OSError) as error:
            raise UnreachableError(f"the dask scheduler at {address} is gone; the same command goes on") from error


@contextmanager
def _connected(distributed: Any, address: str, context: BuildContext) -> Iterator[Any]:
    seconds = context.settings.connect_timeout_seconds
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it writes when it loses the scheduler is raised, too
    try:
        client = distributed.Client(address, timeout=seconds, set_as_default=False, name="storagering")
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise UnreachableError(f"no dask scheduler answers at {address} within {seconds} s ({error})") from error
    try:
        yield client
    finally:
        client.close()
        log.setLevel(level)


class _RemoteCrew:
    """The workers of a cluster, as many as there are at the time."""

    def __init__(self, client: Any, replies: Any, context: BuildContext, run: Run, address: str) -> None:
        self._client, self._replies, self._context, self._run = client, replies, context, run
        self._address = address
        self._id = secrets.token_hex(4)  # another build on the cluster may have the same tasks
        self._todo = deque(run.todo)
        self._out: dict[str, tuple[Any, Task]] = {}

    def serve(self) -> None:
        """Do tasks until there are none."""
        try:
            self._give_out()
            for future in self._replies:
                _, task = self._out.pop(future.key)
                self._take(future, task)
                future.release()
                self._give_out()
        finally:
            if self._out and self._client.status == "running":
                self._client.cancel([future for future, _ in self._out.values()])

    def _give_out(self) -> None:
        """Keep every worker busy, and no more: what was not fetched yet takes their memory."""
        limit = _TASKS_PER_THREAD * max(1, sum(self._client.nthreads().values()))
        while self._todo and len(self._out) < limit:
            task = self._todo.popleft()
            if self._run.wanted(task):
                key = f"storagering-{task.key}-{self._id}"
                future = self._client.submit(do_order, _order_of(self._context, task), key=key)
                self._out[future.key] = future, task
                self._replies.add(future)

    def _take(self, future: Any, task: Task) -> None:
        reply, files = self._result(future, task)
        try:
            built = renumber(decode_reply(reply), dict(enumerate(task.sources)))
        except StorageringError as error:
            if error.source is not None:
                error.source = task.sources[error.source]
            self._run.failed(task, error)
            return
        for item, data in zip(built, files, strict=True):
            if digest_of(data) != item.chunk.digest:
                raise ChecksumError(f"{item.chunk.file} was damaged on its way from a worker of {self._address}")
            write_new(safe_join(Path(self._context.staging), item.chunk.file), data)
        self._run.done(task, built)
        self._run.advance(task.entries, sum(b.chunk.raw_bytes for b in built))

    def _result(self, future: Any, task: Task) -> tuple[bytes, list[bytes]]:
        from distributed import KilledWorker

        try:
            reply, files = future.result()
        except (CancelledError, OSError):
            raise
        except KilledWorker as error:
            raise WorkerDiedError(
                f"workers of {self._address} ended again and again over the same work "
                f"(of {read_by(self._context, task)}); give them more memory or use a smaller --chunk-bytes; "
                "the same command goes on"
            ) from error
        except ImportError as error:
            raise ConfigError(
                f"a worker of {self._address} cannot import Storagering ({error}): install {software()} there"
            ) from error
        except Exception as error:
            message = redact_text(str(error), *urls_of(self._context.locations))
            raise WorkerDiedError(f"a worker of {self._address} failed: {type(error).__name__}: {message}") from error
        return reply, files


def _order_of(context: BuildContext, task: Task) -> Sealed:
    """A task with the sources that it needs, and no other: their numbers count from 0 there."""
    numbers = {source: number for number, source in enumerate(task.sources)}
    pieces = tuple(replace(piece, source=numbers[piece.source]) for piece in task.pieces)
    files = tuple(context.sources[source] for source in task.sources)
    own = replace(
        context,
        spec=replace(context.spec, sources=tuple((file.url, file.label) for file in files)),
        sources=files,
        locations=tuple(context.locations[source] for source in task.sources),
    )
    return Sealed(msgspec.json.encode(_Order(software(), own, replace(task, pieces=pieces)), enc_hook=str))


def do_order(order: bytes) -> tuple[bytes, list[bytes]]:
    """What a worker of the cluster does: the reply as JSON, and the bytes of the chunk files.

    It raises nothing, because dask would log its argument.
    """
    files: list[bytes] = []
    urls: list[str] = []
    return encode_reply(partial(_do, order, files, urls), urls), files


def _do(data: bytes, files: list[bytes], urls: list[str]) -> tuple[BuiltChunk, ...]:
    import distributed

    worker = distributed.get_worker()
    release = msgspec.json.decode(data, type=_OfRelease).software
    if release != software():
        raise ConfigError(
            f"the dask worker at {worker.address} has {software()}, not {release}: install the same there"
        )
    order = msgspec.json.decode(data, type=_Order, dec_hook=decode_path)
    urls += urls_of(order.context.locations)
    with TemporaryDirectory(prefix="storagering-", dir=worker.local_directory) as staging:
        spool = _spool_for(order.context, worker.local_directory)
        context = replace(order.context, staging=staging, spool=spool)
        built = run_task(context, order.task, lambda _entries, _nbytes: None)
        files += [safe_join(Path(staging), item.chunk.file).read_bytes() for item in built]
    return built


def _spool_for(context: BuildContext, folder: str) -> str:
    """A folder for source files that this thread keeps until it has to do with others."""
    sources = context.sources
    if getattr(_own, "sources", None) != sources:
        _own.folder = TemporaryDirectory(prefix="storagering-spool-", dir=folder)
        _own.sources = sources
    name: str = _own.folder.name
    return name
