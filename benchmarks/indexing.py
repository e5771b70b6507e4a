"""What selections read with statistics of chunks and bitmap indexes, and without; and one aggregate by three ways."""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import awkward as ak
import numpy as np
import uproot

import storagering as sr
from storagering.cache.indexing import drop_indexes, index_columns
from storagering.catalog.query import QueryResult, run_query

RUNS, TRIGGERS = 200, 400
#: Events in which one of the rarer triggers fired come in bunches, as detectors and their beams have it.
BUNCH = 500
AGGREGATE = """SELECT run, count(*) AS events, min(MET_pt) AS least, max(MET_pt) AS most, avg(MET_pt) AS mean,
    sum(nJet_pt) AS jets, sum(list_sum(Jet_pt)) AS ht FROM {name} WHERE trigger < 200 GROUP BY run ORDER BY run"""


def write_events(path: Path, entries: int) -> None:
    """Events sorted by run, with a trigger, a number and jets each."""
    rng = np.random.default_rng(11)
    with uproot.recreate(path) as file:
        for start in range(0, entries, 200_000):
            size = min(200_000, entries - start)
            number = np.arange(start, start + size)
            jets = rng.integers(0, 9, size)
            bunch = np.random.default_rng(number[0]).integers(0, TRIGGERS, size // BUNCH + 1)
            columns: dict[str, Any] = {
                "run": (number * RUNS // entries).astype(np.int32),
                "event": number,
                "trigger": np.repeat(bunch, BUNCH)[:size].astype(np.int16),
                "MET_pt": rng.exponential(40, size).astype(np.float32),
                "Jet_pt": ak.unflatten(rng.exponential(50, jets.sum()).astype(np.float32), jets),
                **{f"feature_{n}": rng.normal(0, 1, size).astype(np.float32) for n in range(8)},
            }
            if start == 0:
                file.mktree("Events", {name: ak.type(array).content for name, array in columns.items()})
            file["Events"].extend(columns)


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """What it gives, and the median of its seconds."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return result, round(statistics.median(seconds), 4)


def measure_query(query: str, repeats: int, *, pruned: bool = True) -> tuple[QueryResult, dict[str, Any]]:
    """Its result, the chunks read and seconds."""
    every = mock.patch("storagering.catalog.query.find_demands", return_value={})
    with nullcontext() if pruned else every:
        result, seconds = timed(partial(run_query, query), repeats)
    (reads,) = result.reads
    return result, {"chunks_read": reads.chunks, "chunks": reads.of, "seconds": seconds}


def compare_selection(query: str, repeats: int, index: tuple[str, list[str]] | None = None) -> dict[str, Any]:
    """One query that opens every chunk, that goes by statistics, and that goes by indexes where there are to be any."""
    whole, every = measure_query(query, repeats, pruned=False)
    result, by_statistics = measure_query(query, repeats)
    check_equal(result.table.to_pydict(), whole.table.to_pydict())
    figures = {"rows": whole.table.num_rows, "all_chunks": every, "statistics": by_statistics}
    if index is not None:
        name, columns = index
        begin = time.perf_counter()
        built = index_columns(name, columns)
        figures["index_build_seconds"] = round(time.perf_counter() - begin, 3)
        figures["index_bytes"] = sum(one.nbytes for one in built)
        result, figures["index"] = measure_query(query, repeats)
        check_equal(result.table.to_pydict(), whole.table.to_pydict())
        drop_indexes(name, columns)
    return figures


def aggregate_root(path: Path) -> dict[str, list[Any]]:
    """`AGGREGATE` by uproot and awkward."""
    with uproot.open(path) as file:
        events = file["Events"].arrays(["run", "trigger", "MET_pt", "nJet_pt", "Jet_pt"])
    events = events[events.trigger < 200]
    run, start = np.unique(np.asarray(events.run), return_index=True)
    met, jets = np.asarray(events.MET_pt), np.asarray(events.nJet_pt)
    ht = np.asarray(ak.sum(ak.values_astype(events.Jet_pt, np.float64), axis=1))
    count = np.diff([*start, len(met)])
    return {
        "run": run.tolist(),
        "events": count.tolist(),
        "least": np.minimum.reduceat(met, start).tolist(),
        "most": np.maximum.reduceat(met, start).tolist(),
        "mean": (np.add.reduceat(met.astype(np.float64), start) / count).tolist(),
        "jets": np.add.reduceat(jets.astype(np.int64), start).tolist(),
        "ht": np.add.reduceat(ht, start).tolist(),
    }


def check_equal(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Whether two answers are equal, sums of floating-point numbers but for the order in which they were added.

    Raises:
        ValueError: they are not.
    """
    for name, values in expected.items():
        exact = name not in ("mean", "ht")
        if not np.allclose(np.array(found[name], float), np.array(values, float), rtol=0 if exact else 1e-9, atol=0):
            raise ValueError(f"{name} differs")


def compare_aggregate(path: Path, names: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """Seconds of the same aggregate by uproot and awkward, and by SQL over each dataset; the answers are equal."""
    expected, seconds = timed(partial(aggregate_root, path), repeats)
    figures: dict[str, Any] = {"rows": len(expected["run"]), "uproot_awkward_seconds": seconds}
    for name in names:
        query = AGGREGATE.format(name=name)
        result, seconds = timed(partial(run_query, query), repeats)
        check_equal(result.table.to_pydict(), expected)
        figures[f"{name}_seconds"] = seconds
    return figures


def measure(folder: Path, entries: int, repeats: int, chunk_bytes: int) -> dict[str, Any]:
    """All figures, of datasets that are made below a folder."""
    path, names = folder / "events.root", ("zarr", "parquet")
    write_events(path, entries)
    figures: dict[str, Any] = {"entries": entries, "cut": {}, "bitmaps": {}}
    for name in names:
        sr.convert(str(path), name=name, format=name, chunk_bytes=chunk_bytes)  # type: ignore[arg-type]
        low, high = entries // 3, entries // 3 + entries // 100
        cut = f"SELECT count(*) AS n, max(MET_pt) AS most FROM {name} WHERE event BETWEEN {low} AND {high - 1}"
        figures["cut"][name] = compare_selection(cut, repeats)
        rare = f"SELECT event FROM {name} WHERE trigger IN (3, 77) AND run < {RUNS // 2} ORDER BY event"
        figures["bitmaps"][name] = compare_selection(rare, repeats, (name, ["trigger", "run"]))
    figures["aggregate"] = compare_aggregate(path, names, repeats)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--entries", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["STORAGERING_CACHE"] = str(Path(name) / "cache")
        figures = measure(Path(name), args.entries, args.repeats, 1 << 20)
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
