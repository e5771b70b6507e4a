"""What the tests of the command line share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.cli import main
from storagering.testing.toys import write_toy_tree


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]
Words = Callable[..., list[str]]


@pytest.fixture
def command() -> Words:
    """Makes the command line that runs this installation as a process of its own."""
    return lambda *words: [sys.executable, "-m", "storagering", *map(str, words)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""

    def run_here(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_here


@pytest.fixture
def shell(command: Words) -> Command:
    """Runs a command as a process of its own."""

    def run_there(*words: object, timeout: float = 60) -> Outcome:
        done = subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run_there


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A ROOT file of 400 events."""
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=400)
    return path


@pytest.fixture
def toys(run: Command, toy: Path) -> Path:
    """The file of the dataset ``toys``, which is in the cache."""
    assert run("convert", toy, "--name", "toys", "--workers", 1).code == 0
    return toy


@pytest.fixture
def jet_files(tmp_path: Path) -> dict[str, Path]:
    """Two classes of made-up jets, 150 each, with the columns that the recipe ``jet-deepset`` needs."""
    files = {}
    for seed, name in enumerate(("top", "qcd")):
        random = np.random.default_rng(seed)
        counts = random.integers(5, 15, 150)
        names = ("pt", "eta", "phi", "energy", "deta", "dphi")
        part = {key: random.exponential(10 + 20 * seed, counts.sum()).astype(np.float32) for key in names}
        part |= {"charge": np.ones(counts.sum(), np.int32), "pid": np.full(counts.sum(), 211, np.int32)}
        jets = {f"jet_{key}": random.exponential(500, 150).astype(np.float32) for key in ("pt", "eta", "phi", "mass")}
        files[name] = tmp_path / f"{name}.root"
        with uproot.recreate(files[name]) as file:
            jagged = ak.unflatten(ak.zip(part), counts)
            tree = file.mktree("jets", {key: array.dtype for key, array in jets.items()} | {"part": jagged.type})
            tree.extend(jets | {"part": jagged})
    return files


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert "STORAGERING_CACHE" in os.environ
