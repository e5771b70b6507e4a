"""The two workloads that loading and converting are measured on, as ROOT files and as arrays.

``flat``: events of 28 float32 features of a limited number of mantissa bits, as analyses store them.
``jagged``: jets of 10-128 particles with 8 float32 features each. One class a file, as simulation comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.types import Array

FLAT_FEATURES = tuple(f"x{number:02d}" for number in range(28))
JET_FEATURES = ("pt", "eta", "phi", "mass")
PARTICLE_FEATURES = ("px", "py", "pz", "e", "deta", "dphi", "d0", "charge")
MAX_PARTICLES = 128
_ENTRIES_PER_BASKET = {"flat": 50_000, "jagged": 5_000}


@dataclass(frozen=True)
class Workload:
    """ROOT files, and how a loader asks for their columns.

    Attributes:
        columns: groups for the loader; ``y`` is the label.
        raw_bytes: size of the tensors of one epoch, without padding.
    """

    name: str
    files: tuple[Path, ...]
    entries: int
    columns: dict[str, str | list[str]]
    raw_bytes: int


def make_workload(name: str, folder: Path, entries: int) -> Workload:
    """Write a workload's files (``flat`` or ``jagged``), two classes, with a fixed seed."""
    files, raw = [], 0
    for label in range(2):
        rng = np.random.default_rng([label, entries])
        count = entries // 2 + (entries % 2 if label else 0)
        columns = _flat(rng, count, label) if name == "flat" else _jagged(rng, count, label)
        files.append(folder / f"{name}-{label}.root")
        _write(files[-1], columns, count, _ENTRIES_PER_BASKET[name])
        raw += sum(int(array.nbytes) for array in columns.values())
    columns_of: dict[str, dict[str, str | list[str]]] = {
        "flat": {"x": list(FLAT_FEATURES), "y": "label"},
        "jagged": {
            "particles": [f"part_{f}" for f in PARTICLE_FEATURES],
            "jet": [f"jet_{f}" for f in JET_FEATURES],
            "y": "label",
        },
    }
    return Workload(name, tuple(files), entries, columns_of[name], raw)


def keep_bits(numbers: Array, bits: int) -> Array:
    """float32 rounded to that many mantissa bits."""
    integers = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    drop = np.uint32(23 - bits)
    half = np.uint32(1) << (drop - np.uint32(1))
    return ((integers + half) >> drop << drop).view(np.float32)


def _flat(rng: np.random.Generator, count: int, label: int) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for number, name in enumerate(FLAT_FEATURES):
        kind = number % 4
        if kind == 0:
            columns[name] = keep_bits(20 + rng.exponential(45 + 15 * label, count), 14)
        elif kind == 1:
            columns[name] = keep_bits(rng.normal(0, 1.2, count), 12)
        elif kind == 2:
            columns[name] = keep_bits(rng.uniform(-np.pi, np.pi, count), 12)
        else:
            columns[name] = rng.choice(np.array([0.0, 1.0865, 2.173], np.float32), count, p=[0.5, 0.2, 0.3])
    columns["label"] = np.full(count, label, np.int32)
    return columns


def _jagged(rng: np.random.Generator, count: int, label: int) -> dict[str, Any]:
    counts = (10 + rng.gamma(2.2 + 0.4 * label, 14.2, count)).astype(np.int64).clip(10, MAX_PARTICLES)
    total = int(counts.sum())
    features = {
        "px": keep_bits(rng.normal(0, 20, total), 14),
        "py": keep_bits(rng.normal(0, 20, total), 14),
        "pz": keep_bits(rng.normal(0, 40, total), 14),
        "e": keep_bits(rng.exponential(30, total), 14),
        "deta": keep_bits(rng.laplace(0, 0.12, total), 12),
        "dphi": keep_bits(rng.laplace(0, 0.12, total), 12),
        "d0": keep_bits(np.tanh(rng.standard_cauchy(total) * 0.02), 10),
        "charge": rng.choice(np.array([-1, 0, 1], np.float32), total, p=[0.3, 0.4, 0.3]),
    }
    columns: dict[str, Any] = {"part": ak.unflatten(ak.zip(features), counts)}
    for feature, scale in zip(JET_FEATURES, (600.0, 2.0, 3.1, 90.0), strict=True):
        columns[f"jet_{feature}"] = keep_bits(rng.uniform(0, scale, count), 14)
    columns["label"] = np.full(count, label, np.int32)
    return columns


def _write(path: Path, columns: dict[str, Any], count: int, per_basket: int) -> None:
    types = {n: a.type.content if isinstance(a, ak.Array) else a.dtype for n, a in columns.items()}
    with uproot.recreate(path, compression=uproot.ZSTD(5)) as file:
        tree = file.mktree("events", types)
        for start in range(0, count, per_basket):
            tree.extend({n: a[start : start + per_basket] for n, a in columns.items()})
