"""Where replicas should lie: moves that save the most bytes from crossing the network, within what nodes can hold.

Choosing replicas for nodes of limited room is a knapsack for each node, with two limits: its room, and what its network
brings within the period. The moves are chosen by worth for each byte (Dantzig 1957), a drop only to make room for what
is worth more; each move is checked against both limits when it is made, so no prefix of the list ever breaks one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from storagering.errors import SpecError, nearest_names

ORIGIN = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A node or site that holds replicas.

    Attributes:
        capacity: bytes.
        bandwidth: bytes a second that moves may bring to it.
        demand: its share of the uses of every dataset that has no figures of its own, relative to other nodes'.
        high_water: share of the capacity above which it is relieved.
    """

    name: str
    capacity: int
    bandwidth: float
    demand: float = 1.0
    high_water: float = 0.95


@dataclass(frozen=True, slots=True)
class Data:
    """A dataset.

    Attributes:
        uses: expected in the period, on all nodes together; each reads all of it.
        uses_at: those on some nodes, where they are known; these say all there is about the dataset, if any are given.
    """

    name: str
    nbytes: int
    uses: float = 0.0
    uses_at: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """One move; they are to be made in the order in which they are proposed.

    Attributes:
        action: ``add`` copies the dataset to the node, ``drop`` removes it there, ``balance`` does both, from one node
            to another.
        source: node that it is copied from; '' for the sources of the dataset, or if nothing is copied.
        nbytes: copied, or freed by a drop.
        gain: bytes of network in the period that it saves; negative for what it costs.
    """

    action: Literal["add", "drop", "balance"]
    dataset: str
    node: str
    source: str
    nbytes: int
    gain: float
    reason: str


def propose_moves(
    nodes: Sequence[Node],
    datasets: Sequence[Data],
    replicas: Mapping[str, Sequence[str]],
    *,
    period_seconds: float = 604_800.0,
    copy_cost: float = 1.0,
) -> tuple[Move, ...]:
    """Moves of replicas for the period to come; the same for the same arguments, in whatever order they are given.

    A dataset is used where it lies, at no cost, or read over the network. So a replica at a node saves its bytes
    for each use there, and costs its bytes once. No move brings a node above its capacity or more bytes than its
    bandwidth carries in the period, and none drops the last replica of a dataset. Nodes above their high-water mark
    are relieved first, as far as that is possible.

    Args:
        replicas: names of the nodes that have each dataset; those without any lie at their sources only.
        copy_cost: what a byte that is copied now counts, in bytes that are read in the period.

    Raises:
        SpecError: a name is given twice or unknown, or a number is out of range.
    """
    _check(nodes, datasets, replicas, period_seconds, copy_cost)
    plan = _Plan(nodes, datasets, replicas, period_seconds, copy_cost)
    for name in sorted(plan.nodes):
        plan.relieve(name)
    plan.add_what_pays()
    return tuple(plan.moves)


class _Plan:
    """Replicas as they are after the moves so far."""

    def __init__(
        self,
        nodes: Sequence[Node],
        datasets: Sequence[Data],
        replicas: Mapping[str, Sequence[str]],
        period_seconds: float,
        copy_cost: float,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.moves: list[Move] = []
        self._data = {data.name: data for data in datasets}
        self._copy_cost = copy_cost
        self._holders = {name: set(replicas.get(name, ())) for name in self._data}
        self._used = {
            name: sum(self._data[d].nbytes for d, holders in self._holders.items() if name in holders)
            for name in self.nodes
        }
        self._carry = {node.name: node.bandwidth * period_seconds for node in nodes}
        whole = sum(node.demand for node in sorted(nodes, key=lambda node: node.name))
        self._shares = {node.name: node.demand / whole if whole else 0.0 for node in nodes}
        self._copied: set[tuple[str, str]] = set()
        # What may be dropped at each node, the least used first: it lies elsewhere, too, and was not just brought.
        self._spare: dict[str, list[tuple[float, str]]] = {
            name: sorted((self._uses(d, name), d) for d, at in self._holders.items() if name in at and len(at) > 1)
            for name in self.nodes
        }

    def relieve(self, name: str) -> None:
        """Bring a node below its high-water mark: by drops of what is least used and lies elsewhere, else by moving."""
        node = self.nodes[name]
        goal = node.high_water * node.capacity
        full = f"{name} is {_percent(self._used[name], node.capacity)} full"
        for _, dataset in tuple(self._spare[name]):
            if self._used[name] <= goal:
                return
            self._drop(dataset, name, f"{full}, and it is the least used there that lies elsewhere, too")
        there = [(self._uses(d, name), d) for d, holders in self._holders.items() if name in holders]
        for _, dataset in sorted(there):
            if self._used[name] <= goal:
                return
            if target := self._roomiest(dataset, name):
                self._balance(dataset, name, target, full)

    def add_what_pays(self) -> None:
        """Copy what saves more than it costs, the best for each byte first."""
        pairs = [
            (-self._uses(d, n), d, n)
            for d in self._data
            for n in self.nodes
            if n not in self._holders[d] and self._gain(d, n) > 0
        ]
        for _, dataset, name in sorted(pairs):
            nbytes = self._data[dataset].nbytes
            if nbytes > self._carry[name] or nbytes > self.nodes[name].capacity:
                continue
            victims = self._make_way(dataset, name)
            if victims is None:
                continue
            for victim in victims:
                self._drop(victim, name, f"makes room for {dataset}, which is used more there")
            uses = self._uses(dataset, name)
            self._copy("add", dataset, name, self._gain(dataset, name), f"{uses:.3g} uses expected at {name}")

    def _make_way(self, dataset: str, name: str) -> list[str] | None:
        """What must go from a node for a dataset to fit, if that is worth less; None if it does not pay."""
        node, nbytes = self.nodes[name], self._data[dataset].nbytes
        limit, victims, lost = node.high_water * node.capacity, list[str](), 0.0
        limit = min(max(limit, float(nbytes)), float(node.capacity))
        free = limit - self._used[name]
        for uses, victim in self._spare[name]:
            if free >= nbytes or lost >= self._gain(dataset, name):
                break
            victims.append(victim)
            free += self._data[victim].nbytes
            lost += uses * self._data[victim].nbytes
        return victims if free >= nbytes and lost < self._gain(dataset, name) else None

    def _uses(self, dataset: str, name: str) -> float:
        data = self._data[dataset]
        return data.uses_at.get(name, 0.0) if data.uses_at else data.uses * self._shares[name]

    def _gain(self, dataset: str, name: str) -> float:
        return (self._uses(dataset, name) - self._copy_cost) * self._data[dataset].nbytes

    def _roomiest(self, dataset: str, leaving: str) -> str:
        """The node that is emptiest with the dataset, below its own mark; '' if there is none."""
        nbytes = self._data[dataset].nbytes
        fitting = [
            ((self._used[n] + nbytes) / node.capacity, n)
            for n, node in self.nodes.items()
            if n != leaving
            and n not in self._holders[dataset]
            and self._used[n] + nbytes <= node.high_water * node.capacity
            and nbytes <= self._carry[n]
        ]
        return min(fitting)[1] if fitting else ""

    def _drop(self, dataset: str, name: str, reason: str) -> None:
        nbytes = self._data[dataset].nbytes
        self._remove(dataset, name)
        self.moves.append(Move("drop", dataset, name, ORIGIN, nbytes, -self._uses(dataset, name) * nbytes, reason))

    def _balance(self, dataset: str, name: str, target: str, full: str) -> None:
        there = _percent(self._used[target], self.nodes[target].capacity)
        gain = self._gain(dataset, target) - self._uses(dataset, name) * self._data[dataset].nbytes
        self._copy("balance", dataset, target, gain, f"{full}, {target} only {there}", source=name)
        self._remove(dataset, name)

    def _remove(self, dataset: str, name: str) -> None:
        holders = self._holders[dataset]
        if (own := (self._uses(dataset, name), dataset)) in self._spare[name]:
            self._spare[name].remove(own)
        holders.remove(name)
        self._used[name] -= self._data[dataset].nbytes
        if len(holders) == 1 and (last := (self._uses(dataset, min(holders)), dataset)) in self._spare[min(holders)]:
            self._spare[min(holders)].remove(last)

    def _copy(
        self, action: Literal["add", "balance"], dataset: str, name: str, gain: float, reason: str, source: str = ""
    ) -> None:
        nbytes, holders = self._data[dataset].nbytes, self._holders[dataset]
        fastest = min(holders, key=lambda n: (-self.nodes[n].bandwidth, n), default=ORIGIN)
        self.moves.append(Move(action, dataset, name, source or fastest, nbytes, gain, reason))
        if len(holders) == 1 and (dataset, only := min(holders)) not in self._copied:
            insort(self._spare[only], (self._uses(dataset, only), dataset))
        holders.add(name)
        self._copied.add((dataset, name))
        self._used[name] += nbytes
        self._carry[name] -= nbytes


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _check(
    nodes: Sequence[Node],
    datasets: Sequence[Data],
    replicas: Mapping[str, Sequence[str]],
    period_seconds: float,
    copy_cost: float,
) -> None:
    names = [node.name for node in nodes]
    known = {data.name for data in datasets}
    if not nodes or len(set(names)) < len(names) or len(known) < len(datasets) or ORIGIN in (*names, *known):
        raise SpecError("give at least one node, and each node and dataset once, by a name of its own")
    for node in nodes:
        if node.capacity < 1 or not node.bandwidth >= 0 or not node.demand >= 0 or not 0 < node.high_water <= 1:
            raise SpecError(
                f"node {node.name!r}: capacity={node.capacity} must be at least 1, bandwidth={node.bandwidth} and "
                f"demand={node.demand} not negative, and high_water={node.high_water} above 0 and up to 1"
            )
    for data in datasets:
        if data.nbytes < 1 or not all(0 <= uses < float("inf") for uses in (data.uses, *data.uses_at.values())):
            raise SpecError(f"dataset {data.name!r}: {data.nbytes} bytes and its uses must be numbers above 0")
        for name in data.uses_at:
            if name not in names:
                raise SpecError(f"dataset {data.name!r} is used at unknown node {name!r}{nearest_names(name, names)}")
    for dataset, holders in replicas.items():
        if dataset not in known:
            raise SpecError(f"replicas of an unknown dataset {dataset!r}{nearest_names(dataset, known)}")
        for name in holders:
            if name not in names:
                raise SpecError(f"a replica of {dataset!r} at an unknown node {name!r}{nearest_names(name, names)}")
    if not period_seconds > 0 or not copy_cost >= 0:
        raise SpecError(f"a period of {period_seconds} s and copies that cost {copy_cost}: give numbers above 0")
