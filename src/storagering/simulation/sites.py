"""Jobs at sites with caches, event by event: who waits how long, and what crosses the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from storagering.errors import InternalError
from storagering.simulation.network import Clock, Link, Transfer
from storagering.simulation.site_cache import SiteCache
from storagering.simulation.strategies import Strategy, make_strategy
from storagering.simulation.world import ORIGIN, Job, Site, World

File = tuple[str, int]
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job that has ended.

    Attributes:
        start, end: seconds: when it got its CPU, and when it was done.
        waited: seconds that it neither computed: for its CPU and for files.
    """

    job: Job
    start: float
    end: float
    waited: float


@dataclass(frozen=True, slots=True)
class Flow:
    """What passed through one site.

    Attributes:
        received: bytes that arrived, for jobs and for placement.
        filled, evicted, held: bytes that came into its cache, went, and are there at the end.
    """

    site: str
    received: int
    filled: int
    evicted: int
    held: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a world under a strategy.

    Attributes:
        mean_wait: seconds a job.
        traffic: bytes over all links; ``origin_traffic`` those from the origin, ``placed`` those for placement.
        hit_ratio: share of the files read that lay at the site.
        sent: bytes put on each link (source, target).
    """

    strategy: str
    mean_wait: float
    traffic: int
    origin_traffic: int
    placed: int
    hit_ratio: float
    jobs: tuple[JobRecord, ...]
    transfers: tuple[Transfer, ...]
    flows: tuple[Flow, ...]
    sent: dict[tuple[str, str], float]


def simulate_sites(world: World, strategy: str) -> Outcome:
    """Run all jobs of a world under a strategy of placement (see `strategies`); the same for the same arguments.

    A job takes files from its site's cache, at no time, else over a link from another site that has them or from the
    origin, whichever has the most bandwidth to spare; those that wait for the same file wait for one transfer. What is
    sent away is pinned until it has arrived.

    Raises:
        SpecError: no such strategy.
        InternalError: bytes or jobs were lost or doubled, which is a bug.
    """
    return _Run(world, make_strategy(strategy, world)).outcome(strategy)


class _Place:
    """A site while it runs."""

    def __init__(self, site: Site, cache: SiteCache) -> None:
        self.name, self.cache, self.free, self.received = site.name, cache, site.cpus, 0
        self.queue: list[tuple[float, Job]] = []
        self.coming: dict[File, list[Callable[[], None]]] = {}


class _Run:
    def __init__(self, world: World, strategy: Strategy) -> None:
        self._world, self._strategy, self._clock = world, strategy, Clock()
        self._places = {
            site.name: _Place(site, SiteCache(site.capacity, strategy.policy, partial(self._score, site.name)))
            for site in world.sites
        }
        self._links = {
            (way.source, way.target): Link(self._clock, way.source, way.target, way.bandwidth, way.latency)
            for way in world.connections
        }
        self._done: list[JobRecord] = []
        self._transfers: list[Transfer] = []
        self._reads = self._hits = 0
        self._left = len(world.jobs)

    def outcome(self, name: str) -> Outcome:
        """Run it."""
        for job in self._world.jobs:
            self._clock.at(job.arrival, self._arrive, job)
        if self._strategy.period_seconds and self._left:
            self._clock.at(self._strategy.period_seconds, self._place_anew)
        self._clock.run()
        self._check()
        traffic = sum(one.nbytes for one in self._transfers)
        return Outcome(
            name,
            sum(record.waited for record in self._done) / max(1, len(self._done)),
            traffic,
            sum(one.nbytes for one in self._transfers if one.source == ORIGIN),
            sum(one.nbytes for one in self._transfers if one.purpose == "placement"),
            self._hits / max(1, self._reads),
            tuple(self._done),
            tuple(self._transfers),
            tuple(
                Flow(p.name, p.received, p.cache.filled, p.cache.evicted, p.cache.held) for p in self._places.values()
            ),
            {way: link.sent for way, link in self._links.items()},
        )

    def _check(self) -> None:
        received = sum(place.received for place in self._places.values())
        sent = sum(link.sent for link in self._links.values())
        if abs(received - sent) > _ROUNDING * max(1.0, sent):
            raise InternalError(f"{sent:.0f} bytes were sent and {received} received")
        if len(self._done) != len(self._world.jobs):
            raise InternalError(f"{len(self._done)} of {len(self._world.jobs)} jobs ended")

    def _arrive(self, job: Job) -> None:
        self._strategy.note(job.site, job.dataset)
        place = self._places[job.site]
        if place.free:
            place.free -= 1
            self._start(job)
        else:
            place.queue.append((self._clock.now, job))

    def _start(self, job: Job) -> None:
        self._next_file(job, self._clock.now, 0)

    def _next_file(self, job: Job, start: float, number: int) -> None:
        sizes = self._world.datasets[job.dataset]
        if number == len(sizes):
            self._finish(job, start)
            return
        compute = sizes[number] * job.seconds_per_byte
        go_on = partial(self._next_file, job, start, number + 1)
        self._read(job.site, (job.dataset, number), lambda: self._clock.at(self._clock.now + compute, go_on))

    def _finish(self, job: Job, start: float) -> None:
        now = self._clock.now
        computed = sum(self._world.datasets[job.dataset]) * job.seconds_per_byte
        self._done.append(JobRecord(job, start, now, max(0.0, now - job.arrival - computed)))
        self._left -= 1
        place = self._places[job.site]
        if place.queue:
            self._start(place.queue.pop(0)[1])
        else:
            place.free += 1

    def _read(self, site: str, file: File, done: Callable[[], None]) -> None:
        place = self._places[site]
        self._reads += 1
        if file in place.cache:
            self._hits += 1
            place.cache.use(file)
            done()
        else:
            self._fetch(site, file, "read", done)

    def _fetch(self, site: str, file: File, purpose: str, done: Callable[[], None]) -> None:
        place = self._places[site]
        if file in place.coming:
            place.coming[file].append(done)
            return
        place.coming[file] = [done]
        source = self._best_source(site, file)
        if source != ORIGIN:
            self._places[source].cache.pin(file)
        nbytes = self._world.datasets[file[0]][file[1]]
        self._links[source, site].send(nbytes, purpose, partial(self._received, site, file))

    def _best_source(self, site: str, file: File) -> str:
        sources = [ORIGIN, *(name for name, place in self._places.items() if file in place.cache)]
        ways = [self._links[source, site] for source in sources if (source, site) in self._links]
        return min(ways, key=lambda way: ((way.waiting + 1) / way.bandwidth, way.latency, way.source)).source

    def _received(self, site: str, file: File, transfer: Transfer) -> None:
        place = self._places[site]
        self._transfers.append(transfer)
        place.received += transfer.nbytes
        if transfer.source != ORIGIN:
            self._places[transfer.source].cache.unpin(file)
        if self._strategy.keeps:
            place.cache.put(file, transfer.nbytes)
        for done in place.coming.pop(file):
            done()

    def _place_anew(self) -> None:
        caches = {name: place.cache for name, place in self._places.items()}
        bandwidths = {name: self._links[ORIGIN, name].bandwidth for name in self._places}
        for site, dataset in self._strategy.plan(caches, bandwidths):
            self._bring(site, dataset)
        for cache in caches.values():
            cache.rank_anew()
        if self._left:
            self._clock.at(self._clock.now + self._strategy.period_seconds, self._place_anew)

    def _bring(self, site: str, dataset: str, number: int = 0) -> None:
        """File after file, so that jobs are left most of the bandwidth."""
        if number < len(self._world.datasets[dataset]):
            file, further = (dataset, number), partial(self._bring, site, dataset, number + 1)
            if file in self._places[site].cache:
                further()
            else:
                self._fetch(site, file, "placement", further)

    def _score(self, site: str, file: object) -> float:
        return self._strategy.score(site, file[0]) if isinstance(file, tuple) else 0.0
