"""The catalog of very many datasets: made anew, brought in line, and asked. Seconds, and milliseconds for queries."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storagering import Catalog
from storagering.cache.layout import open_cache
from storagering.catalog.index import catalog_path, index_dataset, sync_catalog
from storagering.config import load_settings
from storagering.testing.catalogs import make_many_datasets
from storagering.testing.machine import describe_machine

#: In a process of its own, so that its memory is known.
REBUILD = """
import json, resource, sys, time
from storagering import Catalog
from storagering.config import load_settings
catalog = Catalog(settings=load_settings(cache=sys.argv[1]))
begin, cpu = time.perf_counter(), time.process_time()
entered = catalog.rebuild()["manifests"]
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"entered": entered, "seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak}))
"""
_GRAIN_SECONDS = 2.5


def seconds_of(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and most in milliseconds, and the median of the processor's time, which other programs disturb less."""
    found, cpu = [], []
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - begin) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    return _summary(found, cpu)


def _summary(found: list[float], cpu: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(found), 3),
        "most_ms": round(max(found), 3),
        "cpu_ms": round(statistics.median(cpu), 3),
    }


def rebuilding(root: Path, repeats: int) -> dict[str, float]:
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", REBUILD, str(root)], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}


def syncing(root: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Where nothing changed, and where one dataset came, went, or is told of by who made it."""
    cache = open_cache(load_settings(cache=root))
    for _ in range(2):
        sync_catalog(cache)
        time.sleep(_GRAIN_SECONDS)  # what changed just now is looked at again
    found = {"unchanged": seconds_of(lambda: sync_catalog(cache), repeats)}
    folder, away = cache.path("set-00001"), root / "away"
    changes: dict[str, list[tuple[float, float]]] = {"one_removed": [], "one_added": []}
    for _ in range(repeats):
        for what, source, target in (("one_removed", folder, away), ("one_added", away, folder)):
            source.rename(target)
            begin, used = time.perf_counter(), time.process_time()
            assert sync_catalog(cache)["manifests"] == 1
            changes[what].append(((time.perf_counter() - begin) * 1e3, (time.process_time() - used) * 1e3))
    for what, times in changes.items():
        found[what] = _summary([seconds for seconds, _ in times], [used for _, used in times])
    found["index_dataset"] = seconds_of(lambda: index_dataset(cache, "set-00001"), repeats)
    return found


def asking(root: Path, datasets: int, repeats: int) -> dict[str, dict[str, float]]:
    """Named queries in a ``with`` block, each of another dataset every time."""
    found = {}
    with Catalog(settings=load_settings(cache=root)) as catalog:
        names = [f"set-{(number * 7919) % datasets:05d}" for number in range(repeats + 1)]
        digests = [catalog.chunk(name, 3).digest for name in names]
        for what in ("columns", "chunks", "sources", "versions", "lineage", "residents"):
            these, ask = iter(names), getattr(catalog, what)
            found[what] = seconds_of(lambda ask=ask, these=these: ask(next(these)), repeats)
        found["datasets"] = seconds_of(catalog.datasets, repeats)
        these = iter(names)
        found["chunk"] = seconds_of(lambda: catalog.chunk(next(these), 5), repeats)
        wanted = iter(digests)
        found["find"] = seconds_of(lambda: catalog.find(next(wanted)), repeats)
        for what, query in (
            ("sql, datasets", "SELECT format, sum(nbytes) FROM datasets GROUP BY 1"),
            ("sql, chunks", "SELECT dataset, max(nbytes) AS most FROM chunks GROUP BY 1 ORDER BY most DESC LIMIT 3"),
        ):
            found[what] = seconds_of(lambda query=query: catalog.sql(query), max(3, repeats // 4))
    return found


def opening(root: Path, repeats: int) -> dict[str, dict[str, float]]:
    """All that a ``with`` block costs, and a query without one: bringing the catalog in line included."""
    settings = load_settings(cache=root)

    def enter() -> None:
        with Catalog(settings=settings):
            pass

    return {
        "with": seconds_of(enter, repeats),
        "chunk": seconds_of(lambda: Catalog(settings=settings).chunk("set-00007", 5), repeats),
        "sql": seconds_of(lambda: Catalog(settings=settings).sql("SELECT count(*) FROM datasets"), repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--datasets", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=100, help="of each dataset")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--folder", type=Path, help="where the cache is made (default: a temporary folder)")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        cache = open_cache(load_settings(cache=root / "cache"))
        make_many_datasets(cache.root, args.datasets, args.chunks, resident=True)
        figures = {
            "machine": describe_machine(),
            "other_programs": os.getloadavg()[0],
            "datasets": args.datasets,
            "chunks": args.datasets * args.chunks,
            "rebuild": rebuilding(cache.root, 3),
            "file_mb": round(catalog_path(cache).stat().st_size / 1e6, 1),
            "sync": syncing(cache.root, args.repeats),
            "queries_in_a_with_block": asking(cache.root, args.datasets, args.repeats),
            "from_nothing": opening(cache.root, args.repeats),
        }
    finally:
        shutil.rmtree(root)
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
