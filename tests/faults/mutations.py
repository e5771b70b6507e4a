"""Damage of every kind done to files, in a process that has so much memory and time and no more."""

import faulthandler
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.processes import Child

#: Beyond this one trial hangs.
TRIAL_SECONDS = 10
_EXTRA_BYTES = 2 << 30

Trial = Callable[[random.Random], str]
"""Damages something, looks what comes of it, and returns that in a word."""


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Other bytes: a bit or byte changed, a run of zeros, a cut, a piece put in, left out or taken from elsewhere."""
    while True:
        changed = bytearray(data)
        at, length = rng.randrange(len(data)), rng.choice([1, 2, 4, 8, 64, 1000])
        elsewhere = rng.randrange(len(data))
        match rng.randrange(8):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
            case 3:
                changed[at : at + length] = bytes(len(changed[at : at + length]))
            case 4:
                del changed[at:]
            case 5:
                changed[at:at] = data[elsewhere : elsewhere + length]
            case 6:
                del changed[at : at + length]
            case 7:
                piece = data[elsewhere : elsewhere + length]
                changed[at : at + len(piece)] = piece
        if changed != data:
            return bytes(changed)


def run_trials(trial: Trial, count: int, seed: int, log: Path) -> Counter[str]:
    """What so many trials came to.

    Each draws from a generator of its own, whose seed is in the log while it runs: if the process ends or hangs,
    that one was to blame.
    """
    faulthandler.enable()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _EXTRA_BYTES, hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    found: Counter[str] = Counter()
    for number in range(count):
        log.write_text(f"seed {seed + number}")
        signal.alarm(TRIAL_SECONDS)
        try:
            found[trial(random.Random(seed + number))] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed + number}: {type(error).__name__}: {error}") from error
        finally:
            signal.alarm(0)
    return found


def check_trials(make: Callable[..., Trial], count: int, log: Path, *arguments: object, seed: int = 0) -> Counter[str]:
    """Run trials in a process of their own, in which ``make(*arguments)`` makes the trial."""
    child = Child(partial(_make_and_run, make, arguments), count, seed, log)
    try:
        found: Counter[str] = child.result(seconds=60 + count)
    except AssertionError as error:
        raise AssertionError(f"{log.read_text()}: {error}") from None
    assert found.total() == count
    return found


def _make_and_run(
    make: Callable[..., Trial], arguments: tuple[object, ...], count: int, seed: int, log: Path
) -> Counter[str]:
    return run_trials(make(*arguments), count, seed, log)
