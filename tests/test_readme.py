"""The README's code runs: its Python and shell blocks, in order, in one folder, with a cache of its own.

Python blocks share their names, as in one session. A block below ``<!-- no-run -->`` is not run, nor are lines that
install or set up. Of each class fewer jets are made, and by fewer workers: these numbers change nothing of what the
code shows. Most commands run in processes that need not import everything first.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.processes import Child

from storagering.cli import main

_README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)
_NO_RUN = re.compile(r"<!--\s*no-run\s*-->\s*\Z")
_SET_UP = re.compile(r"(make|git|cd|python\S* -m (pip|venv)|pip|uv|sudo|apt-get|source|\.)\s")
_SHELLS = ("bash", "sh", "shell", "console")
_TIMEOUT_SECONDS = 300
_MANY, _FEWER = "--jets 300 ", "--jets 100 "
_OPERATORS = set("();<>|&")


@dataclass(frozen=True)
class Block:
    """One block of code and the line of the README where it begins."""

    language: str
    code: str
    line: int


def find_blocks(text: str) -> list[Block]:
    """The blocks that are to be run, without what only sets up."""
    found = []
    for match in _BLOCK.finditer(text):
        language, code = match[1].lower(), match[2]
        if language not in ("python", *_SHELLS) or _NO_RUN.search(text[: match.start()]):
            continue
        code = code if language == "python" else shell_lines(code, prompts=language == "console")
        if code.strip():
            found.append(Block(language, code, text[: match.start(2)].count("\n") + 1))
    return found


def shell_lines(code: str, *, prompts: bool) -> str:
    """The commands of a block; of a console session those after ``$``."""
    lines = code.splitlines()
    if prompts:
        lines = [line[2:] for line in lines if line.startswith(("$ ", "> "))]
    return "\n".join(line for line in lines if not _SET_UP.match(line.strip() + " "))


def commands(code: str) -> list[list[str]] | None:
    """The words of each command, if all of them are this project's, and need nothing of a shell."""
    found = []
    for line in code.replace("\\\n", "").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        if words and (words[0] != "storagering" or any(not set(word) - _OPERATORS for word in words)):
            return None
        found += [words[1:]] if words else []
    return found


def run_command(words: list[str], folder: Path) -> tuple[int, str]:
    """Exit code, and what it says."""
    os.chdir(folder)
    with io.StringIO() as said, redirect_stdout(said), redirect_stderr(said):
        return main(words), said.getvalue()


def run_here(block: Block, folder: Path) -> None:
    for words in commands(block.code.replace(_MANY, _FEWER)) or []:
        code, said = Child(run_command, words, folder).result(_TIMEOUT_SECONDS)
        if code:
            pytest.fail(f"README.md:{block.line}: exit code {code} of {words}\n{said}")


def run_shell(block: Block) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code.replace(_MANY, _FEWER)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"README.md:{block.line}: exit code {done.returncode}\n{block.code}\n{done.stdout}\n{done.stderr}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_code_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = find_blocks(_README.read_text(encoding="utf-8"))
    assert blocks, "the README shows no code that runs"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGERING_WORKERS", "1")
    by_shell = min((block for block in blocks if block.language != "python"), key=lambda block: len(block.code))
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "python":
            # Line numbers of a traceback are then those of the README.
            exec(compile("\n" * (block.line - 1) + block.code, str(_README), "exec"), names)
        elif block is by_shell or commands(block.code) is None:
            run_shell(block)
        else:
            run_here(block, tmp_path)


def test_commands_that_need_no_shell() -> None:
    code = "storagering copy a.root --where 'x > 1' \\\n    --columns 'jet_*'  # some\nstoragering ls\n"
    assert commands(code) == [["copy", "a.root", "--where", "x > 1", "--columns", "jet_*"], ["ls"]]
    assert commands("storagering ls | wc") is commands("ls") is commands("storagering ls && storagering du") is None


def test_blocks_are_found_in_order() -> None:
    text = (
        "# T\n```python\nx = 1\n```\n<!-- no-run -->\n```python\nboom\n```\n```text\nno\n```\n"
        "```bash\npip install storagering\nmake test\nstoragering ls\n```\n"
        "```console\n$ storagering --version\nstoragering 0.1.0\n$ make demo\n```\n```bash\nmake demo\n```\n"
    )
    assert find_blocks(text) == [
        Block("python", "x = 1\n", 3),
        Block("bash", "storagering ls", 13),
        Block("console", "storagering --version", 18),
    ]
