"""Where the statements of the SQL shell come from: prompt_toolkit, a plain terminal, or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from storagering.cli.completion import Names, complete
from storagering.cli.console import say
from storagering.cli.sql_text import cut_script

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Gives the next statements, or a command with its dot; raises EOFError at the end, `CancelledError` on Ctrl-C.
Read = Callable[[], str]

_FIRST, _MORE = "sql> ", "...> "
_HISTORY_LINES = 2000


class CancelledError(KeyboardInterrupt):
    """Ctrl-C where it stops one thing, and not the whole command."""


def read_pipe(stream: TextIO) -> Read:
    """Statements as soon as they are whole; at the end what is left, as of a file without a last semicolon."""
    return _lines(lambda _prompt: stream.readline() or _end(), keep_rest=True)


def terminal_reader() -> Read:
    """Statements that somebody types, with completion and history as far as this installation has them."""
    try:
        import prompt_toolkit  # noqa: F401
    except ImportError:
        say("pip install 'storagering[shell]' adds colours and completion while you type")
        return _plain_reader()
    return _toolkit_reader()


def is_whole(text: str) -> bool:
    """Whether there is nothing to wait for: a command, whole statements, or nothing at all."""
    return text.lstrip().startswith(".") or cut_script(text).is_complete


def _end() -> str:
    raise EOFError


def _lines(read_line: Callable[[str], str], *, keep_rest: bool) -> Read:
    """Whole statements from lines with their ends.

    Args:
        read_line: gets the prompt; raises EOFError at the end.
        keep_rest: a statement that is not whole at the end counts, too.
    """

    def read() -> str:
        text = ""
        while not text or not is_whole(text):
            try:
                text += read_line(_MORE if text else _FIRST)
            except EOFError:
                if keep_rest and text:
                    return text
                raise
        return text

    return read


def _toolkit_reader() -> Read:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.lexers import PygmentsLexer
    from prompt_toolkit.output import create_output
    from pygments.lexers.sql import SqlLexer

    names = Names()

    class ToCompletions(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            before, asked = document.text_before_cursor, complete_event.completion_requested
            for word, length in complete(before, document.text, names, asked=asked):
                yield Completion(word, -length)

    class Remembered(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError):  # the disk may be full
                super().store_string(string)

    path = history_path("sql_history")
    history: History = Remembered(str(path)) if path else InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        _FIRST,
        multiline=Condition(lambda: not is_whole(get_app().current_buffer.text)),
        prompt_continuation=_MORE,
        lexer=PygmentsLexer(SqlLexer),
        completer=ThreadedCompleter(ToCompletions()),
        auto_suggest=AutoSuggestFromHistory(),
        history=history,
        interrupt_exception=CancelledError,
        output=create_output(always_prefer_tty=True),  # results may go to a file
    )

    def read() -> str:
        names.refresh()
        return session.prompt()

    return read


def _plain_reader() -> Read:
    """`input`, with the history and Tab of readline where Python has it."""
    names = Names()
    with suppress(ImportError):
        import readline

        _set_up_readline(readline, names)

    def read_line(prompt: str) -> str:
        if prompt == _FIRST:
            names.refresh()
        if sys.stdout.isatty():
            return input(prompt) + "\n"
        print(prompt, end="", file=sys.stderr, flush=True)  # results go to a file
        return sys.stdin.readline() or _end()

    return _lines(read_line, keep_rest=False)


def _set_up_readline(readline: Any, names: Names) -> None:
    import atexit

    found: list[str] = []

    def completer(_word: str, state: int) -> str | None:
        if state == 0:
            line, begin, end = readline.get_line_buffer(), readline.get_begidx(), readline.get_endidx()
            offered = complete(line[:end], line, names, asked=True)
            # What it replaces is from `begin` on, which a name with spaces in quotes is not.
            found[:] = [line[begin : end - n] + word[max(begin - end + n, 0) :] for word, n in offered]
        return found[state] if state < len(found) else None

    readline.set_completer(completer)
    readline.set_completer_delims(" \t\n,;()=<>+-*/%|&")
    readline.parse_and_bind("tab: complete")
    path = history_path("sql_lines")
    if path is not None:
        with suppress(OSError):
            readline.read_history_file(path)
        readline.set_history_length(_HISTORY_LINES)
        atexit.register(_write_history, readline, path)


def _write_history(readline: Any, path: Path) -> None:
    with suppress(OSError):  # the disk may be full
        readline.write_history_file(path)


def history_path(name: str) -> Path | None:
    """A file of the user's state folder that nobody else may read; None, and why, if it cannot be had."""
    import platformdirs

    path = platformdirs.user_state_path("storagering") / name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        say(f"statements are not remembered: {path}: {error.strerror}")
        return None
    return path
