from __future__ import annotations

import io
import json
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import terminal

if TYPE_CHECKING:
    from tests.cli.conftest import Command, Words

ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b, datasets;"
_PLAIN = "import sys; sys.modules['prompt_toolkit'] = None; from storagering.cli import main; sys.exit(main(['sql']))"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the history is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "storagering"


@pytest.fixture
def pipe(run: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the shell on some text, as from a pipe."""

    def run_on(text: str, *words: object) -> object:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run("sql", *words)

    return run_on  # type: ignore[return-value]


def test_statements_from_a_pipe(pipe: Command, toys: Path) -> None:
    outcome = pipe("SELECT 1 AS one; SELECT count(*)\n  AS n -- of toys;\nFROM toys;\n\nSELECT 'a;b' AS text", "--csv")
    assert outcome.out == "one\n1\nn\n400\ntext\na;b\n"
    assert (outcome.code, outcome.err) == (0, "")
    assert pipe("").code == 0


def test_errors_are_told_and_the_rest_goes_on(pipe: Command, toys: Path) -> None:
    outcome = pipe("SELECT nope FROM toys;\nSELECT 1 AS one;\n.nope\nSELEC;\n.output xml\nSELECT 2 AS two", "--csv")
    assert outcome.out == "one\n1\ntwo\n2\n"
    assert outcome.code == 2
    told = [line for line in outcome.err.splitlines() if line.startswith("storagering: error: ")]
    assert len(told) == 4
    assert "no command '.nope'" in told[1]
    assert ".output xml: write one of table, json, csv" in told[3]


def test_each_statement_has_a_sandbox_of_its_own(pipe: Command, toys: Path, tmp_path: Path) -> None:
    outcome = pipe(
        f"DELETE FROM datasets; CREATE TABLE t (x INT); SELECT count(*) AS n FROM datasets; SELECT * FROM t;"
        f"COPY (SELECT 1) TO '{tmp_path / 'out'}'; SELECT * FROM read_text('/etc/passwd');",
        "--json",
    )
    assert outcome.out.endswith('[\n{"n":1}\n]\n')
    assert outcome.err.count("storagering: error: ") == 3
    assert not (tmp_path / "out").exists()


def test_commands(pipe: Command, toys: Path) -> None:
    outcome = pipe(".help\n.tables\n.schema toys\n.schema datasets;\n.output json\n.tables\n.quit\nSELECT 1;")
    help_text, _, rest = outcome.out.partition("name ")
    assert all(command in help_text for command in (".tables", ".schema", ".output", ".help", ".quit", "Ctrl-C"))
    assert {"toys", "datasets", "columns"} <= {line.split()[0] for line in rest.splitlines()}
    assert "Jet_pt" in rest
    assert "FLOAT[]" in rest
    assert "TIMESTAMP WITH TIME ZONE" in rest
    assert "lineage" in rest
    tables = json.loads(outcome.out[outcome.out.index("[\n") :])
    assert {"name": "toys", "kind": "dataset", "entries": 400} in tables
    assert outcome.code == 0


@pytest.mark.parametrize("text", [".schema", ".schema nope", '.schema "no""pe"', ".schema x'; DROP TABLE columns"])
def test_a_schema_of_nothing(pipe: Command, toys: Path, text: str) -> None:
    outcome = pipe(text)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("storagering: error: ")


def test_answers_come_as_soon_as_a_statement_ends(command: Words, toys: Path) -> None:
    """Programs talk to it over two pipes."""
    with subprocess.Popen(
        command("sql", "--csv"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2):
            process.stdin.write(f"SELECT {number}\nAS x;\n")
            assert [process.stdout.readline() for _ in range(2)] == ["x\n", f"{number}\n"]
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("toolkit", [True, False], ids=["toolkit", "plain"])
def test_a_session_at_a_terminal(command: Words, toys: Path, cache: Path, state: Path, toolkit: bool) -> None:
    words = command("sql") if toolkit else [sys.executable, "-c", _PLAIN]
    with terminal(words) as screen:
        assert ("pip install 'storagering[shell]'" in screen.see("sql>")) == (not toolkit)
        screen.type("SELECT 40\r")
        screen.see("...>")
        screen.type("+ 2 AS answer;\r")
        assert "42" in screen.see("1 row(s) in ")
        screen.see("sql>")
        screen.type("SELECT nope;\r")
        screen.see("storagering: error: Binder Error")
        screen.see("sql>")
        screen.type("SELECT count(*) + 1000000 FROM toys WHERE MET_p")
        if toolkit:
            screen.see("MET_pt")  # in the list of completions
        screen.type("\t")
        screen.type(" > -1;\r")
        screen.see("1000400")
        screen.see("sql>")
        screen.type("SELECT never\x03")
        screen.see("sql>")
        (cache / "catalog.duckdb").write_bytes(b"damaged")
        screen.type(f"{ENDLESS}\r")
        screen.see("rebuilt from the manifests")  # it is at work now
        screen.type("\x03")
        screen.see("cancelled")
        screen.see("sql>")
        screen.type(".output csv\r")
        screen.see("sql>")
        screen.type("SELECT 6 * 7 AS again, 'x' AS y;\r")
        screen.see("42,x")
        screen.see("sql>")
        screen.type("\x04")
        assert screen.end() == 0
        assert screen.echoes()
    history = state / ("sql_history" if toolkit else "sql_lines")
    assert "AS again" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@pytest.mark.parametrize("toolkit", [True, False], ids=["toolkit", "plain"])
def test_a_stop_signal_ends_it_and_leaves_the_terminal_as_it_was(command: Words, state: Path, toolkit: bool) -> None:
    with terminal(command("sql") if toolkit else [sys.executable, "-c", _PLAIN]) as screen:
        screen.see("sql>")
        assert screen.stop(signal.SIGTERM) == 130
        assert screen.echoes()


def test_a_history_that_others_could_read_is_closed_to_them(state: Path) -> None:
    from storagering.cli.prompt import history_path

    state.mkdir(parents=True)
    (state / "sql_history").write_text("+SELECT 1;\n")
    (state / "sql_history").chmod(0o644)
    path = history_path("sql_history")
    assert path == state / "sql_history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "+SELECT 1;\n"


def test_without_a_place_nothing_is_remembered(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from storagering.cli.prompt import history_path

    state.parent.mkdir()
    state.write_text("a file in the way")
    assert history_path("sql_history") is None
    assert "statements are not remembered" in capsys.readouterr().err
    state.unlink()
    state.mkdir()
    (state / "sql_history").symlink_to(state / "elsewhere")
    assert history_path("sql_history") is None
    assert not (state / "elsewhere").exists()


def test_ctrl_c_ends_a_query_of_the_command_line(command: Words, toys: Path, cache: Path) -> None:
    (cache / "catalog.duckdb").write_bytes(b"damaged")
    with terminal(command("sql", ENDLESS)) as screen:
        screen.see("rebuilt from the manifests")  # it is at work now
        screen.type("\x03")
        screen.see("storagering: interrupted")
        assert screen.end() == 130
