"""Several datasets in one sequence: exact shares over time, whole epochs of each, resumable anywhere."""

import json
import threading
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loaders.numbered import columns_of, numbered

import storagering as sr
from storagering.config import load_settings
from storagering.errors import ResumeMismatchError, SchemaError, SpecError
from storagering.loaders.mixture import Mix, _apportion
from storagering.loaders.torch import DataLoader
from storagering.loaders.weights import Weights

COLUMNS = ["number", "jets"]
FEW, FIRST = 500, 100_000


@pytest.fixture(scope="session")
def pair(events: sr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[sr.Dataset]:
    """4,000 entries, and 500 whose numbers begin at 100,000."""
    folder = tmp_path_factory.mktemp("few")
    settings = load_settings(cache=folder / "cache", workers=1)
    return [events, numbered(folder, "few", FEW, FIRST, settings=settings)]


def loader(pair: list[sr.Dataset], shares: tuple[float, float] = (0.75, 0.25), **options: Any) -> DataLoader:
    mix = Mix(list(zip(pair, shares, strict=True)), until=options.pop("until", "last"))
    return DataLoader(mix, columns=COLUMNS, **{"batch_size": 40, **options})


def numbers(batches: Iterable[Any]) -> list[list[int]]:
    return [b["number"].tolist() for b in batches]


def test_shares_are_exact_over_time(pair: list[sr.Dataset]) -> None:
    with loader(pair, (0.7, 0.3), batch_size=7, until="first", jagged="flat") as mixed:
        batches = numbers(mixed)
    assert len(batches) == int(FEW / 0.3 / 7)
    assert {len(b) for b in batches} == {7}
    assert {sum(n >= FIRST for n in b) for b in batches} == {2, 3}
    assert sum(n >= FIRST for b in batches[:230] for n in b) == 230 * 7 * 0.3


@pytest.mark.parametrize("until", ["first", "last"])
def test_an_epoch_ends_with_the_first_dataset_or_the_last(pair: list[sr.Dataset], until: Any) -> None:
    with loader(pair, until=until) as mixed:
        first, second = numbers(mixed), numbers(mixed)
    assert len(first) == len(second) == (FEW // 10 if until == "first" else -(-4000 // 30))
    counts = Counter(n for batch in first for n in batch)
    if until == "first":
        assert {counts[n] for n in range(FIRST, FIRST + FEW)} == {1}
        assert {counts[n] for n in range(4000)} == {0, 1}
    else:
        assert {counts[n] for n in range(4000)} <= {1, 2}
        assert {counts[n] for n in range(FIRST, FIRST + FEW)} <= {2, 3}  # 1,340 of 500
    assert not any(a == b for a, b in zip(first, second, strict=True))


def test_parts_are_what_each_dataset_alone_would_give(pair: list[sr.Dataset]) -> None:
    with loader(pair) as mixed:
        found = numbers(islice(mixed, 70))
    for own, data, size in ((slice(30), pair[0], 30), (slice(30, 40), pair[1], 10)):
        with DataLoader(data, size, COLUMNS, num_epochs=None) as alone:
            assert [b[own] for b in found] == numbers(islice(alone, 70))  # 700 of 500: more than an epoch


@pytest.mark.parametrize(("shares", "jagged"), [((0.75, 0.25), "padded"), ((0.7, 0.3), "flat"), ((0.7, 0.3), "nested")])
def test_resuming_anywhere(pair: list[sr.Dataset], shares: tuple[float, float], jagged: Any) -> None:
    options: dict[str, Any] = {"jagged": jagged, "batch_size": 250, "num_epochs": 2}
    with loader(pair, shares, **options) as mixed:
        states, found = [mixed.state_dict()], []
        for batch in mixed:
            found.append(batch["number"].tolist())
            states.append(mixed.state_dict())
    assert len(found) == 2 * (22 if shares[0] == 0.75 else 23)
    for done in (1, 22, len(found) - 1):
        with loader(pair, shares, **options) as again:
            again.load_state_dict(json.loads(json.dumps(states[done])))
            assert numbers(again) == found[done:]


def test_ranks_share_what_one_alone_would_have(pair: list[sr.Dataset]) -> None:
    with loader(pair) as mixed:
        whole = [sorted(b) for b in numbers(mixed)]
    ranks = []
    for rank in (0, 1):
        with loader(pair, batch_size=20, rank=rank, world_size=2) as mixed:  # 15 and 5 of 20
            ranks.append(numbers(mixed))
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)][:133] == whole[:133]  # until one begins again


def test_ranks_do_not_overlap_when_shares_do_not_divide(pair: list[sr.Dataset]) -> None:
    found = []
    for rank in (0, 1, 2):
        with loader(pair, (0.95, 0.05), batch_size=9, rank=rank, world_size=3, until="first") as mixed:
            found += numbers(mixed)
            assert len(mixed) == int(4000 / 0.95 / 27)
    assert set(Counter(n for b in found for n in b if n < FIRST).values()) == {1}


def test_padded_parts_are_joined(pair: list[sr.Dataset]) -> None:
    with loader(pair, batch_size=4) as padded, loader(pair, batch_size=4, jagged="flat") as flat:
        for a, b in islice(zip(padded, flat, strict=True), 50):
            assert a["number"].tolist() == b["number"].tolist()
            np.testing.assert_array_equal(a["jets"][a["jets_mask"]], b["jets"])
            assert not a["jets"][~a["jets_mask"]].any()
            counts = [(n % FIRST) % 3 for n in b["number"].tolist()]
            assert a["jets_mask"].sum(1).tolist() == np.diff(b["jets_offsets"]).tolist() == counts


def test_transforms_see_whole_batches_in_a_thread(pair: list[sr.Dataset]) -> None:
    seen: list[tuple[int, str]] = []

    def note(batch: dict[str, Any]) -> dict[str, Any]:
        seen.append((len(batch["number"]), threading.current_thread().name))
        return {"half": batch["number"] // 2}

    before = threading.active_count()
    with loader(pair, transform=note) as mixed:
        assert set(next(iter(mixed))) == {"half"}
        assert {size for size, _ in seen} == {40}
        assert "MainThread" not in {name for _, name in seen}
    assert threading.active_count() == before


def test_options_hold_for_every_dataset(pair: list[sr.Dataset]) -> None:
    weights = Weights(column="own")
    with loader(pair, where="pt > 100", weights=weights, shuffle="exact") as mixed:
        batches = list(islice(mixed, 30))
    columns = [columns_of(), columns_of(FEW, first=FIRST)]
    own = {n: w for c in columns for n, w, pt in zip(c["number"], c["own"], c["pt"], strict=True) if pt > 100}
    for batch in batches:
        expected = np.array([own[n] for n in batch["number"].tolist()], np.float32)
        np.testing.assert_array_equal(batch["weight"], expected)


def test_refusals(pair: list[sr.Dataset], dataset: sr.Dataset) -> None:
    with pytest.raises(SpecError, match="above 0"):
        Mix([(pair[0], 0.0)])
    with pytest.raises(SpecError, match="'first' or 'last'"):
        Mix([(pair[0], 1.0)], until="never")  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="other columns"):
        DataLoader(Mix([(pair[0], 0.5), (dataset, 0.5)]), 10, ["label"])
    with pytest.raises(SpecError, match="no tail"):
        loader(pair, tail="pad")
    with pytest.raises(SpecError, match="too few for 700 ranks"):
        loader(pair, rank=0, world_size=700)
    state = loader(pair).state_dict()
    with pytest.raises(ResumeMismatchError, match="shares"):
        loader(pair, (0.5, 0.5)).load_state_dict(state)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(0, 10_000), st.integers(1, 100))
def test_apportioning_only_grows_and_stays_near(shares: list[int], total: int, more: int) -> None:
    before, after = _apportion(shares, total), _apportion(shares, total + more)
    assert sum(before) == total
    assert all(a <= b for a, b in zip(before, after, strict=True))
    assert all(abs(n - total * s / sum(shares)) < 1.5 for n, s in zip(before, shares, strict=True))
