"""Strategies of placement: what a site keeps, and what is brought to it before anybody asks.

- ``none``: every file is read from afar, every time.
- ``reactive``: what was read is kept; the least recently used goes.
- ``popular``: and every day the datasets that were used most the day before, anywhere, are brought to all sites, up to
  half of each cache.
- ``predictive``: every day the uses of each dataset at each site are predicted (decayed means with a half-life that is
  learnt), `propose_moves` says what to bring, and what is expected to be used least goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.simulation.placement import Data, Node, propose_moves
from storagering.simulation.predicting import DriftPredictor
from storagering.simulation.site_cache import SiteCache
from storagering.simulation.world import World

_DAY_SECONDS = 86_400.0
_POPULAR_SHARE = 0.5  # of a cache that is filled unasked
_PLACING_SHARE = 0.25  # of the bandwidth that copies may take
STRATEGIES = ("none", "reactive", "popular", "predictive")


class Strategy:
    """Keeps what it reads (or not), and brings nothing by itself.

    Attributes:
        keeps: whether files that were read are kept.
        policy: by which caches evict.
        period_seconds: between two plans, 0 without any.
    """

    keeps = True
    policy = "lru"
    period_seconds = 0.0

    def note(self, site: str, dataset: str) -> None:
        """A job for a dataset has arrived at a site."""

    def plan(self, caches: Mapping[str, SiteCache], bandwidths: Mapping[str, float]) -> list[tuple[str, str]]:  # noqa: ARG002
        """(site, dataset) to bring, for the period that begins; called once a period."""
        return []

    def score(self, site: str, dataset: str) -> float:  # noqa: ARG002
        """Uses of a dataset that are expected at a site in this period."""
        return 0.0


class _Nothing(Strategy):
    keeps = False


class _Popular(Strategy):
    period_seconds = _DAY_SECONDS

    def __init__(self, world: World) -> None:
        self._sizes = {name: sum(files) for name, files in world.datasets.items()}
        self._counts: Counter[str] = Counter()

    def note(self, site: str, dataset: str) -> None:  # noqa: ARG002
        self._counts[dataset] += 1

    def plan(self, caches: Mapping[str, SiteCache], bandwidths: Mapping[str, float]) -> list[tuple[str, str]]:  # noqa: ARG002
        ranked = sorted(self._counts, key=lambda name: (-self._counts[name], name))
        self._counts.clear()
        wanted = []
        for site, cache in caches.items():
            room = _POPULAR_SHARE * cache.capacity
            for name in ranked:
                if self._sizes[name] <= room:
                    room -= self._sizes[name]
                    wanted.append((site, name))
        return wanted


class _Predictive(Strategy):
    policy = "popularity"
    period_seconds = _DAY_SECONDS

    def __init__(self, world: World) -> None:
        self._world = world
        self._sites = {site.name: n for n, site in enumerate(world.sites)}
        self._datasets = {name: n for n, name in enumerate(world.datasets)}
        self._counts = np.zeros((len(self._sites), len(self._datasets)))
        self._expected = np.zeros_like(self._counts)
        self._predictor = DriftPredictor(self._counts.size)

    def note(self, site: str, dataset: str) -> None:
        self._counts[self._sites[site], self._datasets[dataset]] += 1

    def plan(self, caches: Mapping[str, SiteCache], bandwidths: Mapping[str, float]) -> list[tuple[str, str]]:
        self._predictor.update(self._counts.ravel())
        self._expected = self._predictor.predict().reshape(self._counts.shape)
        self._counts[:] = 0
        nodes = [
            Node(name, cache.capacity, _PLACING_SHARE * bandwidths[name], high_water=1.0)
            for name, cache in caches.items()
            if cache.capacity
        ]
        if not nodes:
            return []
        data = [
            Data(name, sum(files), uses_at={node.name: self.score(node.name, name) for node in nodes})
            for name, files in self._world.datasets.items()
            if files
        ]
        there = {one.name: [node.name for node in nodes if self._is_whole(caches[node.name], one.name)] for one in data}
        moves = propose_moves(nodes, data, there, period_seconds=self.period_seconds)
        return [(move.node, move.dataset) for move in moves if move.action == "add"]

    def score(self, site: str, dataset: str) -> float:
        return float(self._expected[self._sites[site], self._datasets[dataset]])

    def _is_whole(self, cache: SiteCache, dataset: str) -> bool:
        return all((dataset, n) in cache for n in range(len(self._world.datasets[dataset])))


def make_strategy(name: str, world: World) -> Strategy:
    """The strategy of that name.

    Raises:
        SpecError: there is none.
    """
    if name == "none":
        return _Nothing()
    if name == "reactive":
        return Strategy()
    if name == "popular":
        return _Popular(world)
    if name == "predictive":
        return _Predictive(world)
    raise SpecError(f"strategy {name!r}{nearest_names(name, STRATEGIES)}")
