"""``storagering bench loader``: data, environments and runs put together."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storagering.config import usable_cpus
from storagering.errors import InputError
from storagering.testing.loading.case import WORKLOADS, Case
from storagering.testing.loading.compare import Bench, measure_all, plan_runs
from storagering.testing.loading.data import STANDARD, make_data
from storagering.testing.loading.environments import find_environments
from storagering.testing.loading.peers import PEERS, Peer
from storagering.testing.machine import describe_machine

#: What is measured where no peers are named: what our own dependencies can do.
DEFAULT_PEERS = ("storagering", "in memory", "uproot", "h5py blocks")


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        entries: of ``w1``; the other workloads keep their proportion.
        workloads: beginnings of names: ``w2`` takes ``w2f`` too.
        peers: parts of names; empty for all.
        only: regular expression that is looked for in ``PEER, WORKLOAD, CORES cores``.
        cores: numbers of cores, as far as there are; ours are measured on one and two as well.
        environments: folder of further Python environments, for peers that are not installed in this one.
        data: folder for the data, where it stays; a temporary one without it.
    """

    entries: int = 1_000_000
    workloads: Sequence[str] = ("w",)
    peers: Sequence[str] = DEFAULT_PEERS
    only: str = ""
    cores: Sequence[int] = (2,)
    epochs: int = 5
    environments: Path | None = None
    data: Path | None = None


def bench_loader(request: Request, *, output: Path | None = None, say: Callable[[str], None]) -> dict[str, Any]:
    """Rates of loaders, each in its own process, beside the in-memory limit.

    Args:
        output: JSON file for the figures, written after each run; runs that it has are not measured again.
        say: gets a line for each run.

    Returns:
        ``runs`` (see benchmarks/README.md), ``missing`` peers, ``machine``, ``environments``, ``data``.

    Raises:
        InputError: no peer or workload of such a name, or ``data`` or ``output`` are of another size.
    """
    workloads = [name for name in WORKLOADS if name.startswith(tuple(request.workloads))]
    peers = [peer for peer in PEERS if _is_named(peer, request.peers)]
    if not workloads or not peers:
        raise InputError(
            f"nothing to measure: workloads are {', '.join(WORKLOADS)}, peers {', '.join(peer.name for peer in PEERS)}"
        )
    sizes = {name: max(1, request.entries * count // STANDARD["w1"]) for name, count in STANDARD.items()}
    sizes = {name: count for name, count in sizes.items() if any(w.startswith(name) for w in workloads)}
    with tempfile.TemporaryDirectory() as folder:
        root = (request.data or Path(folder)).absolute()
        make_data(root, sizes)
        environments = find_environments(request.environments, {m for peer in peers for m in peer.packages})
        runs, missing = plan_runs(peers, environments, lambda peer: _cases(peer, request, workloads, root))
        results: dict[str, Any] = _earlier(output, sizes)
        results |= {
            "missing": [m for m in results["missing"] if m["peer"] not in {peer.name for peer in peers}] + missing,
            "machine": describe_machine(),
            "environments": results["environments"] | {e.name: e.versions for e in environments},
        }
        with Bench(environments[0], request.epochs) as bench:
            measure_all(bench, [r for r in runs if re.search(request.only, str(r), re.I)], results, output, say)
    return results


def _is_named(peer: Peer, parts: Sequence[str]) -> bool:
    return not parts or any(part.strip().lower() in peer.name.lower() for part in parts)


def _cases(peer: Peer, request: Request, workloads: Sequence[str], root: Path) -> Iterator[Case]:
    for workload in workloads:
        if workload in peer.entries:
            part = peer.entries[workload]
            limit = part and max(1, part * request.entries // STANDARD["w1"])
            both = (1, 2) if peer.kind == "ours" or peer.name == "in memory" else ()
            for cores in sorted({min(number, usable_cpus()) for number in (*request.cores, *both)}):
                yield Case(root, workload, limit, cores, peer.workers if cores > 1 else 0)


def _earlier(output: Path | None, sizes: dict[str, int]) -> dict[str, Any]:
    """What ``output`` has already."""
    results: dict[str, Any] = {"data": {}, "environments": {}, "missing": [], "runs": []}
    if output is not None and output.exists():
        results = json.loads(output.read_text())
    for name, count in sizes.items():
        if results["data"].setdefault(name, count) != count:
            raise InputError(f"{output} is of {results['data'][name]:,} entries of {name}, not {count:,}: name another")
    return results
