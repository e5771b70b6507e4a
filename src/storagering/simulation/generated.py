"""Traces made up by seed: the shapes that accesses to data have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.simulation.trace import Trace
from storagering.types import Array

_CHUNK_BYTES = 16_000_000
_WEEK_SECONDS = 604_800.0
_CHUNKS = 8  # of a dataset, where all have as many
_DRIFTS = 200  # moments at which popularity changes
# (share of the datasets, median bytes of a file, median files, weeks after which interest has halved, mean uses a week)
_TIERS = {
    "RAW": (0.1, 4e9, 12, 2.0, 0.1),
    "RECO": (0.15, 3e9, 10, 4.0, 0.4),
    "AOD": (0.25, 2e9, 8, 10.0, 1.0),
    "MINIAOD": (0.25, 1e9, 6, 20.0, 3.0),
    "NANOAOD": (0.25, 2e8, 3, 30.0, 6.0),
}


def make_trace(kind: str, *, seed: int, accesses: int = 200_000, items: int = 10_000) -> Trace:
    """A trace of the given length and about so many items; the same for the same arguments.

    - ``zipf``: chunks of one size; their datasets are drawn by Zipf's law, always the same one.
    - ``drift``: the same, but again and again a fiftieth of the datasets change their places in the law.
    - ``epochs``: trainings, several at a time, each of which reads all chunks of a dataset in another order for every
      epoch; sizes differ.
    - ``mixture``: half of it drift, a third epochs, the rest scans that read many chunks once; sizes differ.
    - ``tiers``: files of datasets of five tiers (RAW to NANOAOD) read at five sites through a year; datasets appear,
      interest decays with their age, faster for the large tiers.

    Raises:
        SpecError: no such kind, or less than one access or item.
    """
    if kind not in _KINDS:
        raise SpecError(f"trace {kind!r}{nearest_names(kind, _KINDS)}")
    if accesses < 1 or items < _CHUNKS:
        raise SpecError(f"a trace of {accesses} accesses to {items} items: give at least 1 and {_CHUNKS}")
    return _KINDS[kind](np.random.default_rng(seed), accesses, items)


def _make_zipf(random: np.random.Generator, accesses: int, items: int) -> Trace:
    return _alike(_draw(random, accesses, items, share=0.0), items)


def _make_drift(random: np.random.Generator, accesses: int, items: int) -> Trace:
    return _alike(_draw(random, accesses, items, share=0.02), items)


def _alike(chosen: Array, items: int) -> Trace:
    """One access a second to chunks of one size."""
    sizes = np.full(items, _CHUNK_BYTES)
    return Trace(np.arange(len(chosen)), chosen, sizes, np.arange(items) // _CHUNKS, np.zeros(len(chosen)))


def _draw(random: np.random.Generator, accesses: int, items: int, share: float, exponent: float = 0.9) -> Array:
    """Chunks (n), any of a dataset that is drawn by Zipf's law; that share of the datasets changes places each time."""
    datasets = items // _CHUNKS
    edges = np.cumsum(np.arange(1, datasets + 1) ** -exponent)
    places = np.searchsorted(edges, random.random(accesses) * edges[-1])
    order = random.permutation(datasets)
    chosen = np.empty(accesses, np.int64)
    cuts = np.linspace(0, accesses, _DRIFTS + 1).astype(np.int64)
    for start, stop in pairwise(cuts):
        moved = random.choice(datasets, int(np.ceil(share * datasets)), replace=False)
        order[moved] = random.permutation(order[moved])
        chosen[start:stop] = order[places[start:stop]]
    return chosen * _CHUNKS + random.integers(0, _CHUNKS, accesses)


def _make_epochs(random: np.random.Generator, accesses: int, items: int) -> Trace:
    groups = _datasets_of(random, items)
    times, chosen = _trainings(random, accesses, groups)
    return _sorted(times, chosen, _unlike(random, items), groups, accesses)


def _make_mixture(random: np.random.Generator, accesses: int, items: int) -> Trace:
    """Each part takes place over the same time."""
    groups = _datasets_of(random, items)
    drifting = _draw(random, accesses // 2, items, share=0.02)
    trained, read = _trainings(random, accesses // 3, groups)
    rest = accesses - len(drifting) - accesses // 3
    lengths = random.integers(1, max(2, items // 4), 1 + 16 * rest // items)
    scans = np.resize(np.concatenate([(random.integers(items) + np.arange(n)) % items for n in lengths]), rest)
    parts = [
        (np.sort(random.random(len(drifting))), drifting),
        (trained[: accesses // 3] / trained[: accesses // 3].max(initial=1e-9), read[: accesses // 3]),
        (np.sort(random.random(len(scans))), scans),
    ]
    times, chosen = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _sorted(times * accesses, chosen, _unlike(random, items), groups, accesses)


def _unlike(random: np.random.Generator, items: int) -> Array:
    return np.maximum(1, random.lognormal(np.log(_CHUNK_BYTES), 1.0, items)).astype(np.int64)


def _datasets_of(random: np.random.Generator, items: int) -> Array:
    """Number of the dataset of each chunk (m): from a few to hundreds of chunks each."""
    counts = np.maximum(1, random.lognormal(np.log(max(2, items / 100)), 1.0, items)).astype(np.int64)
    return np.repeat(np.arange(items), counts)[:items]


def _trainings(random: np.random.Generator, accesses: int, groups: Array, together: int = 4) -> tuple[Array, Array]:
    """At least so many accesses in the order of time, of so many trainings at a time."""
    counts = np.bincount(groups)
    first = np.cumsum(counts) - counts
    law = np.cumsum(1.0 / np.arange(1, len(counts) + 1))
    order = random.permutation(len(counts))
    free = np.zeros(together)
    times: list[Array] = []
    chosen: list[Array] = []
    while not times or free.min() < 2 * accesses:  # the slowest read one chunk in twice the mean time
        lane = int(np.argmin(free))
        dataset = order[int(np.searchsorted(law, random.random() * law[-1]))]
        epochs = int(random.integers(2, 21))
        reads = np.concatenate([first[dataset] + random.permutation(counts[dataset]) for _ in range(epochs)])
        pace = together * random.uniform(0.5, 2.0)
        times.append(free[lane] + pace * np.arange(1, len(reads) + 1))
        chosen.append(reads)
        free[lane] = times[-1][-1]
    joined = np.concatenate(times)
    by_time = np.argsort(joined, kind="stable")
    return joined[by_time], np.concatenate(chosen)[by_time]


def _sorted(times: Array, chosen: Array, sizes: Array, groups: Array, accesses: int) -> Trace:
    order = np.argsort(times, kind="stable")[:accesses]
    return Trace(times[order], chosen[order], sizes, groups, np.zeros(len(order)))


def _make_tiers(random: np.random.Generator, accesses: int, items: int, weeks: int = 52, sites: int = 5) -> Trace:
    shares = np.array([tier[0] for tier in _TIERS.values()])
    size, files, half_life, uses = np.array([tier[1:] for tier in _TIERS.values()]).T
    tiers = random.choice(len(shares), max(1, items // 7), p=shares)
    counts = np.maximum(1, random.lognormal(np.log(files[tiers]), 0.8)).astype(np.int64)
    kept = np.cumsum(counts) <= items
    kept[0] = True
    tiers, counts = tiers[kept], counts[kept]
    born = random.uniform(-weeks / 2, weeks, len(tiers))
    interest = uses[tiers] * random.lognormal(0, 1.2, len(tiers))
    ages = np.arange(weeks)[:, None] - born
    rates = np.where(ages >= 0, interest * 0.5 ** (ages / half_life[tiers]), 0.0)
    rates *= accesses / max(1e-9, (rates * counts).sum())
    used = random.poisson(rates)
    week, dataset = (np.repeat(index, used[used > 0]) for index in np.nonzero(used))
    times = (week + random.random(len(week))) * _WEEK_SECONDS
    places = random.choice(sites, len(week), p=np.arange(sites, 0, -1) / (sites * (sites + 1) / 2))
    order = np.argsort(times, kind="stable")
    week, dataset, times, places = week[order], dataset[order], times[order], places[order]
    reads = counts[dataset]
    within = np.arange(reads.sum()) - np.repeat(np.cumsum(reads) - reads, reads)
    chosen = (np.cumsum(counts) - counts)[np.repeat(dataset, reads)] + within
    sizes = (np.repeat(size[tiers], counts) * random.lognormal(0, 0.3, counts.sum())).astype(np.int64)
    groups = np.repeat(np.arange(len(counts)), counts)
    return Trace(np.repeat(times, reads), chosen, sizes, groups, np.repeat(places, reads))


_KINDS: dict[str, Callable[[np.random.Generator, int, int], Trace]] = {
    "zipf": _make_zipf,
    "drift": _make_drift,
    "epochs": _make_epochs,
    "mixture": _make_mixture,
    "tiers": _make_tiers,
}
KINDS = tuple(_KINDS)
