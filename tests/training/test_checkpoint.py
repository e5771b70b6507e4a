import itertools
import os
from pathlib import Path

import pytest
from tests.faults.processes import Child, wait_for

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402

from storagering.errors import (  # noqa: E402
    CorruptDataError,
    FormatError,
    NotFoundError,
    ReadOnlyCacheError,
    ResumeMismatchError,
)
from storagering.training.checkpoint import (  # noqa: E402
    Checkpoint,
    compare_identity,
    load_checkpoint,
    save_checkpoint,
)


def make_checkpoint() -> Checkpoint:
    tensors = {
        "model.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        "model.transposed": torch.arange(6.0).reshape(2, 3).T,
        "optimizer.0.step": torch.tensor(7.0),
        "random.cpu": torch.get_rng_state(),
        "empty": torch.zeros(0, 5),
    }
    state = {
        "step": 7,
        "loss": 0.1 + 0.2,
        "loader": {"epoch": 1, "step": 3},
        "classes": ["top", 'q"c\\d', "µ"],
        "none": None,
    }
    return Checkpoint(tensors, state)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


def test_everything_comes_back_bit_for_bit(path: Path) -> None:
    saved = make_checkpoint()
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.state == saved.state
    assert loaded.tensors.keys() == saved.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], saved.tensors[name]) for name in saved.tensors)
    assert all(loaded.tensors[name].dtype == saved.tensors[name].dtype for name in saved.tensors)


def test_a_folder_that_is_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path.parent)
    save_checkpoint(tmp_path / "link" / path.name, make_checkpoint())
    assert load_checkpoint(tmp_path / "link" / path.name).state == make_checkpoint().state


def test_it_is_a_plain_safetensors_file_and_the_same_each_time(path: Path) -> None:
    save_checkpoint(path, make_checkpoint())
    first = path.read_bytes()
    assert safetensors.torch.load_file(path).keys() == make_checkpoint().tensors.keys()
    save_checkpoint(path, make_checkpoint())
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.scenario(8)
def test_every_changed_bit_is_noticed(path: Path) -> None:
    save_checkpoint(path, Checkpoint({"weight": torch.ones(2)}, {"step": 1}))
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        with pytest.raises(CorruptDataError):
            load_checkpoint(path)


@pytest.mark.scenario(8)
def test_every_truncation_and_extension_is_noticed(path: Path) -> None:
    save_checkpoint(path, Checkpoint({"weight": torch.ones(2)}, {"step": 1}))
    good = path.read_bytes()
    for bad in (*(good[:length] for length in range(len(good))), good + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(CorruptDataError):
            load_checkpoint(path)


def test_other_files_are_not_checkpoints(path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_checkpoint(path)
    path.write_bytes(safetensors.torch.save({"weight": torch.ones(2)}, {"made_by": "someone else"}))
    with pytest.raises(FormatError, match="not a checkpoint of Storagering"):
        load_checkpoint(path)


def test_not_a_number_cannot_be_stored_as_state(path: Path) -> None:
    with pytest.raises(ValueError):
        save_checkpoint(path, Checkpoint({}, {"loss": float("nan")}))
    assert not path.exists()


@pytest.mark.scenario(8)
def test_a_failed_save_keeps_the_previous_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, make_checkpoint())
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise PermissionError(13, "refused")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ReadOnlyCacheError):
        save_checkpoint(path, Checkpoint({}, {"step": 8}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def save_for_ever(path: Path, done: Path) -> None:
    """A byte more in the other file after each."""
    for step in itertools.count():
        save_checkpoint(path, Checkpoint({"x": torch.full((200_000,), float(step))}, {"step": step}))
        with done.open("ab") as file:
            file.write(b".")


@pytest.mark.scenario(8)
def test_a_kill_while_saving_leaves_a_complete_checkpoint(path: Path, tmp_path: Path) -> None:
    for saves in (1, 3, 6):
        done = tmp_path / f"done-{saves}"
        done.touch()
        child = Child(save_for_ever, path, done)
        wait_for(lambda done=done, saves=saves: done.stat().st_size >= saves)  # type: ignore[misc]
        child.kill()  # while it is in the middle of the next save
        loaded = load_checkpoint(path)
        assert loaded.state["step"] >= done.stat().st_size - 1
        assert (loaded.tensors["x"] == loaded.state["step"]).all()


def test_all_differences_are_listed() -> None:
    stored = {"recipe": "jet-deepset", "seed": 1, "batch_size": 64, "old": True}
    compare_identity(Path("c"), stored, dict(stored))
    with pytest.raises(ResumeMismatchError) as caught:
        compare_identity(Path("c"), stored, {"recipe": "jet-deepset", "seed": 2, "batch_size": 128})
    for part in ("seed was 1 and is now 2", "batch_size was 64 and is now 128", "old was True and is now None"):
        assert part in str(caught.value)
    assert "recipe was" not in str(caught.value)
