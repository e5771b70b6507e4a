"""Write the events that conversion is measured on: `events.root` (TTree, zstd 5) and `ntuple.root` (RNTuple, LZMA).

    python benchmarks/conversion_data.py FOLDER [--events 300000]

ROOT writes them if it can be imported (`pip install --only-binary :all: root`), so that baskets and pages are
as ROOT makes them; without it uproot does, and there is no `ntuple.root`. The events are as in NanoAOD: run and event
numbers, a generator weight, 48 trigger bits, jets, muons and generator particles, 582 bytes an event. Momenta are
ordered and fall, angles, masses and impact parameters of jets and muons have the 10 or 12 mantissa bits that NanoAOD
keeps, generator particles all 23.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

STEP = 50_000
TRIGGERS = 48
COLLECTIONS = {"Jet": 6.0, "Muon": 1.5, "GenPart": 10.0}
COUNTERS = tuple(f"n{name}" for name in COLLECTIONS)


def keep_bits(numbers: Any, bits: int) -> Any:
    """float32 rounded to that many mantissa bits."""
    drop = np.uint32(23 - bits)
    integers = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((integers + (np.uint32(1) << (drop - np.uint32(1)))) >> drop << drop).view(np.float32)


def falling_momenta(rng: np.random.Generator, counts: Any, scale: float) -> Any:
    """Transverse momenta, largest first in each event."""
    pt = 15 + scale * rng.pareto(2.5, int(counts.sum()))
    event = np.repeat(np.arange(len(counts)), counts)
    return pt[np.lexsort((-pt, event))].astype(np.float32)


def make_objects(rng: np.random.Generator, counts: Any) -> dict[str, Any]:
    """What jets and muons share."""
    total = int(counts.sum())
    return {
        "pt": falling_momenta(rng, counts, 40.0),
        "eta": keep_bits(rng.normal(0, 1.6, total), 12),
        "phi": keep_bits(rng.uniform(-np.pi, np.pi, total), 12),
        "d0": keep_bits(rng.standard_t(2, total) * 0.01, 10),
        "z0": keep_bits(rng.normal(0, 4.5, total), 10),
        "iso": np.where(rng.random(total) < 0.4, 0, rng.exponential(0.3, total)).astype(np.float32),
    }


def make_events(start: int, stop: int) -> dict[str, Any]:
    """Events ``start`` to ``stop``, always the same ones; ``start`` is a multiple of `STEP`."""
    rng = np.random.default_rng([5, start // STEP])
    count = stop - start
    number = np.arange(start, stop)
    signs = np.where(rng.random(count) < 0.15, -1, 1)
    columns: dict[str, Any] = {
        "run": (273158 + number // 40_000).astype(np.uint32),
        "luminosityBlock": (1 + number // 430 % 1800).astype(np.uint32),
        "event": (1_500_000_000 + 3 * number + rng.integers(0, 3, count)).astype(np.uint64),
        "genWeight": signs * 0.8314159 * rng.choice([1.0, 0.97, 1.02, 0.93], count),
    }
    rates = 0.3 * np.exp(-np.random.default_rng(5).exponential(3, TRIGGERS))
    fired = rng.random((TRIGGERS, count)) < rates[:, None]
    columns |= {f"HLT_path{i}": fired[i] for i in range(TRIGGERS)}
    for name, mean in COLLECTIONS.items():
        counts = rng.poisson(mean, count)
        fields = make_particles(rng, counts) if name == "GenPart" else make_objects(rng, counts)
        total = int(counts.sum())
        if name == "Jet":
            fields["mass"] = keep_bits(fields["pt"] * rng.gamma(4, 0.04, total), 10)
            fields["energy"] = np.hypot(fields["pt"] * np.cosh(fields["eta"]), fields["mass"])
        elif name == "Muon":
            fields["pdgid"] = rng.choice(np.array([-13, 13], np.int32), total)
            fields["status"] = rng.choice(np.array([1, 3, 7], np.int32), total, p=[0.1, 0.2, 0.7])
            fields["vz"] = np.repeat(rng.normal(0, 4.5, count), counts).astype(np.float32)
            fields["dxy_error"] = keep_bits(rng.gamma(3, 0.002, total), 10)
        columns[name] = ak.zip({k: ak.unflatten(v, counts) for k, v in fields.items()}, depth_limit=2)
    return columns


def make_particles(rng: np.random.Generator, counts: Any) -> dict[str, Any]:
    """Generator particles, in full precision."""
    total = int(counts.sum())
    kinds = np.array([21, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 11, -11, 13, -13, 22, 24, -24, 23], np.int32)
    pdgid = rng.choice(kinds, total, p=(weights := 1.0 / np.arange(1, len(kinds) + 1)) / weights.sum())
    masses = {5: 4.8, 6: 172.5, 23: 91.19, 24: 80.38}
    mass = np.zeros(total)
    for kind, value in masses.items():
        chosen = np.abs(pdgid) == kind
        mass[chosen] = value + (rng.standard_cauchy(chosen.sum()) if kind > 5 else 0)
    return {
        "pt": rng.exponential(30, total).astype(np.float32),
        "eta": rng.normal(0, 2.5, total).astype(np.float32),
        "phi": rng.uniform(-np.pi, np.pi, total).astype(np.float32),
        "mass": mass.astype(np.float32),
        "pdgid": pdgid,
        "status": rng.choice(np.array([1, 2, 22, 23, 44, 51, 62, 71], np.int32), total),
    }


def write_with_uproot(path: Path, events: int, compression: Any) -> int:
    """A TTree of all events; returns the decoded bytes, counters included once."""
    first = make_events(0, min(STEP, events))
    types = {k: v.dtype if isinstance(v, np.ndarray) else v.type.content for k, v in first.items()}
    decoded = 0
    with uproot.recreate(path, compression=compression) as file:
        tree = file.mktree("Events", types, counter_name=lambda c: f"n{c}", field_name=lambda o, i: f"{o}_{i}")
        for start in range(0, events, STEP):
            columns = make_events(start, min(start + STEP, events))
            tree.extend(columns)
            for array in columns.values():
                flat = isinstance(array, np.ndarray)
                decoded += array.nbytes if flat else sum(ak.flatten(array[f]).nbytes for f in array.fields)
                decoded += 0 if flat else 4 * len(array)
    return decoded


def rewrite_with_root(root: Any, seed: Path, folder: Path, with_ntuple: bool) -> None:
    """Let ROOT write the seed's events again, as TTree with zstd and as RNTuple with LZMA."""
    algorithms = root.RCompressionSetting.EAlgorithm
    formats = root.ROOT.RDF.ESnapshotOutputFormat
    jobs = [("events.root", formats.kTTree, algorithms.kZSTD, 5)]
    jobs += [("ntuple.root", formats.kRNTuple, algorithms.kLZMA, 8)] * with_ntuple
    for name, kind, algorithm, level in jobs:
        options = root.ROOT.RDF.RSnapshotOptions()
        options.fMode, options.fOutputFormat = "RECREATE", kind
        options.fCompressionAlgorithm, options.fCompressionLevel = algorithm, level
        frame = root.RDataFrame("Events", str(seed))
        names = [str(n) for n in frame.GetColumnNames()]
        if kind == formats.kRNTuple:  # its lists hold their lengths
            names = [n for n in names if n not in COUNTERS]
        frame.Snapshot("Events", str(folder / name), names, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--no-ntuple", action="store_true", help="the TTree only")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        import ROOT
    except ImportError:
        decoded = write_with_uproot(options.folder / "events.root", options.events, uproot.ZSTD(5))
        writer = f"uproot {uproot.__version__}"
    else:
        seed = options.folder / "seed.root"
        decoded = write_with_uproot(seed, options.events, None)
        rewrite_with_root(ROOT, seed, options.folder, not options.no_ntuple)
        seed.unlink()
        writer = f"ROOT {ROOT.gROOT.GetVersion()}"
    facts = {"events": options.events, "decoded_bytes": decoded, "writer": writer}
    (options.folder / "data.json").write_text(json.dumps(facts) + "\n")
    print(facts)


if __name__ == "__main__":
    main()
