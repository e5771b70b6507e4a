"""Sites, links, files and jobs: what a simulation of sites is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.simulation.generated import make_trace

ORIGIN = "origin"
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Site:
    """A site with a cache and CPUs.

    Attributes:
        capacity: bytes of its cache.
        cpus: jobs that run there at a time.
    """

    name: str
    capacity: int
    cpus: int


@dataclass(frozen=True, slots=True)
class Connection:
    """A way for files from one site, or the origin, to another.

    Attributes:
        bandwidth: bytes a second, shared by all transfers that take it.
        latency: seconds.
    """

    source: str
    target: str
    bandwidth: float
    latency: float = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """A job: waits for a CPU of its site, reads the files of a dataset one by one, and computes on each.

    Attributes:
        arrival: seconds.
        seconds_per_byte: that it computes.
    """

    arrival: float
    site: str
    dataset: str
    seconds_per_byte: float


@dataclass(frozen=True, slots=True)
class World:
    """All of it.

    Attributes:
        datasets: bytes of the files of each. All of them lie at the origin.
        jobs: in any order.

    Raises:
        SpecError: a name is unknown or given twice, a site cannot be reached from the origin, or a number is out of
            range.
    """

    sites: tuple[Site, ...]
    connections: tuple[Connection, ...]
    datasets: Mapping[str, tuple[int, ...]]
    jobs: tuple[Job, ...]

    def __post_init__(self) -> None:
        names = [site.name for site in self.sites]
        if len({*names, ORIGIN}) <= len(names):
            raise SpecError(f"sites {', '.join(names)}: give each a name of its own, and none {ORIGIN!r}")
        ways = [(one.source, one.target) for one in self.connections]
        for name in names:
            if (ORIGIN, name) not in ways:
                raise SpecError(f"site {name!r} has no connection from the origin")
        for source, target in ways:
            if source not in (*names, ORIGIN) or target not in names or ways.count((source, target)) > 1:
                raise SpecError(f"connection {source}-{target}: give each once, from a site or the origin to a site")
        if any(site.cpus < 1 or site.capacity < 0 for site in self.sites):
            raise SpecError("a site needs at least one CPU, and a capacity that is not negative")
        for job in self.jobs:
            if job.dataset not in self.datasets or job.site not in names:
                hint = nearest_names(job.dataset, self.datasets) or nearest_names(job.site, names)
                raise SpecError(f"a job reads {job.dataset!r} at site {job.site!r}, one of which is unknown{hint}")
            if not 0 <= job.arrival < float("inf") or not 0 <= job.seconds_per_byte < float("inf"):
                raise SpecError(f"a job arrives at {job.arrival} s and computes {job.seconds_per_byte} s a byte")
        if any(nbytes < 1 for files in self.datasets.values() for nbytes in files):
            raise SpecError("a file has less than one byte")


def make_worlds(
    seeds: int,
    *,
    jobs: int = 2000,
    datasets: int = 200,
    sites: int = 4,
    days: float = 14.0,
    cache_share: float = 0.1,
) -> tuple[World, ...]:
    """Worlds by the seeds 0, 1, ...: unlike sites, files of some GB, popularity that drifts, and differs by site.

    The links from the origin carry, on average, three quarters to one and a half times what the jobs read; each of
    those between sites as much as the jobs of one site.

    Args:
        days: in which the jobs arrive.
        cache_share: bytes of the largest site's cache, as a share of all files.

    Raises:
        SpecError: a number is out of range.
    """
    if min(seeds, jobs, datasets, sites) < 1 or not days > 0 or not 0 <= cache_share <= 1:
        raise SpecError(
            f"{seeds} worlds of {jobs} jobs, {datasets} datasets and {sites} sites in {days} days, with caches of "
            f"{cache_share}: give at least one of each, and a share from 0 to 1"
        )
    return tuple(_make_world(seed, jobs, datasets, sites, days, cache_share) for seed in range(seeds))


def _make_world(seed: int, jobs: int, datasets: int, sites: int, days: float, cache_share: float) -> World:
    random = np.random.default_rng(seed)
    counts = random.integers(2, 9, datasets)
    files = {f"d{n:04}": tuple(int(b) for b in random.lognormal(21.0, 0.7, count)) for n, count in enumerate(counts)}
    total = sum(sum(sizes) for sizes in files.values())
    names = [f"site{n}" for n in range(sites)]
    load = jobs * total / datasets / (days * _DAY_SECONDS)  # bytes a second that are read on average
    made = tuple(
        Site(name, int(cache_share * total / (1 + n / 2)), 4 + 4 * (sites - n)) for n, name in enumerate(names)
    )
    ways = [Connection(ORIGIN, name, 0.75 * load / sites * (1 + random.random()), 0.1) for name in names]
    ways += [Connection(a, b, load / sites, 0.02) for a in names for b in names if a != b]
    chosen = make_trace("drift", seed=seed, accesses=jobs, items=8 * datasets).items // 8
    at = random.choice(sites, jobs, p=np.arange(sites, 0, -1) / (sites * (sites + 1) / 2))
    chosen = (chosen + at * (random.random(jobs) < 0.5) * (datasets // 3)) % datasets  # half of its interest is its own
    arrivals = np.sort(random.uniform(0, days * _DAY_SECONDS, jobs))
    pace = random.lognormal(np.log(0.5 * made[0].cpus / load), 0.5, jobs)
    listed = zip(arrivals.tolist(), at.tolist(), chosen.tolist(), pace.tolist(), strict=True)
    return World(made, tuple(ways), files, tuple(Job(t, names[s], f"d{d:04}", p) for t, s, d, p in listed))
