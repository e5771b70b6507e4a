"""The scenarios of faults and bad input that the tests show, and the report of which of them hold.

A test that shows one says so: ``@pytest.mark.scenario(17)``.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

TITLES = {
    1: "a build is killed after each of its writes, syncs and renames",
    2: "a build is killed between publishing a dataset and indexing it",
    3: "a build is stopped by Ctrl-C or SIGTERM",
    4: "the power fails: what was not synced is lost, or torn",
    5: "evicting is killed half way",
    6: "a writer of the catalog is killed",
    7: "the catalog is deleted, cut, damaged, or of a newer release",
    8: "training is killed while it writes a checkpoint",
    9: "the disk is full at any write",
    10: "the user's quota, the device or a read-only mount refuses a write or a read",
    11: "the quota of the cache is smaller than what is asked of it",
    12: "the quota is full and everything is pinned",
    13: "no inode or descriptor is left",
    14: "the root of the cache is absent, no folder, a dangling link, or on a network file system",
    15: "a file is changed or deleted under a running loader",
    16: "the disk is slower than the timeout",
    17: "each single bit of a chunk is flipped",
    18: "a chunk file is missing",
    19: "a chunk file is cut, longer, swapped, or of another dataset",
    20: "a manifest is damaged, huge, deep, contradicts itself, or is of another version",
    21: "sound bytes decode to other types or lengths than the schema's",
    22: "a damaged cache is verified, and repaired",
    23: "a dataset of each earlier release is read",
    24: "all workers of all ranks ask for the same absent dataset at once",
    25: "the one that builds for all of them is killed half way",
    26: "two machines whose locks do not meet build the same dataset",
    27: "a reader starts at any moment of a build",
    28: "evicting and reading race",
    29: "a fast reader is done with a chunk that a slow one still needs",
    30: "the same job runs twice at once, and again straight after it was stopped",
    31: "a process forks with an open cache, catalog or source",
    32: "the clock jumps by a day",
    33: "another user, other umasks, a cache shared by a group",
    34: "the holder of a lock is stopped, but not dead",
    41: "ROOT files are mutated, compression by compression",
    42: "a ROOT file declares absurd sizes",
    43: "a small file unpacks to a huge one",
    44: "nothing is in the source: no entries, no columns, empty blocks, one entry",
    45: "the offsets of lists fall, overrun, or differ between columns",
    46: "one of many files lacks a column, or has another type or tree",
    47: "names of columns, trees and files are hostile",
    48: "numbers are NaN, infinite, denormal, huge, big-endian, or no numbers",
    49: "a class of the source is not supported",
    50: "an expression is hostile",
    51: "a thread of a loader raises, or stands still",
    52: "there is no shared memory",
    53: "entries do not divide among ranks and batches; there are fewer than ranks",
    54: "a training goes on from any step of an epoch, and from its end",
    55: "a training goes on with another number of ranks",
    56: "a training goes on with another dataset, seed, batch size or order",
    57: "loaders are abandoned, closed twice, run side by side, asked for their state at any time",
    58: "whoever trains stops taking batches for a while",
    59: "one rank of a training fails",
    60: "a training runs for hundreds of epochs",
}


def numbers_of(item: pytest.Item) -> list[int]:
    """The scenarios that a test shows.

    Raises:
        UsageError: there is no scenario of such a number.
    """
    found = [number for mark in item.iter_markers("scenario") for number in mark.args]
    for number in found:
        if number not in TITLES:
            raise pytest.UsageError(f"{item.nodeid}: there is no scenario {number!r}")
    return sorted(set(found))


def results(terminalreporter: Any) -> dict[int, Counter[str]]:
    """Scenario -> how many of its tests passed and failed, in this run."""
    found: dict[int, Counter[str]] = {number: Counter() for number in TITLES}
    for outcome, category in (("passed", "passed"), ("failed", "failed"), ("failed", "error")):
        for report in terminalreporter.stats.get(category, []):
            for number in dict(report.user_properties).get("scenarios", ()):
                found[number][outcome] += 1
    return found


def figures(terminalreporter: Any) -> Iterator[str]:
    """What tests have measured."""
    for report in terminalreporter.stats.get("passed", []):
        yield from (str(value) for name, value in report.user_properties if name == "figure")


def unshown(found: dict[int, Counter[str]]) -> list[int]:
    """The scenarios that no passing test shows, or that a test failed to show."""
    return [number for number, counts in found.items() if counts["failed"] or not counts["passed"]]


def lines(found: dict[int, Counter[str]]) -> Iterator[str]:
    """The table, as text."""
    yield f"{'':>4}  {'passed':>6}  {'failed':>6}"
    for number, counts in found.items():
        yield f"{number:>4}  {counts['passed']:>6}  {counts['failed']:>6}  {TITLES[number]}"
    bad = unshown(found)
    yield f"{len(found) - len(bad)} of {len(found)} scenarios hold" + (f"; not: {bad}" if bad else "")
