"""Traces from files and from the catalog's table of accesses."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storagering.api import convert
from storagering.errors import FormatError, NotFoundError, SchemaError, SpecError
from storagering.simulation.generated import KINDS, make_trace
from storagering.simulation.reading import ACCESSES, load_traces, make_trace_of, read_trace
from storagering.testing.toys import write_toy_tree

ROWS = "time,item,size,dataset,site\n20,b,7,y,cern\n10,a,5,x,desy\n30,a,5,x,cern\n"


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "reads.csv"
    path.write_text(ROWS)
    trace = read_trace(path)
    assert trace.times.tolist() == [10, 20, 30]
    assert trace.items.tolist() == [1, 0, 1]
    assert trace.sizes.tolist() == [7, 5]
    assert trace.groups.tolist() == [0, 1]
    assert trace.sites.tolist() == [1, 0, 0]
    assert (trace.footprint_bytes, trace.accessed_bytes, trace.is_uniform) == (12, 17, False)


def test_a_parquet_file_with_timestamps_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "reads.parquet"
    times = pa.array([2_500_000, 1_000_000], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"time": times, "item": [4, 9], "size": [1, 1]}), path)
    (trace,) = load_traces(str(path))
    assert trace.times.tolist() == [1.0, 2.5]
    assert trace.items.tolist() == [1, 0]
    assert trace.groups.tolist() == [0, 1]
    assert trace.sites.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        ("size", "sizes", SchemaError, "no column 'size'; nearest names: 'sizes'"),
        ("10,", "ten,", SchemaError, "column 'time' is string, not numbers"),
        ("30,a,5", "30,a,6", SpecError, r"item 'a' has 6 bytes in row 3, and 5 before"),
        ("10,", ",", SpecError, "column 'time' lacks 1 values"),
        ("10,", "inf,", SpecError, "column 'time' has values that are no numbers"),
        ("20,b,7", "20,b,0", SpecError, "a size below 1"),
        ("20,b,7,y", "20,b,7,y,z", FormatError, "cannot be read as CSV"),
    ],
)
def test_a_bad_file_is_told_where_it_is_bad(
    tmp_path: Path, old: str, new: str, error: type[Exception], told: str
) -> None:
    path = tmp_path / "reads.csv"
    path.write_text(ROWS.replace(old, new))
    with pytest.raises(error, match=told):
        read_trace(path)


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reads.parquet"
    path.write_text(ROWS)
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        read_trace(path)
    with pytest.raises(NotFoundError, match="no file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="nearest names: 'drift'"):
        load_traces("drif")
    with pytest.raises(SpecError, match="0 seeds"):
        load_traces("drift", seeds=0)
    with pytest.raises(SpecError, match="0 accesses"):
        load_traces("drift", accesses=0)


def test_the_accesses_of_a_cache(cache: Path, tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=300)
    dataset = convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=20_000)
    for _ in range(2):
        dataset.arrays(["event"], stop=1)
    (trace,) = load_traces("accesses")
    chunks = dataset.manifest.chunks
    assert trace.sizes[trace.items].tolist() == 2 * [chunk.nbytes for chunk in chunks]
    assert len(chunks) > 1


def test_accesses_are_taken_to_read_whole_datasets() -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute(
            "CREATE TABLE accesses (time TIMESTAMPTZ, dataset VARCHAR, host VARCHAR, journal VARCHAR, line BIGINT)"
        )
        connection.execute("CREATE TABLE chunks (dataset VARCHAR, chunk BIGINT, file VARCHAR, nbytes BIGINT)")
        connection.execute("INSERT INTO chunks VALUES ('jets', 1, 'b', 20), ('jets', 0, 'a', 10), ('tops', 0, 'a', 5)")
        connection.execute(
            "INSERT INTO accesses VALUES ('2026-01-01 00:00:20Z', 'jets', 'n2', 'j', 2), "
            "('2026-01-01 00:00:10Z', 'tops', 'n1', 'j', 1), ('2026-01-01 00:00:30Z', 'gone', 'n1', 'j', 3)"
        )
        trace = make_trace_of(connection.sql(ACCESSES).to_arrow_table(), "the catalog")
    assert trace.items.tolist() == [0, 1, 2]
    assert trace.sizes.tolist() == [5, 10, 20]
    assert trace.groups.tolist() == [0, 1, 1]
    assert trace.sites.tolist() == [0, 1, 1]
    assert (trace.times - trace.times[0]).tolist() == [0, 10, 10]


@pytest.mark.parametrize("kind", KINDS)
def test_made_up_traces_depend_on_their_seed_alone(kind: str) -> None:
    first, again, other = (make_trace(kind, seed=seed, accesses=3000, items=300) for seed in (1, 1, 2))
    assert first.items.tolist() == again.items.tolist()
    assert first.times.tolist() == again.times.tolist()
    assert first.items.tolist() != other.items.tolist()
    assert 2500 < len(first) < 3500
    assert kind == "tiers" or len(first) == 3000
    assert first.is_uniform == (kind in ("zipf", "drift"))
    assert len(make_trace(kind, seed=0, accesses=1, items=8)) <= 5
