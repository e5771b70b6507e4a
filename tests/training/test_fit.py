import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.faults.processes import Child

torch = pytest.importorskip("torch")

from storagering.cache.accesses import TRAININGS, Training  # noqa: E402
from storagering.cache.dataset import Dataset  # noqa: E402
from storagering.cache.journal import list_journals, read_journal  # noqa: E402
from storagering.errors import (  # noqa: E402
    ChecksumError,
    ConfigError,
    FormatError,
    InputError,
    LockTimeoutError,
    NotFoundError,
    ResumeMismatchError,
    SchemaError,
)
from storagering.files import FileLock  # noqa: E402
from storagering.training import Report, TrainingOptions, load_model, train  # noqa: E402
from storagering.training.checkpoint import load_checkpoint  # noqa: E402
from storagering.training.state import TrainingState  # noqa: E402

SHORT = TrainingOptions(epochs=3, batch_size=64, seed=5)


class StoppedError(Exception):
    """Stands for whatever ends a training early."""


def load_tensors(output: Path) -> dict[str, Any]:
    return dict(load_checkpoint(output / "checkpoint.safetensors").tensors)


def without_times(report: Report) -> Report:
    return replace(report, seconds=0.0, examples_per_second=0.0)


def assert_same_result(one: Path, other: Path) -> None:
    """Bit-equal weights, optimiser state, random state and report."""
    first, second = load_tensors(one), load_tensors(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    reports = [json.loads((folder / "report.json").read_text()) for folder in (one, other)]
    for report in reports:
        del report["seconds"], report["examples_per_second"]
    assert reports[0] == reports[1]
    assert (one / "roc.png").read_bytes() == (other / "roc.png").read_bytes()


@pytest.fixture(scope="session")
def uninterrupted(jets: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return train("jet-deepset", jets, output=output, options=SHORT), output


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the training fail before optimiser step ``n`` (from 0), once."""

    def interrupt(step: int) -> None:
        original = TrainingState.take_step

        def take_step(state: TrainingState, *args: Any) -> float:
            if state.step == step:
                monkeypatch.setattr(TrainingState, "take_step", original)
                raise StoppedError
            return original(state, *args)

        monkeypatch.setattr(TrainingState, "take_step", take_step)

    return interrupt


def test_the_report_says_what_was_done(uninterrupted: tuple[Report, Path], jets: Dataset) -> None:
    report, output = uninterrupted
    assert (report.recipe, report.dataset, report.signal, report.background) == (
        "jet-deepset",
        "toyjets",
        "top",
        "qcd",
    )
    assert report.dataset_digest == jets.manifest.digest
    assert report.train_jets + report.test_jets == jets.num_entries
    assert 0.1 < report.test_jets / jets.num_entries < 0.3
    assert [record.epoch for record in report.history] == [0, 1, 2]
    assert report.history[2].loss < report.history[0].loss
    assert report.auc > 0.9
    assert report.baseline_auc > 0.9
    assert report.examples_per_second == pytest.approx(3 * report.train_jets / report.seconds)
    names = {path.name for path in output.iterdir()}
    assert names == {"checkpoint.safetensors", "roc.png", "report.json", ".lock"}


def test_the_report_is_kept_as_json(uninterrupted: tuple[Report, Path]) -> None:
    report, output = uninterrupted
    stored = json.loads((output / "report.json").read_text())
    assert stored["auc"] == report.auc
    assert stored["settings"] == {
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 0.003,
        "weight_decay": 0.01,
        "seed": 5,
    }
    assert stored["rejection"]["lower_bound"] == report.rejection.lower_bound
    assert (stored["rejection"]["value"] is None) == (report.rejection.passing == 0)


def test_the_same_seed_gives_the_same_bits(uninterrupted: tuple[Report, Path], jets: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(99)  # the caller's random state neither matters nor changes
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    report = train("jet-deepset", jets, output=tmp_path / "again", options=SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert without_times(report) == without_times(uninterrupted[0])
    assert_same_result(tmp_path / "again", uninterrupted[1])


def test_another_seed_gives_other_weights(uninterrupted: tuple[Report, Path], jets: Dataset, tmp_path: Path) -> None:
    train("jet-deepset", jets, output=tmp_path, options=replace(SHORT, seed=6))
    name = "model.phi.0.weight"
    assert not torch.equal(load_tensors(tmp_path)[name], load_tensors(uninterrupted[1])[name])


def be_killed(output: Path, after: int) -> None:
    """Train until so many steps were made."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)
    train("jet-deepset", "toyjets", output=output, options=replace(SHORT, checkpoint_every=3))


@pytest.mark.scenario(8)
@pytest.mark.parametrize("kill_after", [pytest.param(5, marks=pytest.mark.soak), 14])
def test_a_killed_training_resumes_exactly(
    uninterrupted: tuple[Report, Path],
    jets: Dataset,
    cache_folder: Path,
    tmp_path: Path,
    kill_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGERING_CACHE", str(cache_folder))
    assert Child(be_killed, tmp_path, kill_after).join() == -signal.SIGKILL
    stored = load_checkpoint(tmp_path / "checkpoint.safetensors").state
    assert stored["step"] < kill_after
    assert stored["epoch_examples"] > 0, "the checkpoint is to be from within an epoch"
    assert not (tmp_path / "report.json").exists()
    report = train("jet-deepset", jets, output=tmp_path, options=SHORT)
    assert report.seconds > stored["seconds"]
    assert_same_result(tmp_path, uninterrupted[1])


@pytest.mark.parametrize("step", [0, 3, 8, 15, 21])  # of three epochs of eight
def test_resume_from_any_step(
    uninterrupted: tuple[Report, Path],
    jets: Dataset,
    tmp_path: Path,
    interrupt_at: Callable[[int], None],
    step: int,
) -> None:
    interrupt_at(step)
    with pytest.raises(StoppedError):
        train("jet-deepset", jets, output=tmp_path, options=replace(SHORT, checkpoint_every=1))
    report = train("jet-deepset", jets, output=tmp_path, options=SHORT)
    assert_same_result(tmp_path, uninterrupted[1])
    *parts, last = noted(jets, tmp_path)
    assert [(part.finished, part.epochs) for part in parts] == [(False, step // 8)] * (step > 0)
    assert (last.finished, last.epochs, last.digest) == (True, 3, jets.manifest.digest)
    assert last.metrics["auc"] == report.auc
    assert last.metrics["loss"] == report.history[-1].loss
    assert {part.id for part in parts} <= {last.id}


def noted(jets: Dataset, output: Path) -> list[Training]:
    """What the journals say of the training in that folder."""
    paths = list_journals(jets.cache, TRAININGS)
    found = [msgspec.json.decode(line.text, type=Training) for path in paths for line in read_journal(path).lines]
    return sorted((one for one in found if one.run == str(output)), key=lambda one: one.time)


def test_a_finished_training_is_only_evaluated_again(
    uninterrupted: tuple[Report, Path], jets: Dataset, interrupt_at: Callable[[int], None]
) -> None:
    report, output = uninterrupted
    before = (output / "checkpoint.safetensors").read_bytes()
    interrupt_at(0)
    assert train("jet-deepset", jets, output=output, options=SHORT) == report
    assert (output / "checkpoint.safetensors").read_bytes() == before


def test_another_run_does_not_continue_a_checkpoint(uninterrupted: tuple[Report, Path], jets: Dataset) -> None:
    output = uninterrupted[1]
    before = (output / "checkpoint.safetensors").read_bytes()
    other = replace(SHORT, batch_size=32, seed=1, signal="qcd")
    with pytest.raises(ResumeMismatchError) as caught:
        train("jet-deepset", jets, output=output, options=other)
    for difference in (
        "batch_size was 64 and is now 32",
        "seed was 5 and is now 1",
        "signal was 'top' and is now 'qcd'",
    ):
        assert difference in str(caught.value)
    with pytest.raises(ConfigError, match="the checkpoint of an earlier training"):
        train("jet-deepset", jets, output=output, options=replace(SHORT, resume=False))
    assert (output / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.scenario(8)
def test_a_damaged_checkpoint_is_not_trained_on(
    jets: Dataset, tmp_path: Path, uninterrupted: tuple[Report, Path]
) -> None:
    data = bytearray((uninterrupted[1] / "checkpoint.safetensors").read_bytes())
    data[-1000] ^= 1
    (tmp_path / "checkpoint.safetensors").write_bytes(data)
    with pytest.raises(ChecksumError, match="delete it to start again"):
        train("jet-deepset", jets, output=tmp_path, options=SHORT)


def test_a_checkpoint_with_missing_tensors_is_refused(jets: Dataset, uninterrupted: tuple[Report, Path]) -> None:
    checkpoint = load_checkpoint(uninterrupted[1] / "checkpoint.safetensors")
    model = load_model(uninterrupted[1] / "checkpoint.safetensors")
    state = TrainingState(model, torch.optim.AdamW(model.parameters()), None, {})  # type: ignore[arg-type]
    fewer = {name: tensor for name, tensor in checkpoint.tensors.items() if name != "model.phi.0.weight"}
    with pytest.raises(FormatError, match=r"phi\.0\.weight"):
        state.restore(replace(checkpoint, tensors=fewer))


@pytest.mark.scenario(8)
def test_files_of_a_killed_save_are_removed(jets: Dataset, tmp_path: Path) -> None:
    leftover = tmp_path / ".checkpoint.safetensors.0123456789ab"
    leftover.write_bytes(b"half a checkpoint")
    train("jet-deepset", jets, output=tmp_path, options=replace(SHORT, epochs=1))
    assert not leftover.exists()


def test_two_trainings_do_not_share_a_folder(jets: Dataset, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock").held(0), pytest.raises(LockTimeoutError):
        train("jet-deepset", jets, output=tmp_path, options=SHORT)


def test_the_network_of_a_checkpoint_can_be_applied(uninterrupted: tuple[Report, Path]) -> None:
    before = torch.get_rng_state()
    model = load_model(uninterrupted[1] / "checkpoint.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    stored = load_tensors(uninterrupted[1])
    assert all(torch.equal(tensor, stored[f"model.{name}"]) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(
    jets: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingState.take_step

    def poisoned(state: TrainingState, recipe: Any, sample: Any, rate: float) -> float:
        if state.step == 10:
            sample = sample._replace(weights=sample.weights * float("nan"))
        return original(state, recipe, sample, rate)

    monkeypatch.setattr(TrainingState, "take_step", poisoned)
    with pytest.raises(InputError, match="the loss became nan in step 10"):
        train("jet-deepset", jets, output=tmp_path, options=SHORT)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").state["step"] < 10
    assert all(tensor.isfinite().all() for tensor in load_tensors(tmp_path).values())


def test_the_other_class_can_be_the_signal(jets: Dataset, tmp_path: Path) -> None:
    report = train("jet-deepset", jets, output=tmp_path, options=replace(SHORT, signal="qcd"))
    assert (report.signal, report.background) == ("qcd", "top")
    assert report.auc > 0.9


def test_progress_goes_to_stderr_and_only_when_asked(
    jets: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train("jet-deepset", jets, output=tmp_path / "silent", options=replace(SHORT, epochs=1))
    assert capfd.readouterr() == ("", "")
    train("jet-deepset", jets, output=tmp_path / "shown", options=replace(SHORT, epochs=1, progress=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 1, loss" in err


def test_wrong_names_are_explained(
    jets: Dataset, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_CACHE", str(cache_folder))
    with pytest.raises(NotFoundError, match="nearest names: 'jet-deepset'"):
        train("jet-deepsets", jets, output=tmp_path)
    with pytest.raises(NotFoundError, match="toyjets"):
        train("jet-deepset", "toyjet", output=tmp_path)
    with pytest.raises(ConfigError, match="no class 'tops' in dataset 'toyjets'; nearest names: 'top'"):
        train("jet-deepset", jets, output=tmp_path, options=TrainingOptions(signal="tops"))
    with pytest.raises(ConfigError, match="device 'gpu9' cannot be used"):
        train("jet-deepset", jets, output=tmp_path, options=TrainingOptions(device="gpu9"))
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_classes_or_columns_is_refused(tmp_path: Path) -> None:
    from storagering.api import convert
    from storagering.config import load_settings
    from storagering.testing.toys import write_toy_tree

    settings = load_settings(cache=tmp_path / "cache", workers=1)
    for name in ("a", "b"):
        write_toy_tree(tmp_path / f"{name}.root", entries=50)
    plain = convert(str(tmp_path / "a.root"), name="plain", settings=settings)
    with pytest.raises(SchemaError, match="one --label per class"):
        train("jet-deepset", plain, output=tmp_path / "out")
    labels = {name: str(tmp_path / f"{name}.root") for name in ("a", "b")}
    labelled = convert(labels, name="labelled", settings=settings)
    with pytest.raises(SchemaError, match="lacks part_pt, part_energy"):
        train("jet-deepset", labelled, output=tmp_path / "out")
