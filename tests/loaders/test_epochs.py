"""Iterations of several epochs, and without end."""

import threading
from itertools import islice
from pathlib import Path

import pytest

import storagering as sr
from storagering.errors import SpecError
from storagering.loaders.torch import DataLoader

COLUMNS = ["number"]


def batches(loader: DataLoader) -> list[tuple[int, ...]]:
    return [tuple(b["number"].tolist()) for b in loader]


def test_several_epochs_are_one_after_the_other(events: sr.Dataset) -> None:
    plain = DataLoader(events, 400, COLUMNS)
    expected = [batches(plain) for _ in range(4)]
    loader = DataLoader(events, 400, COLUMNS, num_epochs=2)
    assert len(loader) == 2 * len(plain)
    assert [batches(loader), batches(loader)] == [expected[0] + expected[1], expected[2] + expected[3]]
    assert loader.epoch == 4
    loader.set_epoch(1)
    assert batches(loader) == expected[1] + expected[2]


def test_without_end(events: sr.Dataset) -> None:
    plain = DataLoader(events, 400, COLUMNS)
    expected = [b for _ in range(3) for b in batches(plain)]
    with DataLoader(events, 400, COLUMNS, num_epochs=None) as loader:
        with pytest.raises(TypeError, match="no length"):
            len(loader)
        found = [tuple(b["number"].tolist()) for b in islice(loader, len(expected))]
        assert found == expected
        state = loader.state_dict()
        assert (state["epoch"], state["step"]) == (3, 0)


def test_resuming_at_every_step_of_two_epochs(events: sr.Dataset) -> None:
    saver = DataLoader(events, 700, COLUMNS, num_epochs=2)
    states, expected = [saver.state_dict()], []
    for batch in saver:
        expected.append(tuple(batch["number"].tolist()))
        states.append(saver.state_dict())
    for done, state in enumerate(states[:-1]):
        loader = DataLoader(events, 700, COLUMNS, num_epochs=2)
        loader.load_state_dict(state)
        assert batches(loader) == expected[done:]
        assert loader.epoch == 2


def test_who_counts_batches_gets_the_next_epoch(events: sr.Dataset) -> None:
    plain = DataLoader(events, 700, COLUMNS)
    expected = [batches(plain) for _ in range(2)]
    with DataLoader(events, 700, COLUMNS) as loader:
        for epoch in range(2):
            iterator = iter(loader)
            found = [next(iterator) for _ in range(len(loader))]  # and no StopIteration
            assert [tuple(b["number"].tolist()) for b in found] == expected[epoch]


def test_nothing_comes_to_an_end(toy_files: list[Path]) -> None:
    empty = sr.convert(str(toy_files[0]), name="nothing", where="MET_pt < 0", workers=1)
    assert list(DataLoader(empty, 8, ["MET_pt"], num_epochs=None)) == []
    assert list(DataLoader(empty, 8, ["MET_pt"], num_epochs=3)) == []


def test_refusal(events: sr.Dataset) -> None:
    with pytest.raises(SpecError, match="num_epochs=0"):
        DataLoader(events, num_epochs=0)


def test_the_next_epoch_is_begun_before_this_one_ends(events: sr.Dataset) -> None:
    """Its first windows are made meanwhile; all its threads end with the iteration, however that ends."""
    before = threading.active_count()
    loader = DataLoader(events, 400, COLUMNS, num_epochs=None)
    batches = iter(loader)
    next(batches)
    begun = threading.active_count()
    assert begun > before
    once = DataLoader(events, 400, COLUMNS)
    alone = iter(once)
    next(alone)
    assert threading.active_count() - begun < begun - before, "the other loader begins one epoch only"
    once.close()
    del batches
    assert threading.active_count() == before
    for _ in loader:
        loader.close()
    assert threading.active_count() == before
