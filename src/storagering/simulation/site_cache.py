"""The cache of one site, file by file, for simulations in which more than hits matters."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable

from storagering.errors import SpecError

_POLICIES = ("lru", "lfu", "greedy-dual", "popularity")


class SiteCache:
    """What lies at a site; evicts by the policies of the cache's own, what is pinned stays.

    Args:
        capacity: bytes.
        score: expected uses of a file, for ``popularity``.

    Attributes:
        held, filled, evicted: bytes that are there, that came, and that went: the first is the difference.
    """

    def __init__(self, capacity: int, policy: str, score: Callable[[Hashable], float] = lambda _: 0.0) -> None:
        if policy not in _POLICIES:
            raise SpecError(f"policy {policy!r} of a site: choose one of {', '.join(_POLICIES)}")
        self.capacity, self._policy, self._score = capacity, policy, score
        self.held = self.filled = self.evicted = 0
        self._sizes: dict[Hashable, int] = {}
        self._uses: dict[Hashable, int] = {}
        self._ranks: dict[Hashable, tuple[float, int]] = {}
        self._pins: dict[Hashable, int] = {}
        self._order: list[tuple[float, int, Hashable]] = []
        self._tick, self._inflation = 0, 0.0

    def __contains__(self, file: Hashable) -> bool:
        return file in self._sizes

    def use(self, file: Hashable) -> None:
        """Note that a file which is there is used."""
        self._uses[file] += 1
        self._rank(file)

    def pin(self, file: Hashable) -> None:
        """Keep a file which is there, until it is unpinned as often."""
        self._pins[file] = self._pins.get(file, 0) + 1

    def unpin(self, file: Hashable) -> None:
        """Let go of it."""
        self._pins[file] -= 1
        if not self._pins[file]:
            del self._pins[file]

    def put(self, file: Hashable, nbytes: int) -> bool:
        """Take a file in, if room can be made for it; whether it is there now."""
        if file in self._sizes:
            return True
        if nbytes > self.capacity - sum(self._sizes[pinned] for pinned in self._pins):
            return False
        passed_over = []
        while self.held + nbytes > self.capacity:
            rank, tick, victim = heapq.heappop(self._order)
            if self._ranks.get(victim) != (rank, tick):
                continue  # it was used since, or is gone
            if victim in self._pins:
                passed_over.append((rank, tick, victim))
            else:
                self._inflation = max(self._inflation, rank)
                self.drop(victim)
        for entry in passed_over:
            heapq.heappush(self._order, entry)
        self._sizes[file], self._uses[file] = nbytes, 1
        self.held += nbytes
        self.filled += nbytes
        self._rank(file)
        return True

    def drop(self, file: Hashable) -> None:
        """Remove a file that is there and not pinned."""
        nbytes = self._sizes.pop(file)
        del self._uses[file], self._ranks[file]
        self.held -= nbytes
        self.evicted += nbytes

    def is_pinned(self, file: Hashable) -> bool:
        """Whether it must stay now."""
        return file in self._pins

    def rank_anew(self) -> None:
        """Scores have changed."""
        for file, (_, tick) in self._ranks.items():
            self._ranks[file] = (self._worth(file), tick)
        self._order = [(rank, tick, file) for file, (rank, tick) in self._ranks.items()]
        heapq.heapify(self._order)

    def _rank(self, file: Hashable) -> None:
        self._tick += 1
        self._ranks[file] = (self._worth(file), self._tick)
        heapq.heappush(self._order, (*self._ranks[file], file))

    def _worth(self, file: Hashable) -> float:
        if self._policy == "lfu":
            return float(self._uses[file])
        if self._policy == "greedy-dual":
            return self._inflation + 1.0 / self._sizes[file]
        return self._score(file) if self._policy == "popularity" else 0.0
