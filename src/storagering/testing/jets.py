"""Jets at particle level from Pythia 8, as a ROOT file: realistic training data that need no download.

Proton collisions at 13 TeV with multiparton interactions and without detector simulation. Pythia 8 and FastJet are
GPL and come with the ``generate`` extra; they are imported only when jets are generated.
"""

import contextlib
import os
import signal
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.errors import InputError, NotFoundError, WorkerDiedError
from storagering.testing._pythia import (
    JET_BRANCHES,
    MAX_SEED,
    PART_FLOATS,
    PART_INTEGERS,
    PROCESSES,
    Block,
    Task,
    generate_block,
    import_libraries,
)

_BLOCK_JETS = 250
_BASKET_JETS = 1000
_BLOCKS_AHEAD = 4

JET_CLASSES: tuple[str, ...] = tuple(PROCESSES)
"""The classes that `generate_jets` knows."""


def generate_jets(
    path: Path,
    *,
    classes: Sequence[str] = ("top", "qcd"),
    num_jets: int,
    seed: int = 1,
    processes: int = 2,
    progress: Callable[[int], None] | None = None,
) -> int:
    r"""Generate jets of several classes with Pythia 8 and write them as the TTree "jets".

    The leading anti-kt jet (R = 0.8) of an event is taken if 500 < pT < 700 GeV and \|eta\| < 2, and, for ``top``
    and ``w``, if the heavy particle is within 0.6 of its axis; further jets of the event are dropped, so that no
    event is split between training and test. Jets are built from visible particles of pT > 0.4 GeV and
    \|eta\| < 2.7; at most 128 of them, the hardest first, are written.

    Branches: ``event`` (int64, counts from 0), ``jet_pt jet_eta jet_phi jet_mass`` (float32), ``jet_class`` (int32,
    index into ``classes``, also told by the tree's title), and per particle, with the counter ``npart``, ``part_pt
    part_eta part_phi part_energy part_deta part_dphi`` (float32; the last two relative to the jet axis) and
    ``part_charge part_pid`` (int32; PDG numbering). Momenta, energies and masses are in GeV, charges in units of e.

    The jets follow from ``seed``, ``classes`` and ``num_jets`` alone, not from ``processes``. They come in blocks of
    one class, the classes taking turns. Files of one seed share jets for the classes that they share: give training
    and test files different seeds.

    Args:
        path: ROOT file to write; it appears, or is replaced, only when it is complete.
        classes: Any of ``"top"`` (hadronic ttbar), ``"qcd"`` and ``"w"`` (W + jet, hadronic).
        num_jets: Number of jets in all, split evenly over the classes.
        seed: Seed of everything.
        processes: Worker processes; 1 works in this one. With more, a script needs the usual
            ``if __name__ == "__main__":`` guard of `multiprocessing`.
        progress: Called with the number of jets that are done, after every block of up to 250.

    Returns:
        The number of jets written, ``num_jets``.

    Raises:
        InputError: An unknown class, or a number out of range.
        MissingExtraError: Pythia 8 or FastJet is not installed.
        NotFoundError: The folder of ``path`` does not exist.
        WorkerDiedError: A worker process ended early.
    """
    _check(path, classes, num_jets, seed, processes)
    import_libraries()
    tasks = _plan(classes, num_jets, seed)
    blocks = _in_workers(tasks, min(processes, len(tasks))) if processes > 1 else _in_this_process(tasks)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with contextlib.closing(blocks):
            _write(part, classes, blocks, progress)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return num_jets


def _check(path: Path, classes: Sequence[str], num_jets: int, seed: int, processes: int) -> None:
    if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
        raise InputError(f"classes is {classes!r}; give a list of different names out of {', '.join(JET_CLASSES)}")
    for name in classes:
        if name not in PROCESSES:
            raise InputError(f"there is no jet class {name!r}; there are: {', '.join(JET_CLASSES)}")
    for what, value, least in (("num_jets", num_jets, 1), ("seed", seed, 0), ("processes", processes, 1)):
        if value < least:
            raise InputError(f"{what} is {value}; it must be at least {least}")
    if not path.parent.is_dir():
        raise NotFoundError(f"the folder {path.parent} does not exist; create it first")


def _plan(classes: Sequence[str], num_jets: int, seed: int) -> list[Task]:
    """Cut the work into blocks, the classes taking turns."""
    share, rest = divmod(num_jets, len(classes))
    left = [share + (label < rest) for label in range(len(classes))]
    tasks = []
    for block in range(-(-max(left) // _BLOCK_JETS)):
        for label, name in enumerate(classes):
            jets = min(_BLOCK_JETS, left[label] - block * _BLOCK_JETS)
            if jets > 0:
                tasks.append(Task(name, label, _block_seed(seed, name, block), jets))
    return tasks


def _block_seed(seed: int, name: str, block: int) -> int:
    state = np.random.SeedSequence([seed, zlib.crc32(name.encode()), block]).generate_state(1, np.uint64)
    return 1 + int(state[0] % MAX_SEED)


def _in_this_process(tasks: Sequence[Task]) -> Generator[Block, None, None]:
    for task in tasks:
        yield generate_block(task)


def _write(path: Path, classes: Sequence[str], blocks: Iterator[Block], progress: Callable[[int], None] | None) -> None:
    title = "AK8 jets, Pythia 8, 13 TeV; jet_class: " + ", ".join(f"{i} {name}" for i, name in enumerate(classes))
    with uproot.recreate(path, compression=uproot.ZSTD(5)) as file:
        tree = file.mktree("jets", _branch_types(), title=title)
        waiting: list[Block] = []
        done = written = 0
        for block in blocks:
            waiting.append(block)
            done += len(block["npart"])
            if done - written >= _BASKET_JETS:
                tree.extend(_entries(waiting, written))
                waiting, written = [], done
            if progress is not None:
                progress(done)
        if waiting:
            tree.extend(_entries(waiting, written))


def _branch_types() -> dict[str, Any]:
    jets = {"event": np.dtype(np.int64)} | {f"jet_{name}": np.dtype(np.float32) for name in JET_BRANCHES}
    floats = "".join(f"{name}: float32, " for name in PART_FLOATS)
    integers = ", ".join(f"{name}: int32" for name in PART_INTEGERS)
    return jets | {"jet_class": np.dtype(np.int32), "part": f"var * {{{floats}{integers}}}"}


def _entries(blocks: list[Block], first_event: int) -> dict[str, Any]:
    """Join blocks into what one call of ``extend`` takes."""
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    counts = joined.pop("npart")
    particles = {name: joined.pop(f"part_{name}") for name in (*PART_FLOATS, *PART_INTEGERS)}
    events = np.arange(first_event, first_event + len(counts), dtype=np.int64)
    return joined | {"event": events, "part": ak.unflatten(ak.zip(particles), counts)}


class _Worker:
    """A process that generates one block after the other."""

    def __init__(self, context: SpawnContext) -> None:
        self.link, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far,), daemon=True)
        self.process.start()
        far.close()
        self.busy = False

    def begin(self, index: int, task: Task) -> None:
        # A worker that has died is noticed when its answer is waited for.
        with contextlib.suppress(BrokenPipeError):
            self.link.send((index, task))
        self.busy = True

    def finish(self) -> tuple[int, Block]:
        self.busy = False
        try:
            index, answer = self.link.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise WorkerDiedError(
                f"a worker that generated jets ended with exit code {self.process.exitcode}; its own message, if any, "
                'is above. Common causes: no memory left, or a script without if __name__ == "__main__":. '
                "processes=1 uses no workers"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return index, answer

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.link.close()


def _serve(link: Connection) -> None:
    """A worker's loop: blocks on demand until the other side goes away."""
    # Ctrl-C reaches the whole process group; the parent then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            index, task = link.recv()
            try:
                link.send((index, generate_block(task)))
            except Exception as error:  # noqa: BLE001 - the parent raises it
                link.send((index, error))


def _in_workers(tasks: Sequence[Task], processes: int) -> Generator[Block, None, None]:
    """The tasks' blocks in the order of the tasks; the workers end with the iterator."""
    context = get_context("spawn")
    workers: list[_Worker] = []
    try:
        for _ in range(processes):
            workers.append(_Worker(context))  # noqa: PERF401 - those started must be known if one does not start
        yield from _in_order(tasks, workers)
    finally:
        for worker in workers:
            worker.end()


def _in_order(tasks: Sequence[Task], workers: list[_Worker]) -> Iterator[Block]:
    done: dict[int, Block] = {}
    begun = given = 0
    while given < len(tasks):
        for worker in workers:
            if not worker.busy and begun < min(len(tasks), given + _BLOCKS_AHEAD * len(workers)):
                worker.begin(begun, tasks[begun])
                begun += 1
        ready = wait([worker.link for worker in workers if worker.busy])
        for worker in workers:
            if worker.link in ready:
                index, block = worker.finish()
                done[index] = block
        while given in done:
            yield done.pop(given)
            given += 1
