"""A loader state restores the rest of an epoch bit for bit: in a new process, with other threads and ranks."""

import json
from typing import Any

import pytest
from tests.faults.processes import Child

import storagering as sr
from storagering.config import load_settings
from storagering.errors import ResumeMismatchError
from storagering.loaders.torch import DataLoader

COLUMNS = {"x": ["MET_pt", "nVtx"], "jets": ["Jet_pt", "Jet_eta"], "id": "event"}


def digests(batches: Any) -> list[str]:
    import hashlib

    found = []
    for batch in batches:
        digest = hashlib.sha256()
        for key in sorted(batch):
            digest.update(batch[key].numpy().tobytes())
        found.append(digest.hexdigest())
    return found


def restore(told: str) -> list[str]:
    """In a process that knows no more than the text says."""
    options = json.loads(told)
    state = options.pop("state")
    with DataLoader("toys", **options) as loader:
        loader.load_state_dict(state)
        return digests(loader)


@pytest.mark.parametrize(
    ("shuffle", "rank", "world_size", "threads"), [("block", 0, 1, 4), ("block", 1, 2, 1), ("exact", 1, 2, 4)]
)
@pytest.mark.parametrize("dataset", ["zarr"], indirect=True)
def test_resume_in_a_new_process(
    dataset: sr.Dataset, threads: int, rank: int, world_size: int, shuffle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_CACHE", str(dataset.path.parents[1]))
    options = {
        "batch_size": 40,
        "shuffle": shuffle,
        "seed": 3,
        "rank": rank,
        "world_size": world_size,
        "threads": threads,
    }
    whole = DataLoader(dataset, columns=COLUMNS, **options)
    whole.set_epoch(4)
    expected = digests(whole)
    steps = len(whole) // 2
    loader = DataLoader(dataset, columns=COLUMNS, **options)
    loader.set_epoch(4)
    for done, _ in enumerate(loader, 1):
        if done == steps:
            break
    state = loader.state_dict()
    assert len(json.dumps(state)) < 500
    told = json.dumps({**options, "columns": COLUMNS, "state": state})
    assert Child(restore, told).result() == expected[steps:]


@pytest.mark.scenario(54)
def test_resume_at_every_step(dataset: sr.Dataset) -> None:
    first = DataLoader(dataset, 100, COLUMNS)
    expected = [*digests(first), *digests(first)]
    length = len(first)
    saver = DataLoader(dataset, 100, COLUMNS)
    states = [saver.state_dict()]
    states += [saver.state_dict() for _ in saver]
    for done, state in enumerate(states):
        loader = DataLoader(dataset, 100, COLUMNS)
        loader.load_state_dict(json.loads(json.dumps(state)))
        rest = [*digests(loader), *digests(loader)]
        assert rest[: 2 * length - done] == expected[done:], f"after {done} steps"


def test_loop_with_set_epoch_keeps_the_restored_step(dataset: sr.Dataset) -> None:
    loader = DataLoader(dataset, 100, COLUMNS)
    for _ in loader:
        break
    state = loader.state_dict()
    again = DataLoader(dataset, 100, COLUMNS)
    again.load_state_dict(state)
    again.set_epoch(state["epoch"])
    assert len(list(again)) == len(again) - 1
    again.load_state_dict(state)
    again.set_epoch(7)
    assert len(list(again)) == len(again)


@pytest.mark.scenario(57)
def test_state_before_during_and_after(dataset: sr.Dataset) -> None:
    loader = DataLoader(dataset, 100, COLUMNS)
    place = [(loader.state_dict()["epoch"], loader.state_dict()["step"])]
    place += [(loader.state_dict()["epoch"], loader.state_dict()["step"]) for _ in loader]
    steps = len(loader)
    assert place == [(0, n) for n in range(steps)] + [(1, 0)]
    loader.load_state_dict(loader.state_dict())
    assert loader.state_dict() == loader.state_dict()


@pytest.mark.scenario(55)
def test_resume_on_another_world_size(dataset: sr.Dataset) -> None:
    one = DataLoader(dataset, 60, {"id": "event"})
    batches = [b["id"].tolist() for b in one]
    one.set_epoch(0)
    for done, _ in enumerate(one, 1):
        if done == 5:
            break
    state = one.state_dict()
    ranks = [DataLoader(dataset, 20, {"id": "event"}, rank=r, world_size=3) for r in range(3)]
    for loader in ranks:
        loader.load_state_dict(state)
    together = [sorted(n for b in parts for n in b["id"].tolist()) for parts in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in batches[5:]]


@pytest.mark.scenario(56)
def test_mismatches_are_listed(dataset: sr.Dataset, toy_files: list[Any]) -> None:
    state = DataLoader(dataset, 100, COLUMNS).state_dict()
    for wrong in ({"batch_size": 50}, {"seed": 1}, {"shuffle": None}, {"tail": "drop"}, {"split": (0, 0.5)}):
        with pytest.raises(ResumeMismatchError, match=next(iter(wrong)).replace("batch_size", "global_batch_size")):
            DataLoader(dataset, **{"batch_size": 100, "columns": COLUMNS, **wrong}).load_state_dict(state)  # type: ignore[arg-type]
    other = sr.convert(str(toy_files[0]), name="other", settings=load_settings(workers=1))
    with pytest.raises(ResumeMismatchError, match="dataset"):
        DataLoader(other, 100, COLUMNS).load_state_dict(state)


def test_rank_from_torch_distributed(dataset: sr.Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda: 1)
        seen = [b["id"].tolist() for b in DataLoader(dataset, 30, {"id": "event"})]
    finally:
        dist.destroy_process_group()
    assert seen == [b["id"].tolist() for b in DataLoader(dataset, 30, {"id": "event"}, rank=1, world_size=2)]
