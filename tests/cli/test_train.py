from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command


pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture
def jets(run: Command, jet_files: dict[str, Path]) -> None:
    words = [word for name, path in jet_files.items() for word in ("--label", f"{name}={path}")]
    assert run("convert", "--name", "jets", *words, "--workers", 1).code == 0


def test_train_shows_the_figures_and_where_the_files_are(run: Command, jets: None, tmp_path: Path) -> None:
    output = tmp_path / "out"
    outcome = run("train", "jet-deepset", "--data", "jets", "--output", output, "--epochs", 2, "--batch-size", 64)
    assert outcome.code == 0
    assert "AUC" in outcome.out
    assert "50% signal efficiency" in outcome.out
    for name in ("roc.png", "report.json", "checkpoint.safetensors"):
        assert str(output / name) in outcome.out
        assert (output / name).is_file()


def test_again_it_goes_on_from_the_checkpoint(
    run: Command, jets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "jet-deepset", "--data", "jets", "--epochs", 1, "--json"]
    first, second = run(*words), run(*words)
    assert first.json["auc"] == second.json["auc"]
    assert first.err == ""
    assert second.err == "going on from jets-jet-deepset/checkpoint.safetensors\n"
    assert first.json["files"]["ROC curve"] == "jets-jet-deepset/roc.png"
    assert first.json["settings"]["epochs"] == 1
    assert json.loads((tmp_path / "jets-jet-deepset" / "report.json").read_text())["auc"] == first.json["auc"]


def test_a_checkpoint_of_another_run_is_2(run: Command, jets: None, tmp_path: Path) -> None:
    words = ["train", "jet-deepset", "--data", "jets", "--output", tmp_path / "out", "--epochs", 1]
    assert run(*words).code == 0
    outcome = run(*words, "--seed", 5)
    assert outcome.code == 2
    assert "seed" in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["jet-deepst", "--data", "jets"], "'jet-deepset'"),
        (["jet-deepset", "--data", "jet"], "'jets'"),
        (["jet-deepset", "--data", "jets", "--epochs", 0], "epochs"),
        (["jet-deepset"], "--data"),
    ],
)
def test_wrong_words_are_2(run: Command, jets: None, tmp_path: Path, words: list[str], told: str) -> None:
    outcome = run("train", *words, "--output", tmp_path / "out")
    assert outcome.code == 2
    assert told in outcome.err


def test_data_without_classes_are_2(run: Command, toys: Path, tmp_path: Path) -> None:
    outcome = run("train", "jet-deepset", "--data", "toys", "--output", tmp_path / "out")
    assert outcome.code == 2
    assert "--label" in outcome.err
