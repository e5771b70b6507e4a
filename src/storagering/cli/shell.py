"""The prompt of ``storagering sql``, and the same without a terminal: statements from a pipe."""

from __future__ import annotations

import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from storagering.cli.console import say, show_table
from storagering.cli.prompt import CancelledError, Read, read_pipe, terminal_reader
from storagering.cli.sql_output import FORMATS, ROWS, write_result
from storagering.cli.sql_text import cut_script, is_blank
from storagering.errors import InputError, StorageringError

if TYPE_CHECKING:
    from storagering.catalog.query import QueryResult

_UNEXPECTED = 4
_HELP = """\
Write SQL over datasets and the catalog's tables; a statement ends with ';' and may take several lines.
Each runs by itself: what one changes, the next does not see.

.tables               datasets, and the tables and views of the catalog
.schema NAME          columns of one of them, with types, units and titles
.output FORMAT        how results are written: table, json or csv
.help                 this
.quit                 leave, as Ctrl-D does; Ctrl-C cancels a query, or what is being written"""


def run_query(query: str) -> QueryResult:
    """Run a query so that Ctrl-C ends it at once.

    Raises:
        StorageringError: see `storagering.catalog.query.sql`.
    """
    from storagering.catalog import query as catalog

    cancelled = threading.Event()
    # A thread of its own: DuckDB does not look for signals while it works, and this one can.
    with ThreadPoolExecutor(1, "storagering-sql-query") as threads:
        try:
            return threads.submit(catalog.run_query, query, cancelled=cancelled).result()
        except KeyboardInterrupt:
            cancelled.set()
            raise


def run_shell(how: str = "table", limit: int = ROWS) -> int:
    """Run statements from the terminal or a pipe until there are no more.

    Args:
        how: how results are written at first: one of `FORMATS`.
        limit: rows that a table shows at most, 0 for all.

    Returns:
        The exit code: that of the first statement of a pipe that failed; 0 from a terminal.
    """
    if not sys.stdin.isatty():
        return Shell(read_pipe(sys.stdin), how, limit).run()
    say("Storagering SQL: '.help' tells what can be said, '.quit' leaves")
    with _terminal_kept(), _cancelled_by_interrupts():
        Shell(terminal_reader(), how, limit, interactive=True).run()
    return 0


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Leaves the terminal as it was, also where a signal ends a prompt that is half set up."""
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


class Shell:
    """Runs statements and commands one after the other.

    Args:
        read: where they come from.
        interactive: tell how long each took.
    """

    def __init__(self, read: Read, how: str = "table", limit: int = ROWS, *, interactive: bool = False) -> None:
        self._read, self._how, self._limit = read, how, limit
        self._interactive = interactive

    def run(self) -> int:
        """All of them; returns the exit code of the first that failed, or 0."""
        first = 0
        while True:
            try:
                text = self._read()
                code = self._run_all(text)
            except (EOFError, SystemExit):
                return first
            except CancelledError:
                say("cancelled")
                code = 0
            first = first or code

    def _run_all(self, text: str) -> int:
        if text.lstrip().startswith("."):
            return self._guarded(self._command, text.strip())
        script = cut_script(text)
        rest = () if is_blank(script.rest) else (script.rest,)
        codes = [self._guarded(self._statement, statement) for statement in (*script.statements, *rest)]
        return next((code for code in codes if code), 0)

    def _guarded(self, work: Callable[[str], None], text: str) -> int:
        """Do it; what goes wrong is told, and the next one has its turn."""
        try:
            work(text)
        except BrokenPipeError:
            raise
        except StorageringError as error:
            say(f"storagering: error: {error}")
            return error.exit_code
        except Exception as error:  # noqa: BLE001  (one statement must not end a session)
            say(f"storagering: error: unexpected {type(error).__name__}: {error}; please report it")
            return _UNEXPECTED
        return 0

    def _statement(self, statement: str) -> None:
        begin = time.perf_counter()
        table = run_query(statement).table
        write_result(table, self._how, self._limit)
        if self._interactive:
            say(f"{table.num_rows:,} row(s) in {time.perf_counter() - begin:.2f} s")

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        argument = argument.strip().rstrip(";").rstrip()
        commands: dict[str, Callable[[str], None]] = {
            ".tables": self._tables,
            ".schema": _schema,
            ".output": self._output,
            ".help": lambda _: print(_HELP),
            ".quit": _leave,
            ".exit": _leave,
        }
        if name.rstrip(";") not in commands:
            raise InputError(f"no command {name!r}: '.help' lists them")
        commands[name.rstrip(";")](argument)

    def _tables(self, _argument: str) -> None:
        import pyarrow as pa

        from storagering.catalog.index import catalog_tables, catalog_views

        datasets = run_query("SELECT name, num_entries FROM datasets ORDER BY name").table
        rows = list(zip(*(column.to_pylist() for column in datasets.columns), ["dataset"] * len(datasets), strict=True))
        for kind, names in (("table", catalog_tables()), ("view", catalog_views())):
            rows.extend((name, None, kind) for name in sorted(names))
        columns = {"name": 0, "kind": 2, "entries": 1}
        write_result(pa.table({key: [row[n] for row in rows] for key, n in columns.items()}), self._how, 0)

    def _output(self, argument: str) -> None:
        if argument not in FORMATS:
            raise InputError(f".output {argument}: write one of {', '.join(FORMATS)}")
        self._how = argument


def _schema(argument: str) -> None:
    """Columns of a table, view or dataset."""
    from storagering.cache.dataset import open_dataset
    from storagering.catalog.schemas import catalog_schemas, dataset_schema

    name = argument[1:-1].replace('""', '"') if len(argument) > 1 and argument[0] == argument[-1] == '"' else argument
    if not name:
        raise InputError(".schema NAME: '.tables' lists the names")
    types = catalog_schemas().get(name.lower())
    if types is not None:
        show_table(("column", "type"), list(types.items()), (False, False))
        return
    dataset = open_dataset(name)
    types = dataset_schema(dataset)
    rows = [(c.name, types[c.name], c.unit, c.doc) for c in dataset.schema.columns if c.name in types]
    show_table(("column", "type", "unit", "doc"), rows, (False,) * 4)


def _leave(_argument: str) -> None:
    raise SystemExit


@contextmanager
def _cancelled_by_interrupts() -> Iterator[None]:
    """Ctrl-C raises `CancelledError`; signals that end the command raise what they did."""

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise CancelledError

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
