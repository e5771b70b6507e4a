"""Which requests bring the wanted ranges of a file: long sequential reads, or vectors of short ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Range = tuple[int, int]
#: The ranges of one request: a single one is a plain read, several are one vector read.
Request = tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold, in bytes.

    Attributes:
        elements: ranges of a vector read; 1 where there are none.
        element_bytes: the longest of them.
        vector_bytes: all of them together (a reply is held in memory; XRootD's own limit is 2 GB).
        block_bytes: a plain read; not less than an element.
        run_bytes: from this length on a range is worth plain reads.
        gap_bytes: unwanted bytes that are always read over.
    """

    elements: int = 1024
    element_bytes: int = 2_097_136
    vector_bytes: int = 64 << 20
    block_bytes: int = 8 << 20
    run_bytes: int = 1 << 20
    gap_bytes: int = 256


def merge_ranges(ranges: Sequence[Range], gap_bytes: int = 0) -> list[Range]:
    """The ranges sorted and disjoint, those at most ``gap_bytes`` apart as one; empty ones are dropped."""
    merged: list[Range] = []
    for start, stop in sorted(r for r in ranges if r[1] > r[0]):
        if merged and start - merged[-1][1] <= gap_bytes:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def plan_requests(ranges: Sequence[Range], limits: Limits) -> list[Request]:
    """Requests that cover every range once, in few round trips and with little that is not wanted.

    Neighbours become one run where the gap is small beside them: at most a quarter more than what is wanted
    is read, and ``gap_bytes`` for each range. Long runs are cut into plain reads, short ones gathered.
    """
    requests: list[Request] = []
    vector: list[Range] = []
    size = 0
    for start, stop in _runs(merge_ranges(ranges), limits.gap_bytes):
        if limits.elements == 1 or stop - start >= limits.run_bytes:
            requests.extend((block,) for block in _cut((start, stop), limits.block_bytes))
            continue
        for piece in _cut((start, stop), limits.element_bytes):
            if len(vector) == limits.elements or (vector and size + piece[1] - piece[0] > limits.vector_bytes):
                requests.append(tuple(vector))
                vector, size = [], 0
            vector.append(piece)
            size += piece[1] - piece[0]
    return requests + ([tuple(vector)] if vector else [])


def _runs(wanted: Sequence[Range], gap_bytes: int) -> list[Range]:
    runs = list(wanted[:1])
    for before, after in pairwise(wanted):
        gap, beside = after[0] - before[1], (before[1] - before[0]) + (after[1] - after[0])
        if gap <= max(gap_bytes, beside // 8):
            runs[-1] = (runs[-1][0], after[1])
        else:
            runs.append(after)
    return runs


def _cut(run: Range, longest: int) -> list[Range]:
    start, stop = run
    return [(at, min(at + longest, stop)) for at in range(start, stop, longest)]


def pick_ranges(ranges: Sequence[Range], pieces: dict[Range, memoryview]) -> list[memoryview]:
    """The bytes of each range out of the pieces that cover it, copied only where several do."""
    order = sorted(pieces)
    starts = [start for start, _ in order]
    return [_pick(wanted, order, starts, pieces) for wanted in ranges]


def _pick(wanted: Range, order: list[Range], starts: list[int], pieces: dict[Range, memoryview]) -> memoryview:
    start, stop = wanted
    if stop <= start:
        return memoryview(b"")
    parts: list[memoryview] = []
    number = bisect_right(starts, start) - 1
    while start < stop:
        piece = order[number]
        parts.append(pieces[piece][start - piece[0] : stop - piece[0]])
        start, number = piece[1], number + 1
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
