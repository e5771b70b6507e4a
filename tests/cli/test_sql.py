from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from storagering.testing.toys import toy_columns, write_toy_rntuple

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_a_table(run: Command, toys: Path) -> None:
    outcome = run("sql", "SELECT count(*) AS n, max(event) AS last FROM toys")
    assert outcome.out.split() == ["n", "last", "400", str(2**60 + 400)]
    assert outcome.err == ""


def test_csv_is_read_back_as_it_was(run: Command, toys: Path) -> None:
    text = run("sql", "SELECT event, MET_pt, weight, passed, Jet_pt FROM toys", "--csv").out
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = toy_columns(400)
    assert [int(row["event"]) for row in rows] == columns["event"].tolist()
    assert [float(row["weight"]) for row in rows] == columns["weight"].tolist()
    assert [np.float32(row["MET_pt"]) for row in rows] == columns["MET_pt"].tolist()
    assert [row["passed"] for row in rows] == [str(x) for x in columns["passed"].tolist()]
    assert len(json.loads(rows[0]["Jet_pt"])) == columns["nJet"][0]


def test_single_precision_is_written_as_short_as_it_is_exact(run: Command, toys: Path) -> None:
    query = "SELECT 0.1::FLOAT AS x, [0.2::FLOAT, NULL] AS y, {'a': 0.3::FLOAT} AS z, 0.1::DOUBLE AS d"
    assert run("sql", query, "--json").json == [{"x": 0.1, "y": [0.2, None], "z": {"a": 0.3}, "d": 0.1}]
    assert run("sql", query, "--csv").out.splitlines()[1].startswith("0.1,")
    assert run("sql", query).out.splitlines()[1].split() == ["0.1", "[0.2,", "null]", '{"a":', "0.3}", "0.1"]


def test_json(run: Command, toys: Path) -> None:
    rows = run("sql", "SELECT event, Jet_id, 0/0.0 AS nan FROM toys ORDER BY event LIMIT 2", "--json").json
    assert [row["event"] for row in rows] == [2**60 + 1, 2**60 + 2]
    assert rows[0]["nan"] is None
    assert run("sql", "SELECT event FROM toys WHERE event = 0", "--json").json == []


def test_two_columns_of_one_name_are_both_written(run: Command, toys: Path) -> None:
    query = "SELECT nJet, nJet + 1 AS nJet FROM toys LIMIT 1"
    assert len(run("sql", query, "--json").json[0]) == 2
    assert len(run("sql", query, "--csv").out.splitlines()[1].split(",")) == 2
    assert len(run("sql", query).out.splitlines()[1].split()) == 2


def test_no_row_goes_missing_in_silence(run: Command, toys: Path) -> None:
    outcome = run("sql", "SELECT event FROM toys", "--rows", 10)
    assert len(outcome.out.splitlines()) == 11
    assert "390 more of 400 rows" in outcome.err
    assert len(run("sql", "SELECT event FROM toys", "--rows", 0).out.splitlines()) == 401
    assert len(run("sql", "SELECT event FROM toys", "--csv").out.splitlines()) == 401


def test_null_strings_and_dates(run: Command, tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "n.root", entries=5)
    run("convert", tmp_path / "n.root", "--name", "n")
    query = "SELECT trigger, NULL AS nothing, DATE '2024-02-29' AS day FROM n LIMIT 1"
    assert run("sql", query).out.split()[-2:] == ["NULL", "2024-02-29"]
    assert run("sql", query, "--csv").out.splitlines()[1].endswith(",,2024-02-29")
    assert run("sql", query, "--json").json[0]["day"] == "2024-02-29"


@pytest.mark.parametrize("query", ["SELECT", "SELECT x FROM toys", "SELECT * FROM toyz", "DROP TABLE datasets"])
def test_a_wrong_query_is_2(run: Command, toys: Path, query: str) -> None:
    outcome = run("sql", query)
    assert outcome.code in (0, 2) if query.startswith("DROP") else outcome.code == 2


def test_parquet(run: Command, toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    query = "SELECT event, Jet_pt, nJet, nJet + 1 AS nJet FROM toys ORDER BY event"
    outcome = run("sql", query, "--parquet", out)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"{out}: 400 rows\n")
    table, columns = pq.read_table(out), toy_columns(400)
    assert table.column_names == ["event", "Jet_pt", "nJet", "nJet_3"]
    assert table["event"].to_pylist() == columns["event"].tolist()
    assert table["Jet_pt"].to_pylist() == columns["Jet_pt"].to_list()
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"
    again = run("sql", "SELECT * FROM range(1000000000000)", "--parquet", out)
    assert again.code == 4, "told before the query, which would take long"
    assert "is there already" in again.err
    assert run("sql", "SELECT 1 AS x", "--parquet", out, "--force").code == 0
    assert pq.read_table(out).to_pylist() == [{"x": 1}]


@pytest.mark.parametrize("query", ["SELECT nope", "SELECT 1 AS x"])
def test_a_parquet_file_is_whole_or_absent(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storagering.files.disk.rename", refuse)
    (tmp_path / "out").mkdir()
    outcome = run("sql", query, "--parquet", tmp_path / "out" / "x.parquet")
    assert outcome.code == (2 if "nope" in query else 4)
    assert not list((tmp_path / "out").iterdir())
    assert run("sql", query, "--parquet", tmp_path / "no" / "x.parquet").code == 2


def test_parquet_needs_a_query(run: Command, tmp_path: Path) -> None:
    outcome = run("sql", "--parquet", tmp_path / "x.parquet")
    assert outcome.code == 2
    assert "give it as an argument" in outcome.err


def test_json_or_csv(run: Command) -> None:
    assert run("sql", "SELECT 1", "--json", "--csv").code == 2


def test_how_much_was_read(run: Command, toys: Path) -> None:
    outcome = run("sql", "SELECT count(*) AS n FROM toys WHERE event < 0", "--explain-reads", "--json")
    assert outcome.json == [{"n": 0}]
    assert outcome.err == "toys: read 0 of 1 chunks\n"
