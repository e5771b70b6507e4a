"""Sources behind a server that holds back its answers when some of the work is done."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.processes import PRELOAD

from storagering.api import fill
from storagering.config import Settings, load_settings
from storagering.loaders.torch import DataLoader
from storagering.testing.http import HTTPServer, http_server
from storagering.testing.toys import write_toy_tree

FILES = 16
ENTRIES = 200
CHUNK_BYTES = 8192


class HeldSources:
    """Small files, of which a build keeps some open and opens others later on.

    Attributes:
        urls: theirs; ``names`` and ``folder`` where they are.
        when_done: tasks of builds that must be finished before answers are held back, until ``go_on`` is set;
            ``reached`` is set when one is.
        settings: with timeouts that no holding back exceeds, and one worker.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.urls = [server.url(f"toy{n:02d}.root") for n in range(FILES)]
        self.settings: Settings = replace(
            load_settings(workers=1), request_timeout_seconds=100, retry_seconds=100.0, connect_timeout_seconds=100
        )
        self.when_done = sys.maxsize
        self.go_on, self.reached = threading.Event(), threading.Event()
        receive = server._receive

        def held_back(request: Any) -> Any:
            if self.done() >= self.when_done:
                self.reached.set()
                self.go_on.wait()
            return receive(request)

        server._receive = held_back  # type: ignore[method-assign]

    def records(self) -> list[Path]:
        """Records of the tasks that are finished and not published."""
        return list((self.settings.cache / "staging").glob("*/task-*.json"))

    def done(self) -> int:
        """How many tasks are finished and not published."""
        return len(self.records())


@contextmanager
def held_sources(folder: Path) -> Iterator[HeldSources]:
    """The files, made in that folder, and their server."""
    folder.mkdir()
    for number in range(FILES):
        write_toy_tree(folder / f"toy{number:02d}.root", entries=ENTRIES, seed=number, basket_entries=50)
    with http_server(folder) as server:
        sources = HeldSources(server)
        try:
            yield sources
        finally:
            sources.go_on.set()


class Trainings:
    """Starts trainings in processes that need not import everything first."""

    def __init__(self, held: HeldSources) -> None:
        self._held = held
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._all: list[Training] = []

    def start(self, *, state: dict[str, Any] | None = None, **options: Any) -> "Training":
        """A training on ``toys`` with the options of a loader."""
        here, there = self._context.Pipe()
        arguments = there, self._held.settings, self._held.urls, state, options
        process = self._context.Process(target=_train, args=arguments)
        process.start()
        there.close()
        self._all.append(Training(process, here))
        return self._all[-1]

    def end(self) -> None:
        """End those that are left."""
        for training in self._all:
            training.process.kill()
            training.process.join()


class Training:
    """One of them: it tells when it has begun, then each batch with the state after it, then the dataset's digest."""

    def __init__(self, process: Any, link: Any) -> None:
        self.process, self._link = process, link

    def hear(self) -> Any:
        """The next thing that it tells."""
        assert self._link.poll(60), "the training tells nothing"
        return self._link.recv()

    def finish(self) -> tuple[list[list[float]], str]:
        """The rest of its batches, and the digest."""
        batches = []
        while not isinstance(told := self.hear(), str):
            batches.append(told[0])
        self.process.join(60)
        assert self.process.exitcode == 0
        return batches, told


def _train(link: Any, settings: Settings, urls: list[str], state: dict[str, Any] | None, options: Any) -> None:
    os.environ["STORAGERING_CACHE"] = str(settings.cache)
    with (
        fill(urls, name="toys", chunk_bytes=CHUNK_BYTES, settings=settings) as data,
        DataLoader(data, columns={"id": "event", "pt": "MET_pt"}, **options) as loader,
    ):
        if state is not None:
            loader.load_state_dict(state)
        link.send("begun")
        for batch in loader:
            link.send((batch["pt"].tolist(), loader.state_dict()))
        link.send(loader.dataset.manifest.digest)
