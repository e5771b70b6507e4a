"""Cache policies beside the optimum on made-up traces, and strategies of placement: figures with their spread."""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storagering.simulation.generated import KINDS, make_trace
from storagering.simulation.optimum import find_optimum
from storagering.simulation.plots import draw_hit_ratios
from storagering.simulation.policies import POLICIES, replay
from storagering.simulation.reading import load_traces
from storagering.simulation.study import compare_policies, compare_strategies
from storagering.simulation.world import make_worlds

LONG = 1_000_000


def measure_speed() -> dict[str, Any]:
    """Seconds of one replay of a million accesses, compiled before, and of the optimum."""
    seconds = {}
    for kind in ("drift", "mixture"):
        short = make_trace(kind, seed=0, accesses=1000, items=100)
        trace = make_trace(kind, seed=0, accesses=LONG, items=100_000)
        capacity = trace.footprint_bytes // 10
        for policy in POLICIES:
            replay(short, short.footprint_bytes // 10, policy)
            begin = time.perf_counter()
            replay(trace, capacity, policy)
            seconds[f"{kind}, {policy}"] = round(time.perf_counter() - begin, 2)
        find_optimum(short, short.footprint_bytes // 10)
        begin = time.perf_counter()
        find_optimum(trace, capacity)
        seconds[f"{kind}, optimum"] = round(time.perf_counter() - begin, 2)
    return {"accesses": LONG, "items": 100_000, "seconds": seconds}


def rounded(value: Any) -> Any:
    """Four digits are enough of a share, and whole numbers of the rest."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, float):
        return round(value, 4) if abs(value) <= 1 else round(value)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "simulation.json")
    parser.add_argument("--plots", type=Path, help="folder for a PNG of each kind of trace")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2000)
    args = parser.parse_args()
    caches = {}
    for kind in KINDS:
        points = compare_policies(load_traces(kind, seeds=args.seeds))
        caches[kind] = [rounded(asdict(point)) for point in points]
        if args.plots:
            draw_hit_ratios(args.plots / f"{kind}.png", points, title=kind)
        print(f"{kind}: done", flush=True)
    sites = [rounded(asdict(one)) for one in compare_strategies(make_worlds(args.seeds, jobs=args.jobs))]
    found = {
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "seeds": args.seeds,
        "speed": measure_speed(),
        "caches": caches,
        "sites": sites,
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
