"""Entries drawn by weight: as often as their share says, as many as there are, and a pure function of the seed."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loaders.numbered import columns_of, numbered

import storagering as sr
from storagering.errors import LoaderError, SpecError
from storagering.loaders.resampling import draw_segments
from storagering.loaders.torch import DataLoader
from storagering.loaders.weights import Weights

BALANCED = Weights(classes="balanced")


def batches(events: sr.Dataset, **options: Any) -> list[list[int]]:
    options = {"batch_size": 64, "resample": BALANCED, "seed": 2, **options}
    with DataLoader(events, columns=["number"], **options) as loader:
        return [batch["number"].tolist() for batch in loader]


@pytest.mark.parametrize("shuffle", ["block", "exact"])
def test_classes_come_equally_often(events: sr.Dataset, shuffle: Any) -> None:
    labels = columns_of()["label"]
    plain, found = batches(events, shuffle=shuffle, resample=None), batches(events, shuffle=shuffle)
    assert [len(b) for b in found] == [len(b) for b in plain]
    drawn = [n for batch in found for n in batch]
    # A stream of the windows of this small dataset has some 20 entries, which makes them prefer what is frequent a bit.
    assert labels[drawn].mean() == pytest.approx(0.5, abs=0.002 if shuffle == "exact" else 0.05)
    counts = Counter(drawn)
    rare = [counts[n] for n in np.flatnonzero(labels == 1).tolist()]
    assert min(rare) >= 1  # 2.5 are expected of each
    assert max(rare) <= 4
    assert max(counts[n] for n in np.flatnonzero(labels == 0).tolist()) == 1


def test_all_columns_of_an_entry_are_drawn_together(events: sr.Dataset) -> None:
    columns = columns_of()
    with DataLoader(events, 64, ["number", "pt", "jets", "label"], resample=BALANCED, jagged="flat") as loader:
        for batch in loader:
            numbers = batch["number"].numpy()
            np.testing.assert_array_equal(batch["pt"], columns["pt"][numbers])
            np.testing.assert_array_equal(np.diff(batch["jets_offsets"]), numbers % 3)


def test_flat_in_pt(events: sr.Dataset) -> None:
    edges = [0.0, 50, 100, 150, 200]
    weights = Weights(bins={"pt": edges})
    drawn = [n for b in batches(events, resample=weights, where="pt < 200", shuffle="exact") for n in b]
    counts = np.histogram(columns_of()["pt"][drawn], edges)[0]
    assert counts.max() / counts.min() < 1.1


def test_windows_of_a_usual_size_draw_what_the_weights_say(tmp_path: Path) -> None:
    made = numbered(tmp_path, entries=40_000, chunk_bytes=1 << 17, workers=1, columns=["number", "label"])
    drawn = [n for b in batches(made) for n in b]
    assert columns_of(40_000)["label"][drawn].mean() == pytest.approx(0.5, abs=0.004)


@pytest.mark.parametrize("shuffle", ["block", "exact"])
def test_it_is_a_pure_function(events: sr.Dataset, shuffle: Any) -> None:
    first = batches(events, shuffle=shuffle)
    assert batches(events, shuffle=shuffle, threads=4, prefetch_batches=0) == first
    assert batches(events, shuffle=shuffle, seed=3) != first
    with DataLoader(events, 64, ["number"], resample=BALANCED, seed=2, shuffle=shuffle) as loader:
        for step, _ in enumerate(loader):
            if step == 20:
                break
        state = loader.state_dict()
    again = DataLoader(events, 64, ["number"], resample=BALANCED, seed=2, shuffle=shuffle)
    again.load_state_dict(state)
    assert [b["number"].tolist() for b in again] == first[21:]
    assert sorted(n for b in again for n in b["number"].tolist()) != sorted(n for b in first for n in b)


@pytest.mark.parametrize("shuffle", ["block", "exact"])
@pytest.mark.parametrize("tail", ["short", "drop", "pad"])
def test_the_same_global_batches_for_any_number_of_ranks(events: sr.Dataset, shuffle: Any, tail: Any) -> None:
    whole = [sorted(b) for b in batches(events, shuffle=shuffle, tail=tail)]
    ranks = [
        batches(events, batch_size=16, rank=r, world_size=4, shuffle=shuffle, tail=tail, threads=1) for r in range(4)
    ]
    assert [sorted(n for part in parts for n in part) for parts in zip(*ranks, strict=True)] == whole


def test_weights_may_be_delivered_as_well(events: sr.Dataset) -> None:
    columns = columns_of()
    with DataLoader(events, 64, ["number"], resample=BALANCED, weights=Weights(column="own")) as loader:
        for batch in loader:
            np.testing.assert_array_equal(batch["weight"], columns["own"][batch["number"]].astype(np.float32))


def test_refusals(events: sr.Dataset) -> None:
    with pytest.raises(SpecError, match="shuffle='block' or 'exact'"):
        DataLoader(events, resample=BALANCED, shuffle=None)
    with pytest.raises(SpecError, match="tail='wrap'"):
        DataLoader(events, resample=BALANCED, tail="wrap")
    with DataLoader(events, 64, resample=Weights(column="eta")) as loader, pytest.raises(LoaderError, match="negative"):
        list(loader)
    rare = Weights(bins={"pt": [400, 900]})
    with DataLoader(events, 64, resample=rare) as loader, pytest.raises(LoaderError, match="where="):
        list(loader)
    with pytest.raises(SpecError, match="none negative"):
        DataLoader(events, resample=Weights(column="eta"), shuffle="exact")


@settings(max_examples=60)
@given(
    segments=st.lists(st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0, 1e9]), max_size=9), min_size=1, max_size=4),
    word=st.integers(0, 2**64 - 1),
)
def test_systematic_draws(segments: list[list[float]], word: int) -> None:
    weights = np.array([w for segment in segments for w in segment], np.float64)
    edges = np.cumsum([0, *map(len, segments)])
    drawn = np.empty(len(weights), np.int64)
    possible = all(sum(segment) > 0 for segment in segments if segment)
    assert draw_segments(weights, edges, np.full(len(segments), word, np.uint64), drawn) == possible
    if not possible:
        return
    for number, segment in enumerate(segments):
        own = drawn[edges[number] : edges[number + 1]]
        counts = np.bincount(own - edges[number], minlength=len(segment)) if len(segment) else np.zeros(0)
        expected = np.array(segment) * len(segment) / max(sum(segment), 1e-300)
        assert (np.abs(counts - expected) < 1 + 1e-6).all()
        assert not counts[np.array(segment) == 0].any()


def test_the_rows_layout_gives_the_same_batches(events: sr.Dataset, tmp_path: Path) -> None:
    rows = numbered(tmp_path, workers=1, layout="rows")
    options: dict[str, Any] = {"where": "pt > 20", "standardise": ["x"], "weights": Weights(column="own")}
    groups = {"x": ["pt", "eta"], "number": "number", "jets": "jets"}
    found = []
    for data in (events, rows):
        with DataLoader(data, 64, groups, shuffle="exact", resample=BALANCED, jagged="flat", **options) as loader:
            found.append(list(loader))
    for one, other in zip(*found, strict=True):
        assert set(one) == {"x", "number", "jets", "jets_offsets", "weight"}
        assert all((one[key] == other[key]).all() for key in one)
