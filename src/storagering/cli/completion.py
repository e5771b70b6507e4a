"""What Tab offers in the SQL shell: datasets, tables, columns of those named, functions and keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import cached_property

from storagering.cli.sql_output import FORMATS
from storagering.cli.sql_text import cut_script
from storagering.errors import StorageringError

COMMANDS = (".tables", ".schema", ".output", ".help", ".quit")
_WORD = re.compile(r"[\w$]*\Z")
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\W\d][\w$]*)')
_BARE = re.compile(r"[a-z_][a-z0-9_]*", re.I)
_TABLE_NEXT = re.compile(r"\b(?:from|join|describe|summarize|table|into|update)\s+\"?\w*\Z|,\s*\"?\w*\Z", re.I)
_AFTER_DOT = re.compile(r"[\w\"]\.\"?\w*\Z")
_MOST = 200


class Names:
    """The names that a statement may use; looked up when they are first needed, and again after `refresh`."""

    def __init__(self) -> None:
        self._datasets: list[str] | None = None
        self._columns: dict[str, list[str]] = {}

    def refresh(self) -> None:
        """Forget the datasets: others may have come."""
        self._datasets = None
        self._columns = {}

    def tables(self) -> list[str]:
        """Datasets, then the tables and views of the catalog."""
        return [*self._names(), *self._catalog]

    def columns(self, table: str) -> list[str]:
        """Columns of a dataset or table; none if there is no such thing, or it is damaged."""
        if table in self._catalog:
            return self._catalog[table]
        if table not in self._columns:
            from storagering.cache.dataset import open_dataset

            self._columns[table] = []
            with suppress(StorageringError):
                self._columns[table] = list(open_dataset(table).schema.names)
        return self._columns[table]

    def _names(self) -> list[str]:
        if self._datasets is None:
            from storagering.cache.layout import open_cache
            from storagering.config import load_settings

            self._datasets = []
            with suppress(StorageringError):
                self._datasets = open_cache(load_settings()).names()
        return self._datasets

    @cached_property
    def _catalog(self) -> dict[str, list[str]]:
        from storagering.catalog.schemas import catalog_schemas

        return {name: list(columns) for name, columns in catalog_schemas().items()}

    @cached_property
    def functions(self) -> list[str]:
        """Functions of the dialect."""
        return _ask("SELECT DISTINCT function_name FROM duckdb_functions() ORDER BY 1")

    @cached_property
    def reserved(self) -> frozenset[str]:
        """Keywords that name a column or table only in quotes."""
        query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        return frozenset(_ask(query))

    @cached_property
    def keywords(self) -> list[str]:
        """Keywords of the dialect, in capitals."""
        return [word.upper() for word in _ask("SELECT keyword_name FROM duckdb_keywords() ORDER BY 1")]


def complete(before: str, text: str, names: Names, *, asked: bool) -> list[tuple[str, int]]:
    """What may stand where the cursor is, best first.

    Args:
        before: the text up to the cursor.
        text: all of it.
        asked: whether somebody pressed Tab; else nothing is offered before a word has begun.

    Returns:
        (what to insert, how many characters before the cursor it replaces).
    """
    if before.lstrip().startswith("."):
        return _complete_command(before.lstrip(), names)
    script = cut_script(before)
    if script.opener not in ("", '"'):
        return []
    quoted = script.opener == '"'
    found = _WORD.search(before)
    prefix = before[script.inside :].replace('""', '"') if quoted else found[0] if found else ""
    length = len(before) - script.inside + 1 if quoted else len(prefix)
    after_dot = _AFTER_DOT.search(before) is not None
    if not prefix and not quoted and not asked and not after_dot:
        return []
    statement = script.rest + script.opener + text[len(before) :]  # its quote is closed
    words = _candidates(before, statement, names, only_names=quoted or after_dot, after_dot=after_dot, prefix=prefix)
    return [(word, length) for word in words][:_MOST]


def _candidates(
    before: str, statement: str, names: Names, *, only_names: bool, after_dot: bool, prefix: str
) -> Iterator[str]:
    seen = {""}
    tables = [] if after_dot else names.tables()
    columns = [column for table in _named(statement, names) for column in names.columns(table)]
    groups = [tables, columns] if _TABLE_NEXT.search(before) else [columns, tables]
    for name in (name for group in groups for name in group):
        if name.lower().startswith(prefix.lower()) and name not in seen and name.isprintable():
            seen.add(name)
            yield _quote(name, names)
    if only_names or not prefix:
        return
    for word in names.keywords:
        if word.lower().startswith(prefix.lower()):
            yield word.lower() if prefix.islower() else word
    for word in names.functions:
        if word.lower().startswith(prefix.lower()) and _BARE.fullmatch(word):
            yield f"{word}("


def _named(statement: str, names: Names) -> Iterable[str]:
    """The tables and datasets whose names are in a statement."""
    used = {(m[1].replace('""', '"') if m[1] is not None else m[2]).lower() for m in _NAME.finditer(statement)}
    return [name for name in names.tables() if name.lower() in used]


def _quote(name: str, names: Names) -> str:
    """The name as SQL wants it."""
    if _BARE.fullmatch(name) and name.lower() not in names.reserved:
        return name
    return '"' + name.replace('"', '""') + '"'


def _complete_command(before: str, names: Names) -> list[tuple[str, int]]:
    command, space, argument = before.partition(" ")
    if not space:
        return [(name, len(command)) for name in COMMANDS if name.startswith(command)]
    known: dict[str, Callable[[], list[str]]] = {".schema": names.tables, ".output": lambda: list(FORMATS)}
    prefix = argument.lstrip()
    found = known[command]() if command in known else []
    return [(name, len(prefix)) for name in found if name.lower().startswith(prefix.lower())][:_MOST]


def _ask(query: str) -> list[str]:
    """The words that DuckDB gives, without a catalog."""
    import duckdb

    with closing(duckdb.connect(":memory:")) as connection:
        return [word for (word,) in connection.execute(query).fetchall()]
