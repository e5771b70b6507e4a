"""What a user meets who names the wrong thing."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uproot

from storagering.testing.toys import write_toy_tree

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.fixture
def files(tmp_path: Path, toy: Path) -> Path:
    data = toy.read_bytes()
    (tmp_path / "cut.root").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "text.root").write_text("hello\n" * 100)
    (tmp_path / "passwd.root").write_text("root:x:0:0:root:/root:/bin/sh\n" * 10)  # begins as ROOT files do
    (tmp_path / "zero.root").write_bytes(b"")
    write_toy_tree(tmp_path / "empty.root", entries=0)
    with uproot.recreate(tmp_path / "none.root") as file:
        file["h"] = np.histogram([1, 2, 3])
    with uproot.recreate(tmp_path / "two.root") as file:
        file.mktree("A", {"x": "f8"}).extend({"x": [1.0]})
        file.mktree("B", {"y": "f8"}).extend({"y": [1.0]})
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["missing.root"], 2, "missing.root: no such file"),
        (["*.rot"], 2, "no such file"),
        (["."], 2, "is a folder"),
        (["text.root"], 3, "not of a format that can be read"),
        (["passwd.root"], 3, "not of a format that can be read"),
        (["zero.root"], 3, "is empty"),
        (["cut.root"], 3, "header says"),
        (["empty.root"], 3, "is empty"),
        (["none.root"], 3, "no TTree or RNTuple"),
        (["two.root"], 2, "--tree"),
        (["toy.root", "--tree", "Evnts"], 2, "'Events'"),
        (["toy.root", "--columns", "Jet_pT"], 2, "'Jet_pt'"),
        (["toy.root", "--where", "Jet_p > 3"], 2, "'Jet_pt'"),
        (["toy.root", "--where", "nJet >"], 2, "nJet >"),
        (["toy.root", "toy.root"], 2, "named twice"),
        (["gopher://127.0.0.1/x.root"], 2, "root://"),
        ([], 2, "no source is named"),
    ],
)
def test_exit_code_and_message(
    run: Command, files: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, words: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(files)
    outcome = run("convert", "--name", "x", *words)
    assert outcome.code == code
    assert outcome.err.startswith("storagering: error: ")
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert not list((cache / "datasets").glob("*"))
    assert not list((cache / "staging").glob("*"))


def test_the_shell_sees_the_same(
    run: Command, shell: Command, files: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.chdir(files)
    for file in ("cut.root", "two.root"):
        assert shell("convert", "--name", "x", file) == run("convert", "--name", "x", file)
    assert not list((cache / "datasets").glob("*"))


@pytest.mark.parametrize("closed", [True, False])
def test_a_root_server_that_is_not_there_or_does_not_answer_is_4_within_seconds(shell: Command, closed: bool) -> None:
    pytest.importorskip("XRootD")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if closed:
            server.close()
        started = time.perf_counter()
        outcome = shell("convert", f"root://127.0.0.1:{port}//x.root", "--name", "x")
    assert outcome.code == 4
    assert f"root://127.0.0.1:{port}//x.root" in outcome.err
    assert time.perf_counter() - started < 12  # 10 s, and the start of Python
