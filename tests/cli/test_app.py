from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import storagering
from storagering.cli import main
from storagering.errors import (
    AuthError,
    CacheFullError,
    ChecksumError,
    InputError,
    InternalError,
    MissingExtraError,
    NotFoundError,
)

if TYPE_CHECKING:
    from tests.cli.conftest import Command, Words


VERBS = ["convert", "ls", "info", "remove", "stats", "sql", "catalog", "generate", "train", "demo", "bench"]


def test_version(run: Command) -> None:
    assert run("--version").out == f"storagering {storagering.__version__}\n"


def test_console_script_and_module_are_the_same(shell: Command) -> None:
    outcome = shell("--version")
    assert (outcome.code, outcome.out) == (0, f"storagering {storagering.__version__}\n")


def test_help_lists_every_verb_and_the_exit_codes(run: Command) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert all(f"    {verb} " in outcome.out for verb in VERBS)
    assert "exit codes" in outcome.out


@pytest.mark.parametrize(
    "words", [[verb] for verb in VERBS] + [["catalog", "rebuild"], ["catalog", "report"], ["generate", "jets"]]
)
def test_help_of_every_verb_has_an_example(run: Command, words: list[str]) -> None:
    outcome = run(*words, "--help")
    assert outcome.code == 0
    assert f"examples:\n  storagering {words[0]}" in outcome.out


def test_help_imports_nothing_heavy(command: Words) -> None:
    code = (
        "import sys; from storagering.cli import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'duckdb', 'uproot', 'zarr', 'numpy', 'rich')))"
    )
    done = subprocess.run([command()[0], "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("words", [[], ["convrt"], ["ls", "--jsn"], ["convert", "a.root"], ["catalog"]])
def test_wrong_usage_is_2_and_points_to_the_help(run: Command, words: list[str]) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("storagering: error: ")
    assert "--help' tells what is possible" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("wrong"), 2),
        (NotFoundError("gone"), 2),
        (ChecksumError("flipped"), 3),
        (AuthError("denied"), 4),
        (CacheFullError("full"), 4),
        (MissingExtraError("pip install"), 4),
        (InternalError("ours"), 4),
    ],
)
def test_errors_are_one_line_and_have_their_code(
    run: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(_args: object) -> None:
        raise error

    monkeypatch.setattr("storagering.cli.datasets.run_ls", fail)
    outcome = run("ls")
    assert (outcome.code, outcome.err) == (code, f"storagering: error: {error}\n")


def test_an_unexpected_error_is_no_traceback_but_debug_shows_it(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("storagering.cli.datasets.run_ls", fail)
    outcome = run("ls")
    assert outcome.code == 4
    assert outcome.err.splitlines() == [
        "storagering: error: unexpected ZeroDivisionError: oops; please report it with what --debug shows"
    ]
    for words in (["--debug", "ls"], ["ls", "--debug"]):
        assert "Traceback (most recent call last)" in run(*words).err


def test_control_characters_in_a_message_do_not_reach_the_terminal(run: Command) -> None:
    assert "\x1b" not in run("info", "\x1b[2J").err


def test_interrupt_is_130(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_args: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("storagering.cli.datasets.run_ls", fail)
    assert run("ls").code == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_stop_signals_are_the_same_and_handlers_are_put_back(
    run: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def fail(_args: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("storagering.cli.datasets.run_ls", fail)
    outcome = run("ls")
    assert (outcome.code, outcome.err) == (130, "storagering: interrupted\n")
    assert signal.getsignal(number) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(_args: object) -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setattr("storagering.cli.datasets.run_ls", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("ls").code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_goes_away_is_no_error(toys: Path, command: Words) -> None:
    query = "SELECT a.event, b.event FROM toys a, toys b"
    with subprocess.Popen(
        command("sql", query, "--csv"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "event,event\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_warnings_are_one_line(shell: Command, toys: Path, cache: Path) -> None:
    (cache / "datasets" / "toys" / "manifest.json").write_text("{")
    outcome = shell("ls")
    assert outcome.code == 0
    assert outcome.err.startswith("storagering: warning: dataset 'toys' is left out: ")
    assert len(outcome.err.splitlines()) == 2  # and that the cache is empty


def test_main_without_words_takes_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["storagering", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("storagering ")
