"""Accesses and trainings come from journals into the catalog, each once, and stay when journals go."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache import journal
from storagering.cache.accesses import ACCESSES, TRAININGS, Taken, note_access, note_training
from storagering.cache.journal import journal_folder, list_journals
from storagering.cache.layout import Cache, open_cache
from storagering.catalog import accesses, journals, trainings
from storagering.config import load_settings
from storagering.files import list_directory
from storagering.testing.faults import FaultyDisk, Refusal, faulty
from storagering.types import ConversionSpec, Manifest, Schema


@pytest.fixture
def opened(cache: Path) -> Cache:
    return open_cache(load_settings())


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(connect()) as made:
        yield made


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals of one line each, of which three make an archive."""
    monkeypatch.setattr(journal, "_ENOUGH_BYTES", 1)
    monkeypatch.setattr(journals, "_MANY", 3)


def connect(path: str = ":memory:") -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(path)
    for tables in (accesses.TABLES, trainings.TABLES):
        for name, columns in tables.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
    return connection


def take_in(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    connection.begin()
    rows = accesses.enter(connection, cache)
    connection.commit()
    return rows


def note(cache: Cache, *names: str) -> None:
    for name in names:
        assert note_access(cache, name, "loader", ["x", "y"], Taken(10, 20, 3, 1), seconds=0.5, epoch=2)


def names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT dataset FROM accesses ORDER BY dataset").fetchall()]


def rebuilt(cache: Cache) -> list[str]:
    with closing(connect()) as connection:
        take_in(connection, cache)
        return names(connection)


def archives(cache: Cache) -> list[Path]:
    return list_directory(journal_folder(cache, ACCESSES), "*.parquet")


def test_a_line_becomes_a_row_once(opened: Cache, connection: duckdb.DuckDBPyConnection) -> None:
    assert take_in(connection, opened) == 0
    note(opened, "a", "b")
    assert take_in(connection, opened) == 2
    assert take_in(connection, opened) == 0
    note(opened, "c")
    assert take_in(connection, opened) == 1
    assert names(connection) == ["a", "b", "c"]
    [row] = connection.sql("SELECT * FROM accesses WHERE dataset = 'b'").to_arrow_table().to_pylist()
    assert row["columns"] == ["x", "y"]
    expected = {"entries": 10, "nbytes": 20, "hits": 3, "misses": 1, "epoch": 2, "seconds": 0.5, "line": 1}
    assert {key: row[key] for key in expected} == expected
    assert row["purpose"] == "loader"
    assert row["version"] is row["digest"] is None
    [path] = list_journals(opened, ACCESSES)
    assert row["journal"] == path.stem
    assert connection.execute('SELECT kind, name, "offset" FROM journals').fetchall() == [
        (ACCESSES, path.name, path.stat().st_size)
    ]


def test_what_is_rolled_back_comes_again(opened: Cache, connection: duckdb.DuckDBPyConnection, short: None) -> None:
    note(opened, *"abcdef")
    connection.begin()
    assert accesses.enter(connection, opened) == 6
    connection.rollback()
    assert len(archives(opened)) == 1  # files do not roll back
    assert names(connection) == []
    assert take_in(connection, opened) == 6
    assert names(connection) == list("abcdef") == rebuilt(opened)


def test_finished_journals_become_few_archives(
    opened: Cache, connection: duckdb.DuckDBPyConnection, short: None
) -> None:
    expected = [f"{number:03}" for number in range(30)]
    for number, name in enumerate(expected):
        note(opened, name)
        if number % 7 == 0:
            take_in(connection, opened)
    take_in(connection, opened)
    assert names(connection) == expected == rebuilt(opened)
    assert len(archives(opened)) == 1
    assert len(list_journals(opened, ACCESSES)) <= 3
    known = connection.execute("SELECT count(*) FROM journals").fetchone()
    assert known == (1 + len(list_journals(opened, ACCESSES)),)


def test_large_archives_are_not_written_again_for_few_rows(
    opened: Cache, connection: duckdb.DuckDBPyConnection, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_SMALL_BYTES", 1)
    for number in range(16):
        note(opened, f"{number:03}")
        take_in(connection, opened)
    assert len(archives(opened)) > 3
    assert names(connection) == [f"{number:03}" for number in range(16)] == rebuilt(opened)


def test_files_of_one_content_in_several_places_make_one_row(
    opened: Cache, connection: duckdb.DuckDBPyConnection, short: None
) -> None:
    """What a kill leaves between writing an archive and removing what is in it."""
    note(opened, *"abcd")
    before = {path: path.read_bytes() for path in list_journals(opened, ACCESSES)}
    take_in(connection, opened)
    first = {path: path.read_bytes() for path in archives(opened)}
    note(opened, *"efgh")
    take_in(connection, opened)
    for path, data in (before | first).items():
        path.write_bytes(data)
    assert rebuilt(opened) == list("abcdefgh")
    for path, data in (before | first).items():
        path.write_bytes(data)
    assert take_in(connection, opened) == 0
    assert names(connection) == list("abcdefgh")
    assert len(archives(opened)) == 1


def test_without_room_journals_stay(opened: Cache, connection: duckdb.DuckDBPyConnection, short: None) -> None:
    note(opened, *"abcd")
    with faulty(FaultyDisk(0, Refusal(28, lasting=True))):
        assert take_in(connection, opened) == 4
    assert archives(opened) == []
    assert names(connection) == list("abcd") == rebuilt(opened)


def test_damage_is_told_once(opened: Cache, connection: duckdb.DuckDBPyConnection, short: None) -> None:
    note(opened, *"abcd")
    path = next(path for path in list_journals(opened, ACCESSES) if b'"d"' not in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b"loader", b"loafer"))
    with pytest.warns(UserWarning, match="1 lines of .* are damaged"):
        assert take_in(connection, opened) == 3
    [archive] = archives(opened)
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    assert take_in(connection, opened) == 0
    with closing(connect()) as other:
        with pytest.warns(UserWarning, match="an archive is left out of the catalog: .* is damaged"):
            assert take_in(other, opened) == 1
        assert take_in(other, opened) == 0
    note(opened, *"efgh")
    assert take_in(connection, opened) == 4
    assert archive in archives(opened)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"entries":10', b'"entries":-10'),
        (b'"entries":10', b'"entries":99999999999999999999'),
        (b'"columns":["x","y"]', b'"columns":"x"'),
        (b'"purpose":"loader",', b""),
        (b'"seconds":0.5', b'"seconds":1e999'),
        (b'"dataset":"a"', b'"dataset":"\xff"'),
        (b'"epoch":2', b'"epoch":2,"unknown":1'),
    ],
)
def test_lines_of_other_contents(opened: Cache, connection: duckdb.DuckDBPyConnection, old: bytes, new: bytes) -> None:
    note(opened, "a")
    [path] = list_journals(opened, ACCESSES)
    text = journal.read_journal(path).lines[0].text
    assert old in text
    body = b"0 " + text.replace(old, new)
    path.write_bytes(b"%08x %s\n" % (crc32c(body), body))
    if b"unknown" in new:  # of a newer release
        assert take_in(connection, opened) == 1
    else:
        with pytest.warns(UserWarning, match="damaged"):
            assert take_in(connection, opened) == 0


def test_trainings(opened: Cache, short: None) -> None:
    manifest = Manifest("jets", "s", ConversionSpec(()), "", Schema(()), (), (), (), ("", ""))
    for epochs in range(4):
        assert note_training(
            opened,
            manifest,
            id="1",
            recipe="r",
            model="DeepSet",
            run=opened.root,
            epochs=epochs,
            seconds=1.5,
            metrics={"auc": 0.5 + epochs / 10, "loss": float("nan")},
            seed=4,
            finished=epochs == 3,
        )
    for _ in range(2):
        with closing(connect()) as connection:
            assert trainings.enter(connection, opened) == 4
            query = "SELECT epochs, metrics['auc'], metrics['loss'], finished, dataset FROM trainings ORDER BY epochs"
            rows = connection.execute(query).fetchall()
            assert rows[0] == (0, 0.5, None, False, "jets")
            assert rows[3] == (3, 0.8, None, True, "jets")
    assert len(list_directory(journal_folder(opened, TRAININGS), "*.parquet")) == 1


def test_lines_that_another_release_may_understand_stay(
    opened: Cache, connection: duckdb.DuckDBPyConnection, short: None
) -> None:
    note(opened, *"abcd")
    path = next(path for path in list_journals(opened, ACCESSES) if b'"d"' not in path.read_bytes())
    body = b"0 " + journal.read_journal(path).lines[0].text.replace(b'"hits":3', b'"hits":"three"')
    path.write_bytes(b"%08x %s\n" % (crc32c(body), body))
    note(opened, *"ef")
    with pytest.warns(UserWarning, match="damaged"):
        assert take_in(connection, opened) == 5
    assert len(archives(opened)) == 1
    assert path in list_journals(opened, ACCESSES)


OPERATIONS = st.sampled_from(
    ["note", "note", "finish", "take in", "roll back", "lose the catalog", "lose a file's row"]
)


@settings(max_examples=8, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=16))
def test_any_order_of_events(tmp_path_factory: pytest.TempPathFactory, operations: list[str]) -> None:
    opened = open_cache(load_settings(cache=tmp_path_factory.mktemp("cache")))
    written, connection = 0, connect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_MANY", 2)
        for operation in operations:
            if operation == "note":
                note(opened, f"{written:03}")
                written += 1
            elif operation == "finish":
                for kept in list(journal._idle):
                    journal._idle.remove(kept)
                    kept.close()
            elif operation == "take in":
                take_in(connection, opened)
            elif operation == "roll back":
                connection.begin()
                accesses.enter(connection, opened)
                connection.rollback()
            elif operation == "lose the catalog":
                connection.close()
                connection = connect()
            else:
                connection.execute(
                    "DELETE FROM journals USING (SELECT min(name) AS name FROM journals) AS o "
                    "WHERE journals.name = o.name"
                )
        take_in(connection, opened)
    expected = [f"{number:03}" for number in range(written)]
    assert names(connection) == expected == rebuilt(opened)
    connection.close()
