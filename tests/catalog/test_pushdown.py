"""Queries open the chunks that can hold what they look for, and answer what they would if all were opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.odd import ENTRIES, odd_columns, odd_dataset

import storagering as sr
from storagering.cache.indexing import index_columns
from storagering.cache.zones import chunks_that_may_match
from storagering.catalog.pushdown import find_demands
from storagering.catalog.query import run_query
from storagering.catalog.streams import sql_columns
from storagering.config import Settings, load_settings

INDEXED = ["run", "flag", "trigger", "rare", "small", "f", "wild", "big"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    folder = tmp_path_factory.mktemp("odd")
    return odd_dataset(folder, settings=load_settings(cache=folder / "cache", workers=1, threads=1))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    folder = tmp_path_factory.mktemp("indexed")
    made = odd_dataset(folder, settings=load_settings(cache=folder / "cache", workers=1, threads=1))
    index_columns(made, INDEXED)
    return made


class Prober:
    """Compares the chunks that a query would open with where the rows are that it selects."""

    def __init__(self, dataset: sr.Dataset, settings: Settings) -> None:
        self.dataset, self.columns = dataset, sql_columns(dataset)
        self.starts = np.array([c.start for c in dataset.manifest.chunks])
        self.rows = run_query("SELECT * FROM odd", settings=settings).table
        self.chunks = run_query("SELECT * FROM chunks", settings=settings).table
        self.plain = duckdb.connect(":memory:")
        self.plain.register("odd", self.rows)
        self.sandbox = duckdb.connect(":memory:")
        self.sandbox.register("incoming", self.chunks)
        self.sandbox.execute("CREATE TABLE chunks AS FROM incoming")
        self.sandbox.unregister("incoming")

    def may(self, query: str) -> Any:
        demands = find_demands(self.sandbox, query, {"odd": self.columns})
        if "odd" not in demands:
            return np.ones(len(self.starts), np.bool_)
        return chunks_that_may_match(self.dataset, demands["odd"])

    def check(self, where: str) -> int:
        """How many chunks would not be opened."""
        query = f"SELECT number FROM odd WHERE {where}"
        numbers = [row[0] for row in self.plain.execute(query).fetchall()]
        holding = np.unique(np.searchsorted(self.starts, numbers, side="right") - 1)
        may = self.may(query)
        assert may[holding].all(), f"{where}: chunks {holding[~may[holding]]} hold rows and would not be opened"
        return int((~may).sum())

    def answer(self, query: str, may: Any) -> list[Any]:
        """The answer of DuckDB alone, from some of the chunks."""
        rows = np.concatenate(
            [np.full(c.num_entries, m) for c, m in zip(self.dataset.manifest.chunks, may, strict=True)]
        )
        with duckdb.connect(":memory:") as connection:
            connection.register("odd", self.rows.filter(rows))
            connection.register("chunks", self.chunks)
            return connection.execute(query).fetchall()

    def close(self) -> None:
        self.plain.close()
        self.sandbox.close()


@pytest.fixture(scope="module")
def probe(odd: sr.Dataset) -> Iterator[Prober]:
    prober = Prober(odd, odd.cache.settings)
    yield prober
    prober.close()


@pytest.fixture(scope="module")
def probe_indexed(indexed: sr.Dataset) -> Iterator[Prober]:
    prober = Prober(indexed, indexed.cache.settings)
    yield prober
    prober.close()


@pytest.mark.parametrize("form", ["zarr", "parquet"])
def test_a_cut_of_one_percent_of_a_clustered_column_reads_few_chunks(
    request: pytest.FixtureRequest, tmp_path: Path, form: Any
) -> None:
    odd = request.getfixturevalue("odd") if form == "zarr" else odd_dataset(tmp_path, format=form, workers=1)
    low, high = ENTRIES // 2 + 3, ENTRIES // 2 + 3 + ENTRIES // 100
    for where in (f"number BETWEEN {low} AND {high - 1}", f"number >= {low} AND number < {high}"):
        found = run_query(f"SELECT count(*) AS n FROM odd WHERE {where}", settings=odd.cache.settings)
        assert found.table["n"].to_pylist() == [high - low]
        (reads,) = found.reads
        assert (reads.dataset, reads.of) == ("odd", len(odd.manifest.chunks))
        assert reads.chunks <= max(1, 0.05 * reads.of)
    (reads,) = run_query("SELECT sum(number) FROM odd", settings=odd.cache.settings).reads
    assert reads.chunks == reads.of


@pytest.mark.parametrize(
    "where",
    [
        "number = 700",
        "700 = number",
        "number IN (3, 4, 5)",
        "number IN (0, 7, 9, 11, 200, 5000, 23, 24)",
        "NOT (number >= 30)",
        "number < 20 OR number > 2390",
        "NOT (number > 20 AND number < 2390)",
        "number + 1 < 10",
        "number < 12.5",
        "number BETWEEN 2.5 AND 7.5 OR number > 2390",
        "d > 0.1 AND d < 0.3",
        "run >= 0 AND number < 2200 AND d::FLOAT <= 0.3",
        "number::DOUBLE < 12.5",
        "d < 0.1",
        "f < 0.1",
        "f = 0.25::FLOAT",
        "half > 2.2",
        "d > 1/3 AND d < 0.4",
        "small = -12",
        "small < -11 AND flag",
        "number < 50 AND random() >= 0",
        "number < 50 AND (trigger LIKE '%é' OR wild > 3)",
        "abs(number) >= 0 AND number < 100",
        "number NOT BETWEEN 60 AND 100000",
        "number = 3 OR (number = 4 AND flag)",
    ],
)
def test_what_statistics_can_tell_is_used(probe: Prober, where: str) -> None:
    assert probe.check(where) > len(probe.starts) / 2


@pytest.mark.parametrize(
    "where",
    [
        "flag",
        "NOT flag",
        "flag = true",
        "number IS NOT NULL",
        "number IS NULL OR number < 5",
        "wild > 1e301",
        "wild = 'nan'",
        "wild >= 'inf'::DOUBLE",
        "wild < 0",
        "wild = 0",
        "wild != 0.5",
        "d::DECIMAL(10, 1) = 0.3",
        "d::INTEGER = 2",
        "number::VARCHAR = '12'",
        "CASE WHEN flag THEN number < 5 ELSE number > 3 END",
        "coalesce(number, 1) = 1",
        "number IS NOT DISTINCT FROM 4",
        "trigger > 'HLT_3'",
        "number % 7 = 0",
        "number IN (SELECT max(number) FROM odd)",
        "f = 0.1",
        "f = 0.1::DOUBLE",
        "half = 0.1",
        "f IN (0.1, 0.15, 0.2, 2.3, 7)",
        "unsigned > 18446744073709551614.5",
        "big = 9007199254740993",
        "big > 9007199254740999",
        "unsigned >= 18446744073709551614",
        "big = 9007199254740993.0",
        "big > 9007199254740992.5e0",
        "number = 0 AND number = 0 AND d::FLOAT = 0.05",
        "d::FLOAT = 0.05 AND run < 3 AND f::DOUBLE < 9 AND number::FLOAT < 400",
        "number > NULL",
        "number IN (1, NULL)",
        "number NOT IN (1, 2, 3, 4, 5, NULL)",
    ],
)
def test_what_statistics_cannot_tell_leaves_nothing_out(probe_indexed: Prober, where: str) -> None:
    probe_indexed.check(where)


_COLUMNS = odd_columns()


def near(name: str) -> st.SearchStrategy[str]:
    """Constants at and around the values of a column, as SQL."""
    values = [v for v in np.unique(_COLUMNS[name]).tolist() if v == v and abs(v) < 1e30]
    held = st.sampled_from(values)
    if isinstance(values[0], bool):
        return held.map(str)
    texts = [held.map(repr), held.map(lambda v: repr(v + 1)), st.sampled_from(["0", "-1", "2.5", "1e10", "0.1::FLOAT"])]
    if isinstance(values[0], int):
        texts += [held.map(lambda v: f"{v}.5"), held.map(lambda v: f"{float(v)!r}::DOUBLE")]
    else:
        texts += [held.map(lambda v: repr(float(np.nextafter(v, 9)))), held.map(lambda v: repr(float(np.float32(v))))]
    return st.one_of(texts)


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["number", "run", "big", "unsigned", "small", "f", "half", "d", "wild", "flag"]))
    column = name
    if name != "flag":
        column = draw(st.sampled_from([name, name, f"{name}::DOUBLE", f"{name}::FLOAT", f"CAST({name} AS HUGEINT)"]))
    if name == "wild":
        column = name  # what is not finite has no integer
    kind = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "between", "turned"]))
    if kind == "in":
        few = draw(st.lists(near(name), min_size=1, max_size=9))
        return f"{column} IN ({', '.join(few)})"
    if kind == "between":
        return f"{column} BETWEEN {draw(near(name))} AND {draw(near(name))}"
    if kind == "turned":
        return f"{draw(near(name))} <= {column}"
    return f"{column} {kind} {draw(near(name))}"


LEAVES = st.one_of(
    comparisons(),
    comparisons(),
    st.sampled_from(["flag", "trigger = 'HLT_2'", "trigger IN ('HLT_0é', 'HLT_5')", "rare = 'signal'", "wild = 'nan'"]),
    st.sampled_from(["rare != 'other'", "number IS NULL", "number % 3 = 1", "true", "d + 1 > 2"]),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda part: st.one_of(
        st.lists(part, min_size=2, max_size=3).map(lambda parts: f"({' AND '.join(parts)})"),
        st.lists(part, min_size=2, max_size=3).map(lambda parts: f"({' OR '.join(parts)})"),
        part.map(lambda one: f"(NOT ({one}))"),
    ),
    max_leaves=6,
)


@settings(max_examples=15, deadline=None)
@given(where=PREDICATES)
def test_no_chunk_is_left_out_that_holds_a_row(probe_indexed: Prober, where: str) -> None:
    probe_indexed.check(where)


@pytest.mark.soak
@settings(max_examples=1500, deadline=None)
@given(where=PREDICATES)
def test_no_chunk_is_left_out_in_many_queries(probe: Prober, probe_indexed: Prober, where: str) -> None:
    probe.check(where)
    probe_indexed.check(where)


@pytest.mark.parametrize(
    ("query", "prunes"),
    [
        ("SELECT count(*) FROM (SELECT number AS run, run AS number FROM odd) WHERE number < 1", True),
        ("SELECT count(*) FROM (SELECT number AS run, run AS number FROM odd) WHERE number < 1 OR number > 8.5", True),
        ("SELECT count(*) FROM (SELECT number AS run, run AS number FROM odd) WHERE run < 1.5 OR number < 0", True),
        ("SELECT count(*) FROM odd, (FROM repeat_row(1, num_rows = 1000000000) LIMIT 3) WHERE number < 1", False),
        ("SELECT count(*) FROM odd AS t(run, number) WHERE number < 1", True),
        ("WITH t(run, number) AS (SELECT number, run FROM odd) SELECT count(*) FROM t WHERE run < 40", True),
        ("SELECT count(*) FROM odd a JOIN odd b USING (number) WHERE a.number < 40 AND b.number < 40", True),
        ("SELECT count(*) FROM odd a JOIN odd b ON a.number = b.big - 9007199254740980 WHERE a.number < 7", False),
        ("SELECT count(*) FROM odd a LEFT JOIN odd b ON a.number = b.number AND b.number < 7", False),
        ("SELECT count(*) FROM odd WHERE number < 40 UNION ALL SELECT count(*) FROM odd", False),
        ("SELECT count(*) FROM odd WHERE number < 40 UNION ALL SELECT count(*) FROM odd WHERE number > 2380", True),
        ("SELECT run, count(*) FROM odd WHERE number < 40 GROUP BY run HAVING run < 5 ORDER BY 1", True),
        ("SELECT max(n) FROM (SELECT *, row_number() OVER () AS n FROM odd) WHERE number > 2380", False),
        ("SELECT count(*) FROM (SELECT * FROM odd LIMIT 2300) WHERE number > 40", False),
        ("SELECT count(*) FILTER (WHERE number < 10) FROM odd", False),
        ("SELECT c.stop FROM chunks c, odd WHERE dataset = 'odd' AND number < 2 ORDER BY ALL", True),
        ("SELECT o.number FROM odd o JOIN chunks c ON o.number = c.start WHERE c.dataset = 'odd' ORDER BY 1", False),
        ("SELECT o.number FROM odd o POSITIONAL JOIN chunks c WHERE o.number > 2390 ORDER BY 1", False),
        ("SELECT count(*) FROM odd WHERE number < (SELECT min(start) + 5 FROM chunks)", False),
        ("SELECT count(*) FROM odd WHERE number < 5 AND EXISTS (SELECT 1 FROM chunks WHERE start = number)", True),
    ],
)
def test_whatever_way_a_query_is_put(probe: Prober, query: str, prunes: bool) -> None:
    may = probe.may(query)
    assert (may.sum() < len(may) / 2) == prunes
    assert probe.answer(query, may) == probe.answer(query, np.ones(len(may), np.bool_))


def test_deep_and_long_conditions(probe: Prober) -> None:
    assert probe.check(" OR ".join(f"number = {n}" for n in range(0, 400, 2))) > 0
    assert probe.check(f"number IN ({', '.join(str(n) for n in range(300))})") > 0
    deep = "number < 10"
    for n in range(150):
        deep = f"({deep} {'OR' if n % 2 else 'AND'} run < {n + 100})"
    probe.check(deep)


def test_what_cannot_be_planned_reads_everything(odd: sr.Dataset) -> None:
    sandbox, columns = duckdb.connect(":memory:"), {"odd": sql_columns(odd)}
    for query in ("SELECT nope FROM odd WHERE number < 3", "SELECT", "SELECT 1", "SELECT * FROM nothing, odd"):
        assert find_demands(sandbox, query, columns) == {}
    assert find_demands(sandbox, "SELECT 1 FROM odd WHERE number < 3", columns)
    sandbox.close()


def test_odd_names_of_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["a > 3) OR (b", "select", "true", 'quo"te', "with space", "Mixed"]
    pq.write_table(pa.table({n: np.arange(900) + 7 * i for i, n in enumerate(names)}), tmp_path / "x.parquet", 100)
    made = sr.convert(str(tmp_path / "x.parquet"), name="x", chunk_bytes=4096, workers=1)
    assert len(made.manifest.chunks) > 5
    for i, name in enumerate(names):
        quoted = name.replace('"', '""')
        found = run_query(f'SELECT "{quoted}" AS n FROM x WHERE "{quoted}" IN ({7 * i}, {7 * i + 3}, {7 * i + 899})')
        assert found.table["n"].to_pylist() == [7 * i, 7 * i + 3, 7 * i + 899]
        assert [r.chunks for r in found.reads] == [2]


def test_views_of_views_are_planned(odd: sr.Dataset) -> None:
    sandbox, columns = duckdb.connect(":memory:"), {"odd": sql_columns(odd)}
    sandbox.execute("CREATE TABLE marks (place BIGINT)")
    sandbox.execute("CREATE VIEW low AS SELECT place FROM marks WHERE place < 9")
    sandbox.execute("CREATE VIEW lowest AS SELECT min(place) AS place FROM low")
    for more in ("lowest WHERE number < 9", "low WHERE number < place AND run < 2", "marks WHERE number < 3"):
        assert find_demands(sandbox, f"SELECT 1 FROM odd, {more}", columns)
    sandbox.close()
