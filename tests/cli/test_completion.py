from __future__ import annotations

from pathlib import Path

import pytest

from storagering.cli.completion import Names, complete
from storagering.testing.toys import write_toy_tree


class Known(Names):
    """Names without a cache."""

    def tables(self) -> list[str]:
        return ["jets", "hard-jets", "datasets", "columns"]

    def columns(self, table: str) -> list[str]:
        return {
            "jets": ["jet_pt", "jet_mass", "label"],
            "hard-jets": ["Jet pt", "order", "\x1b[2J"],
            "datasets": ["name", "nbytes"],
        }.get(table, [])


NAMES = Known()


def offered(text: str, *, after: str = "", asked: bool = False) -> list[str]:
    """What would stand before the cursor if each of the offers were taken."""
    return [text[: len(text) - length] + word for word, length in complete(text, text + after, NAMES, asked=asked)]


@pytest.mark.parametrize(
    ("text", "after", "first"),
    [
        ("SELECT * FROM je", "", ["SELECT * FROM jets"]),
        ("SELECT * FROM jets JOIN ha", "", ['SELECT * FROM jets JOIN "hard-jets"']),
        ("SELECT jet_", " FROM jets", ["SELECT jet_pt", "SELECT jet_mass"]),
        ("SELECT JET_M", " FROM jets", ["SELECT jet_mass"]),
        ("SELECT avg(jets.la", ") FROM jets", ["SELECT avg(jets.label"]),
        ("SELECT nb", " FROM datasets", ["SELECT nbytes"]),
        ('SELECT "Je', ' FROM "hard-jets"', ['SELECT "Jet pt"']),
        ("SELECT or", ' FROM "hard-jets"', ['SELECT "order"']),
        ("SELECT 1; SELECT * FROM jets WHERE l", "", ["SELECT 1; SELECT * FROM jets WHERE label"]),
        (".ta", "", [".tables"]),
        (".schema HA", "", [".schema hard-jets"]),
        (".output c", "", [".output csv"]),
    ],
)
def test_names_come_first(text: str, after: str, first: list[str]) -> None:
    assert offered(text, after=after)[: len(first)] == first


@pytest.mark.parametrize(
    "text", ["SELECT 'je", "SELECT 1 -- je", "/* je", "SELECT $$ je", ".quit x", ".nope ", "xyzzyx"]
)
def test_nothing_is_offered_inside_text_and_comments(text: str) -> None:
    assert offered(text) == []


def test_columns_only_of_the_tables_of_the_statement() -> None:
    assert not any("jet_pt" in text for text in offered("SELECT * FROM jets; SELECT jet_", asked=True))
    assert not any("jet_pt" in text for text in offered("SELECT jet_", after=" FROM datasets"))


def test_keywords_and_functions_as_they_were_begun() -> None:
    assert "sel" not in offered("sel")
    assert offered("SEL")[0] == "SELECT"
    assert offered("sel")[0] == "select"
    assert "SELECT stddev(" in offered("SELECT stdd")


def test_nothing_comes_unasked_before_a_word() -> None:
    assert offered("SELECT ", after=" FROM jets") == []
    assert offered("SELECT ", after=" FROM jets", asked=True)[:2] == ["SELECT jet_pt", "SELECT jet_mass"]
    assert offered("SELECT * FROM ", asked=True)[:2] == ["SELECT * FROM jets", 'SELECT * FROM "hard-jets"']
    assert offered("SELECT jets.", after=" FROM jets")[0] == "SELECT jets.jet_pt"


def test_names_that_would_steer_the_terminal_are_not_offered() -> None:
    assert not any("\x1b" in text for text in offered("SELECT ", after=' FROM "hard-jets"', asked=True))


def test_the_names_of_a_real_cache(tmp_path: Path) -> None:
    from storagering import convert

    names = Names()
    write_toy_tree(tmp_path / "t.root", entries=5)
    assert "toys" not in names.tables()
    convert(str(tmp_path / "t.root"), name="toys", workers=1)
    names.refresh()
    assert names.tables()[0] == "toys"
    assert "Jet_pt" in names.columns("toys")
    assert {"name", "nbytes"} <= set(names.columns("datasets"))
    (tmp_path / "cache" / "datasets" / "toys" / "manifest.json").write_text("{}")
    names.refresh()
    assert names.columns("toys") == []
    assert names.columns("nope") == []
