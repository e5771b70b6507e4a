"""PyTorch's and torchdata's own loaders around ours, in real processes."""

from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

import storagering as sr
from storagering.loaders.mixture import Mix
from storagering.loaders.torch import DataLoader
from storagering.loaders.torch_dataset import TorchDataset

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create",  # more workers than cores
    "ignore:'set_vital' is deprecated",  # which torchdata calls
)

SIZE = 300  # 14 batches of 4,000


@pytest.fixture
def plain(events: sr.Dataset) -> list[list[list[int]]]:
    """Three epochs as our loader gives them."""
    with DataLoader(events, SIZE, ["number"], seed=5) as loader:
        return [[b["number"].tolist() for b in loader] for _ in range(3)]


def made(events: sr.Dataset, **options: Any) -> TorchDataset:
    return TorchDataset(events, SIZE, ["number"], seed=5, **options)


def numbers(loader: Any) -> list[list[int]]:
    return [batch["number"].tolist() for batch in loader]


def test_without_workers(events: sr.Dataset, plain: list[list[list[int]]]) -> None:
    loader = torch.utils.data.DataLoader(made(events), batch_size=None)
    assert len(loader) == len(plain[0])
    assert [numbers(loader) for _ in range(3)] == plain
    loader.dataset.set_epoch(1)  # type: ignore[attr-defined]
    assert numbers(loader) == plain[1]


@pytest.mark.parametrize(("workers", "persistent"), [(1, False), (3, True)])
def test_workers_give_the_same_batches_in_the_same_order(
    events: sr.Dataset, plain: list[list[list[int]]], workers: int, persistent: bool
) -> None:
    dataset = made(events, threads=1)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=persistent, multiprocessing_context="fork"
    )
    assert [numbers(loader), numbers(loader)] == plain[:2]
    for _ in loader:  # begins epoch 2, and breaks it off
        break
    dataset.set_epoch(1)
    assert numbers(loader) == plain[1]


def test_it_can_be_sent_to_other_processes(events: sr.Dataset, plain: list[list[list[int]]]) -> None:
    dataset = made(events)
    assert len(dataset) == len(plain[0])  # it has opened its loader
    again = ForkingPickler.loads(ForkingPickler.dumps(dataset))
    assert numbers(again) == plain[0]


@pytest.mark.soak
def test_workers_that_are_spawned(events: sr.Dataset, plain: list[list[list[int]]]) -> None:
    loader = torch.utils.data.DataLoader(
        made(events, threads=1), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert numbers(loader) == plain[0]


@pytest.mark.parametrize("done", [0, 5, 14])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_exactly(
    events: sr.Dataset, plain: list[list[list[int]]], workers: int, done: int
) -> None:
    def loader() -> Any:
        context = "fork" if workers else None
        return StatefulDataLoader(
            made(events, threads=1), batch_size=None, num_workers=workers, multiprocessing_context=context
        )

    first = loader()
    batches = iter(first)
    assert [next(batches)["number"].tolist() for _ in range(done)] == plain[0][:done]
    state = first.state_dict()
    del batches, first
    again = loader()
    again.load_state_dict(state)
    assert numbers(again) == plain[0][done:]
    assert numbers(again) == plain[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_taken_between_epochs(events: sr.Dataset, plain: list[list[list[int]]], workers: int) -> None:
    def loader() -> Any:
        context = "fork" if workers else None
        return StatefulDataLoader(
            made(events, threads=1), batch_size=None, num_workers=workers, multiprocessing_context=context
        )

    first = loader()
    assert numbers(first) == plain[0]
    again = loader()
    again.load_state_dict(first.state_dict())
    assert [numbers(again), numbers(again)] == plain[1:]


def test_a_mixture_in_workers(events: sr.Dataset) -> None:
    mix = Mix([(events, 0.5), (events, 0.5)])
    with DataLoader(mix, 500, ["number"]) as mixed:
        expected = numbers(mixed)
    dataset = TorchDataset(mix, 500, ["number"], threads=1)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert numbers(loader) == expected
