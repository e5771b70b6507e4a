"""How well batches of class-sorted files are mixed: the spread of the shares of classes, and what neighbours share."""

from typing import Any

import numpy as np
import pytest
import uproot

import storagering as sr
from storagering.loaders.torch import DataLoader

CLASSES, PER_CLASS, BATCH = 4, 15_000, 256


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One class a file, as simulation comes."""
    folder = tmp_path_factory.mktemp("sorted")
    paths = [folder / f"class{n}.root" for n in range(CLASSES)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        with uproot.recreate(path) as file:
            file["events"] = {"x": rng.normal(size=PER_CLASS), "label": np.full(PER_CLASS, number, np.int32)}
    return [str(path) for path in paths]


def class_noise(labels: list[Any]) -> float:
    """Spread of the shares of the classes over the hypergeometric one of a random order."""
    shares = np.array([np.bincount(batch, minlength=CLASSES) / BATCH for batch in labels if len(batch) == BATCH])
    total, p = CLASSES * PER_CLASS, 1 / CLASSES
    ideal = np.sqrt(p * (1 - p) / BATCH * (total - BATCH) / (total - 1))
    return float(np.sqrt((shares**2).mean(axis=0) - shares.mean(axis=0) ** 2).mean() / ideal)


@pytest.mark.parametrize(
    ("made", "loaded"),
    [({}, {}), ({"mix": 3}, {}), ({"layout": "rows"}, {"shuffle": "exact"}), ({}, {"shuffle": "exact"})],
    ids=["block", "mixed", "packed", "exact"],
)
def test_batches_have_the_shares_of_the_whole(files: list[str], made: dict[str, Any], loaded: dict[str, Any]) -> None:
    """Within 5 % of what a random order gives, up to the error of the estimate (some 900 batches); no bias in time."""
    sr.convert(files, name="sorted", chunk_bytes=1 << 15, workers=1, **made)
    loader = DataLoader("sorted", BATCH, ["label"], seed=2, **loaded)
    labels = [batch["label"].numpy() for _ in range(4) for batch in loader]
    assert class_noise(labels) == pytest.approx(1, abs=0.05 + 2 / np.sqrt(2 * len(labels) * (CLASSES - 1)))
    shares = np.array([(batch == 0).mean() for batch in labels if len(batch) == BATCH])
    assert abs(np.corrcoef(shares[1:], shares[:-1])[0, 1]) < 4 / np.sqrt(len(shares))  # from batch to batch
    whole = np.concatenate(labels).astype(float)
    assert abs(np.corrcoef(whole[1:], whole[:-1])[0, 1]) < 4 / np.sqrt(len(whole))  # from entry to entry


def test_ranks_are_mixed_as_well(files: list[str]) -> None:
    sr.convert(files, name="sorted", chunk_bytes=1 << 15, workers=1)
    for rank in range(4):
        loader = DataLoader("sorted", BATCH, ["label"], rank=rank, world_size=4)
        labels = [batch["label"].numpy() for _ in range(6) for batch in loader]
        assert class_noise(labels) < 1.15
