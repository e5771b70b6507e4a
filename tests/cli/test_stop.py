"""A conversion that is stopped leaves nothing behind but what it has finished."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.testing.toys import write_toy_tree

if TYPE_CHECKING:
    from tests.cli.conftest import Command, Words


# Stops itself when the first task of many is done: workers are busy then.
_STOP_HALF_WAY = """
import os, signal, sys
from storagering.cli import main
from storagering.cli.progress import ConversionBar
ConversionBar.advance = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.scenario(3)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_source_does_not_answer(cache: Path, command: Words, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.root"
        with subprocess.Popen(command("convert", url, "--name", "x"), stderr=subprocess.PIPE, text=True) as process:
            link, _ = server.accept()  # now it waits for an answer
            assert len([p for p in (cache / "staging").iterdir() if p.is_dir()]) == 1
            process.send_signal(number)
            assert process.wait(timeout=60) == 130
            link.close()
            assert process.stderr is not None
            assert process.stderr.read() == "storagering: interrupted\n"
    assert not list((cache / "staging").iterdir())


@pytest.mark.scenario(3, 30)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_in_the_middle_of_the_work(run: Command, cache: Path, tmp_path: Path, workers: int) -> None:
    write_toy_tree(tmp_path / "t.root", entries=5000, basket_entries=100)
    words = ["convert", str(tmp_path / "t.root"), "--name", "x", "--chunk-bytes", "16KiB", "--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-c", _STOP_HALF_WAY, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130
    told = done.stderr.splitlines()
    assert told.pop() == "storagering: interrupted"
    assert not list((cache / "datasets").iterdir())
    if workers == 1:  # its first task was not done yet
        assert not told
        assert not list((cache / "staging").iterdir())
    else:
        assert "parts): the same command goes on from there, 'storagering remove x' gives it up" in told[0]
        listed = run("ls")
        assert "x: unfinished, " in listed.err
        assert "run the same command to go on" in listed.err
    again = run(*words)
    assert again.code == 0
    assert ("going on with what was interrupted" in again.err) == bool(told)
    assert not list((cache / "staging").iterdir())
    assert "unfinished" not in run("ls").err
