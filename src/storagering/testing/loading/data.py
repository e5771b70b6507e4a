"""The standard workloads: one process or class a file, as simulation comes, with fixed seeds.

- ``w1``: events of 28 float32 features of 12-14 mantissa bits, falling spectra, masses, b-tags; two processes of each
  of two classes.
- ``w2``: jets of 10-128 particles (about 45) of 8 float32 features, and 4 of their own; ten classes.
- ``w3``: images of 25 x 25 x 25 float32, a tenth of them not zero, of electron-like and wider, deeper showers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from storagering.errors import InputError
from storagering.testing.loading.case import FLAT_FEATURES, IMAGE, Array, Block, Jagged, join
from storagering.testing.loading.source import FILES, write_sources
from storagering.testing.workloads import keep_bits

#: Entries of the standard workloads.
STANDARD = {"w1": 2_000_000, "w2": 200_000, "w3": 10_000}


def make_data(root: Path, entries: Mapping[str, int]) -> None:
    """Write the workloads that are not there: their own files, and plain arrays of the same numbers.

    Args:
        entries: workload (w1, w2, w3) -> size.

    Raises:
        InputError: the folder has a workload of another size.
    """
    for name, count in entries.items():
        folder, files = root / name, FILES[name]
        made = folder / "made.json"
        if made.exists():
            if (found := json.loads(made.read_text())["entries"]) != count:
                raise InputError(f"{folder} holds {found:,} entries, not {count:,}: name another folder, or remove it")
            continue
        sizes = [count * (k + 1) // files - count * k // files for k in range(files)]
        block = join([_MAKERS[name](np.random.default_rng([int(name[1]), k]), size, k) for k, size in enumerate(sizes)])
        write_sources(name, block, folder / "source")
        for title, array in _arrays(name, block).items():
            np.save(folder / f"{title}.npy", array)
        made.write_text(json.dumps({"entries": count}))


def _arrays(name: str, block: Block) -> dict[str, Array]:
    first, *flat, label = block
    if isinstance(first, Jagged):
        return {"values": first.values, "offsets": first.offsets, "jet": np.asarray(flat[0]), "y": np.asarray(label)}
    if name == "w1":
        return {"x": first, "y": np.asarray(label)}
    return {"images": first, "energy": np.asarray(flat[0]), "y": np.asarray(label)}


def _labels(count: int, label: int) -> Array:
    return np.full(count, label, np.int32)


def _mass(rng: np.random.Generator, count: int, mass: float, width: float) -> Array:
    return np.abs(mass + width / 2 * np.tan(np.pi * (rng.random(count) - 0.5) * 0.94))


def _events(rng: np.random.Generator, count: int, number: int) -> Block:
    """Background from the first two files, signal from the others."""
    signal = number >= 2

    def angle() -> Array:
        return keep_bits(rng.uniform(-np.pi, np.pi, count), 12)

    def falling(low: float, scale: float) -> Array:
        return low + rng.exponential(scale, count)

    columns = {
        "lep_pt": falling(20, 45 if signal else 32),
        "lep_eta": np.round(rng.normal(0, 1.1, count).clip(-2.5, 2.5), 4),
        "lep_phi": angle(),
        "met": falling(0, 60 if signal else 42),
        "met_phi": angle(),
    }
    momenta = np.sort(25 + rng.exponential(70 if signal else 55, (count, 4)), axis=1)[:, ::-1]
    tags = [0.45, 0.2, 0.35] if signal else [0.6, 0.2, 0.2]
    for k in range(4):
        columns[f"jet{k + 1}_pt"] = keep_bits(momenta[:, k], 14)
        columns[f"jet{k + 1}_eta"] = keep_bits(rng.normal(0, 1.4, count).clip(-4.7, 4.7), 12)
        columns[f"jet{k + 1}_phi"] = angle()
        columns[f"jet{k + 1}_btag"] = rng.choice([0.0, 1.0865, 2.173], count, p=tags)
    columns |= {
        "m_jj": _mass(rng, count, 80.4, 8) if signal else falling(40, 60),
        "m_jjj": _mass(rng, count, 172.5, 18),
        "m_lv": _mass(rng, count, 80.4, 3),
        "m_jlv": 90 + rng.gamma(3, 30, count),
        "m_bb": _mass(rng, count, 125, 14) if signal else falling(30, 80),
        "m_wbb": 150 + rng.gamma(3, 50 if signal else 62, count),
        "m_wwbb": 220 + rng.gamma(3, 70 if signal else 85, count),
    }
    features = np.stack([columns[name].astype(np.float32) for name in FLAT_FEATURES], axis=1)
    return features, _labels(count, int(signal))


def _jets(rng: np.random.Generator, count: int, label: int) -> Block:
    """Particles of falling momentum share around an axis."""
    counts = (10 + rng.gamma(2.2 + 0.08 * label, 14.2, count)).astype(np.int64).clip(10, 128)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1])
    jet_pt = 500 + rng.exponential(110, count)
    jet_eta, jet_phi = rng.uniform(-2, 2, count), rng.uniform(-np.pi, np.pi, count)
    share = rng.exponential(1.0, total) ** 1.6
    share = share[np.lexsort((-share, np.repeat(np.arange(count), counts)))]
    pt = share / np.repeat(np.add.reduceat(share, offsets[:-1]) / jet_pt, counts)
    deta, dphi = rng.laplace(0, 0.12, total), rng.laplace(0, 0.12, total)
    eta, phi = np.repeat(jet_eta, counts) + deta, np.repeat(jet_phi, counts) + dphi
    charge = rng.choice([-1.0, 0.0, 1.0], total, p=[0.3, 0.4, 0.3])
    distance = np.where(charge != 0, np.tanh(rng.standard_cauchy(total) * 0.02), 0.0)
    momentum = [keep_bits(pt * f, 14) for f in (np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta))]
    rest = [keep_bits(deta, 12), keep_bits(dphi, 12), keep_bits(distance, 10), charge.astype(np.float32)]
    mass = _mass(rng, count, 80 + 10 * label, 12) if label else rng.gamma(3, 20, count)
    jet = np.stack([jet_pt, jet_eta, jet_phi, mass], axis=1).astype(np.float32)
    return Jagged(np.stack(momentum + rest, axis=1), offsets), jet, _labels(count, label)


def _showers(rng: np.random.Generator, count: int, label: int) -> Block:
    """Energy around an axis, noisy; the lowest nine tenths of the cells are zero."""
    # No energy comes twice: it tells the images apart.
    energy = rng.permutation(10 + 490 * (np.arange(count) + label / 2) / count).astype(np.float32)
    grid = np.arange(IMAGE[0]) - IMAGE[0] // 2
    radius = np.hypot(grid[:, None], grid[None, :])
    images = np.empty((count, *IMAGE), np.float32)
    for start in range(0, count, 500):
        part = energy[start : start + 500]
        peak = 6 + 2 * label + 1.2 * np.log(part)
        depth = np.exp(-0.5 * ((np.arange(IMAGE[2]) - peak[:, None]) / (4.5 + label)) ** 2)  # (B, 25)
        mean = 0.02 * part[:, None, None, None] * np.exp(-radius / (2.2 + label))[:, :, None] * depth[:, None, None, :]
        cells = rng.gamma(0.6, 1.0, mean.shape) * mean / 0.6
        cells[cells < np.quantile(cells, 0.9)] = 0.0
        images[start : start + 500] = keep_bits(cells, 14)
    return images, energy, _labels(count, label)


_MAKERS: dict[str, Callable[[np.random.Generator, int, int], Block]] = {"w1": _events, "w2": _jets, "w3": _showers}
