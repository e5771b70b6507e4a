from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")


def toy_jets(prongs: int, jets: int, seed: int) -> dict[str, Any]:
    """Jets with ``prongs`` hard directions: nothing physical, but they can be told apart."""
    import awkward as ak

    random = np.random.default_rng(seed)
    counts = random.integers(5, 25, jets)
    total = int(counts.sum())
    owner = np.repeat(np.arange(jets), counts)
    centres = random.normal(0, 0.25, (2, jets, prongs))
    prong = random.integers(0, prongs, total)
    deta, dphi = centres[:, owner, prong] + random.normal(0, 0.05, (2, total))
    pt = random.exponential(600 / counts[owner]) + 0.4
    jet_pt = np.bincount(owner, pt, jets)
    width = np.sqrt(np.bincount(owner, pt * (deta**2 + dphi**2), jets) / jet_pt)
    particles = {
        "pt": pt,
        "eta": deta,
        "phi": dphi,
        "energy": pt * np.cosh(deta),
        "deta": deta,
        "dphi": dphi,
    }
    table = {name: values.astype(np.float32) for name, values in particles.items()}
    table |= {"charge": random.integers(-1, 2, total, dtype=np.int32), "pid": np.full(total, 211, np.int32)}
    flat = {"jet_pt": jet_pt, "jet_eta": random.uniform(-2, 2, jets), "jet_mass": jet_pt * width}
    return {name: values.astype(np.float32) for name, values in flat.items()} | {
        "event": np.arange(jets),
        "part": ak.unflatten(ak.zip(table), counts),
    }


def write_toy_jets(path: Path, prongs: int, jets: int, seed: int) -> None:
    import uproot

    columns = toy_jets(prongs, jets, seed)
    types = {name: array.type if name == "part" else array.dtype for name, array in columns.items()}
    with uproot.recreate(path) as file:
        file.mktree("jets", types).extend(columns)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def jets(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Any:
    """600 toy jets, labelled top and qcd, in several chunks, as a dataset called ``toyjets``."""
    from storagering.api import convert
    from storagering.config import load_settings

    folder = tmp_path_factory.mktemp("jets")
    for seed, (name, prongs) in enumerate({"top": 3, "qcd": 1}.items()):
        write_toy_jets(folder / f"{name}.root", prongs, 300, seed)
    dataset = convert(
        {name: str(folder / f"{name}.root") for name in ("top", "qcd")},
        name="toyjets",
        chunk_bytes=1 << 15,
        settings=load_settings(cache=cache_folder, workers=1),
    )
    assert len(dataset.manifest.chunks) > 4
    return dataset
