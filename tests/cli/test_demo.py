from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uproot

from storagering.demo import jets as demo_jets
from storagering.testing.xrootd import available

if TYPE_CHECKING:
    from tests.cli.conftest import Command, Outcome


pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def _no_pythia(monkeypatch: pytest.MonkeyPatch, jet_files: dict[str, Path]) -> None:
    """The demo's own jets are real; here made-up ones stand in, which are there in no time."""

    def make(path: Path, *, classes: list[str], num_jets: int, progress: Callable[[int], None], **_: object) -> None:
        shutil.copyfile(jet_files[classes[0]], path)
        progress(num_jets)

    monkeypatch.setattr(demo_jets, "generate_jets", make)


def test_the_whole_chain(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGERING_CACHE")
    output = tmp_path / "demo"
    first = run("demo", "--output", output, "--jets", 600)
    assert first.code == 0, first.err
    for title in ("Simulating", "Converting", "Asking with SQL", "Training", "Timing epochs", "Result"):
        assert f"== {title}" in first.out
    assert "straight from ROOT" in first.out
    assert "from the cache, epoch 3" in first.out
    assert "AUC" in first.out
    assert ("root://127.0.0.1:" if available() else "no XRootD server") in first.err
    assert (output / "training-jets_600" / "roc.png").is_file()
    assert (output / "cache" / "datasets" / "jets_600").is_dir()
    _check_again(run, output, first)


def _check_again(run: Command, output: Path, first: Outcome) -> None:
    again = run("demo", "--output", output, "--jets", 600)
    assert again.code == 0, again.err
    assert again.err.count("is there already") == 5  # four files and the dataset
    assert [line for line in again.out.splitlines() if line.startswith("AUC")] == [
        line for line in first.out.splitlines() if line.startswith("AUC")
    ]


def test_a_dataset_made_anew_is_trained_on_from_the_start(
    run: Command, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, jet_files: dict[str, Path]
) -> None:
    """In the user's own cache, and where no server is installed."""
    monkeypatch.setattr(demo_jets, "available", lambda: False)
    words = ["demo", "--output", tmp_path / "demo", "--jets", 600]
    first = run(*words)
    assert first.code == 0
    assert "no XRootD server is installed here" in first.err
    assert (cache / "datasets" / "jets_600").is_dir()
    assert not (tmp_path / "demo" / "cache").exists()
    for path in (tmp_path / "demo" / "root").iterdir():
        shutil.copyfile(jet_files["qcd" if "top" in path.name else "top"], path)
    assert run("remove", "jets_600").code == 0
    outcome = run(*words)
    assert outcome.code == 0
    assert "training from the start" in outcome.err


def test_own_files_without_classes_are_not_trained_on(run: Command, tmp_path: Path, toy: Path) -> None:
    outcome = run("demo", "--source", toy, "--output", tmp_path / "demo")
    assert outcome.code == 0
    assert "no training" in outcome.err
    assert "--label" in outcome.err
    assert "Jet_pt" in outcome.out
    assert "from the cache, epoch 3" in outcome.out
    assert "== Result" not in outcome.out


def test_own_files_of_several_trees(run: Command, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "two.root") as file:
        for tree in ("Events", "Runs"):
            file.mktree(tree, {"x": "f8"}).extend({"x": [1.0, 2.0]})
    words = ["demo", "--source", tmp_path / "two.root", "--output", tmp_path / "demo"]
    refused = run(*words)
    assert refused.code == 2
    assert "--tree NAME" in refused.err
    assert run(*words, "--tree", "Events").code == 0


def test_own_files_with_classes_but_other_columns(run: Command, tmp_path: Path, toy: Path, toys: Path) -> None:
    shutil.copyfile(toy, tmp_path / "other.root")
    words = ["--label", f"a={toy}", "--label", f"b={tmp_path / 'other.root'}"]
    outcome = run("demo", *words, "--output", tmp_path / "demo")
    assert outcome.code == 0
    assert "no training: recipe 'jet-deepset' needs the columns" in outcome.err
    assert "FROM source_" in outcome.out


def test_own_jets_are_trained_on(run: Command, tmp_path: Path, jet_files: dict[str, Path]) -> None:
    words = [word for name, path in jet_files.items() for word in ("--label", f"{name}={path}")]
    outcome = run("demo", *words, "--output", tmp_path / "demo")
    assert outcome.code == 0
    assert "AUC" in outcome.out


def test_source_and_label_is_2(run: Command, toy: Path) -> None:
    assert run("demo", "--source", toy, "--label", f"a={toy}").code == 2


def test_a_source_that_is_not_there_is_2(run: Command, tmp_path: Path) -> None:
    assert run("demo", "--source", tmp_path / "x.root", "--output", tmp_path / "demo").code == 2
