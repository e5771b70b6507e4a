from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cli.sql_text import cut_script, is_blank


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2;", ("SELECT 1", "SELECT 2"), ""),
        ("SELECT 1;\nSELECT", ("SELECT 1",), "\nSELECT"),
        ("SELECT ';', \";\" -- ;\n, 2; x", ("SELECT ';', \";\" -- ;\n, 2",), " x"),
        ("SELECT 'it''s; here' ;", ("SELECT 'it''s; here'",), ""),
        (r"SELECT e'it\'s; here', 'a\';", (r"SELECT e'it\'s; here', 'a\'",), ""),
        ("SELECT /* ; */ 1; -- ; end", ("SELECT /* ; */ 1",), " -- ; end"),
        ("SELECT $$ ; $$, $a$ ; $$ ; $a$;", ("SELECT $$ ; $$, $a$ ; $$ ; $a$",), ""),
        (" ;; \n; -- nothing\n;/* */;", (), ""),
        ("SELECT 1 - 2 / 3;", ("SELECT 1 - 2 / 3",), ""),
        ("SELECT name'x;y';", ("SELECT name'x;y'",), ""),
    ],
)
def test_statements_end_at_their_semicolons(text: str, statements: tuple[str, ...], rest: str) -> None:
    script = cut_script(text)
    assert (script.statements, script.rest) == (statements, rest)
    assert script.is_complete == is_blank(rest)


@pytest.mark.parametrize(
    ("text", "opener", "inside"),
    [("SELECT 'a;", "'", "a;"), ('SELECT "Jet p', '"', "Jet p"), ("SELECT /* ;", "/*", " ;"), ("1 -- ;", "--", " ;"),
     ("SELECT $a$ $$;", "$a$", " $$;"), ("SELECT e'\\'", "e'", "\\'"), ("SELECT 1", "", "")],
)  # fmt: skip
def test_what_is_open_at_the_end(text: str, opener: str, inside: str) -> None:
    script = cut_script(text)
    assert (script.opener, text[script.inside :]) == (opener, inside)
    assert not script.statements


PIECES = st.sampled_from(
    ["SELECT 1", "'a;b'", "''", '"x;y"', "-- c;\n", "/* ; */", ";", " ", "\n", "e'\\';'", "$$;$$", ", 2", "-", "/"]
)


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12))
def test_as_duckdb_cuts_them(pieces: list[str]) -> None:
    """Where DuckDB understands a script, it sees as many statements."""
    text = "".join(pieces)
    try:
        with duckdb.connect(":memory:") as connection:
            known = connection.extract_statements(text)
    except duckdb.Error:
        return
    script = cut_script(text)
    ours = (*script.statements, *([] if is_blank(script.rest) else [script.rest]))
    assert len(ours) == len(known)
