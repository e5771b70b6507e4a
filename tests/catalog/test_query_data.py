"""SQL over datasets of several kinds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storagering.api import convert
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree


def value(query: str, **settings: Any) -> Any:
    table = sql(query, settings=load_settings(**settings))
    assert table.num_rows == table.num_columns == 1, table
    return table.column(0)[0].as_py()


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("SELECT max(s) FROM (SELECT #2 AS n, sum(c) AS s FROM wide GROUP BY n)", 22),
        ("SELECT max(b) FROM (SELECT * FROM wide UNION ALL SELECT * FROM other)", 211),
        ("SELECT sum(a) FROM (SELECT * EXCLUDE (c) FROM wide)", 3),
        ("SELECT count(*) FROM wide NATURAL JOIN other", 0),
        ("SELECT sum(COLUMNS('^b$')) FROM wide", 33),
        ("SELECT count(*) FROM wide AS t(x, y, z) WHERE y > 10", 2),
    ],
)
def test_columns_that_are_not_read_still_count(tmp_path: Path, query: str, want: Any) -> None:
    """Leaving them out must not shift what * and positions mean."""
    import uproot

    for name, columns in {"wide": ("a", "b", "c"), "other": ("b", "c", "a")}.items():
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file.mktree("t", dict.fromkeys(columns, "i8"))
            offset = 0 if name == "wide" else 201
            file["t"].extend({c: np.arange(3) + 10 * i + offset - (offset > 0) * 2 for i, c in enumerate(columns)})
        convert(str(tmp_path / f"{name}.root"), name=name, workers=1)
    assert int(value(query)) == want


def test_joins_of_datasets_in_both_formats(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=300)
    path = str(tmp_path / "toy.root")
    convert(path, name="left", workers=1, where="nVtx > 30", chunk_bytes=4096)
    convert(path, name="right-one.x", workers=1, where="passed", format="parquet", chunk_bytes=4096)
    columns = toy_columns(300)
    want = int(np.sum((columns["nVtx"] > 30) & columns["passed"]))
    assert value('SELECT count(*) FROM "left" l JOIN "right-one.x" r ON l.event = r.event') == want
    assert value("SELECT count(DISTINCT dataset) FROM columns") == 2


def test_columns_have_quantiles_and_histograms(tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "toy.root", entries=300)
    convert(str(tmp_path / "toy.root"), name="toy", workers=1)
    of, numbers = "FROM columns WHERE name = 'MET_pt'", toy_columns(300, nested=True)["MET_pt"]
    median = value(f"SELECT quantiles[4] {of}")
    assert abs(np.mean(numbers < median) - 0.5) < 0.02
    assert value(f"SELECT sum(b.count) FROM (SELECT unnest(histogram) AS b {of})") == 300
    assert value(f"SELECT histogram[1].low {of}") == float(numbers.min())
    assert value("SELECT count(*) FROM columns WHERE quantiles IS NULL AND count > nan_count + inf_count") == 0
    assert value("SELECT histogram FROM columns WHERE name = 'trigger'") is None


def test_grouping_by_label(tmp_path: Path) -> None:
    for number in range(2):
        write_toy_tree(tmp_path / f"{number}.root", entries=100 + number, seed=number)
    convert({"sig": str(tmp_path / "0.root"), "bkg": str(tmp_path / "1.root")}, name="toy", workers=1)
    query = (
        "SELECT classes[label + 1] AS class, count(*) AS n FROM toy, datasets WHERE name = 'toy' GROUP BY 1 ORDER BY n"
    )
    assert sql(query).to_pylist() == [{"class": "sig", "n": 100}, {"class": "bkg", "n": 101}]


def test_float16_and_odd_names(tmp_path: Path) -> None:
    import uproot

    with uproot.recreate(tmp_path / "x.root") as file:
        file.mktree("t", {'odd "name"; --': "f4", "B": "f4", "b": "f4"})
        file["t"].extend({'odd "name"; --': np.arange(3), "B": np.arange(3) + 10, "b": np.arange(3) + 20})
    convert(str(tmp_path / "x.root"), name="x", workers=1)
    assert value('SELECT sum("odd ""name""; --") FROM x') == 3


def test_an_empty_dataset(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=10)
    convert(str(tmp_path / "toy.root"), name="none", workers=1, where="nVtx < 0")
    assert value("SELECT count(*) FROM none") == 0
    assert sql("SELECT * FROM none").num_rows == 0
