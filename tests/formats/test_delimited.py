"""Text tables: delimiters, headers, comments, and types that hold for the whole file."""

import csv
import io
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError
from storagering.formats.readers import open_source, text_blocks
from storagering.formats.readers.text_layout import find_layout
from storagering.testing.source_contract import read_all


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storagering.formats.readers.delimited.BLOCK_BYTES", 4096)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 4096)


def read(path: Path, text: str, settings: Settings) -> dict[str, Any]:
    path.write_bytes(text.encode())
    return {name: array.to_list() for name, array in read_all(path, settings).items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "   ", " \t"])
def test_delimiters(tmp_path: Path, settings: Settings, delimiter: str) -> None:
    rows = [["run", "pt", "tag"], ["1", "2.5", "a"], ["2", "-1e3", "b"]]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    want = {"run": [1, 2], "pt": [2.5, -1000.0], "tag": ["a", "b"]}
    assert read(tmp_path / "x", text, settings) == want
    assert read(tmp_path / "y", text.replace("\n", "\r\n"), settings) == want
    assert read(tmp_path / "z", "\ufeff" + text.rstrip("\n"), settings) == want


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2\n3,4\n", ["f0", "f1"]),
        ("a,2012\n1,3\n2,4\n", ["a", "2012"]),
        ("x,1\ny,2\n", ["f0", "f1"]),
        ("# a b\n1 2\n3 4\n", ["a", "b"]),
        ("# made by me\n#a,b\n1,2\n", ["a", "b"]),
        ("# made by me, today, and again\na,b\n1,2\n", ["a", "b"]),
        ("a, b ,c\n1, 2, 3\n", ["a", "b", "c"]),
        ('"a,b","c\nd"\n1,2\n', ["a,b", "c\nd"]),
        (",x\n0,1.5\n", ["", "x"]),
        ("1\n2\n3\n", ["f0"]),
        ("pt\n1.5\n2\n", ["pt"]),
        ("\n\na b\n1 2\n", ["a", "b"]),
        ("nan,1\n2,3\n", ["f0", "f1"]),
        (",0,1\n0,1.5,2\n1,2.5,3\n", ["", "0", "1"]),
        (",0,1\n1.5,2,3\n,5,6\n", ["f0", "f1", "f2"]),
        ('"a\x0bx","b\u0085z"\n1,2\n3,4\n', ["a\x0bx", "b\u0085z"]),
        ("# x\u2028y\n# page 1\x0c\na,b\n1,2\n3,4\n", ["a", "b"]),
        ("# one\r# two\na,b\n1,2\n3,4\n", ["a", "b"]),
    ],
)
def test_headers(tmp_path: Path, settings: Settings, text: str, names: list[str]) -> None:
    found = read(tmp_path / "x", text, settings)
    assert list(found) == names
    assert all(isinstance(v, int | float | str) for column in found.values() for v in column)


def test_numpy_text(tmp_path: Path, settings: Settings) -> None:
    table = np.random.default_rng(1).normal(size=(50, 3))
    table[3, 1], table[4, 2], table[5, 0] = np.nan, -np.inf, -0.0
    for options in (
        {"header": "a b c"},
        {"header": "a,b,c", "delimiter": ","},
        {},
        {"footer": "end", "header": "x y z"},
    ):
        np.savetxt(tmp_path / "x.txt", table, fmt="%.18e", **options)
        found = read_all(tmp_path / "x.txt", settings)
        got = np.stack([column.to_numpy() for column in found.values()], axis=1)
        assert got.tobytes() == table.tobytes()
        (tmp_path / "x.txt").unlink()


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        (["1", "2"], "int64", [1, 2]),
        (["1", "2.5"], "float64", [1.0, 2.5]),
        (["+1", "-1"], "int64", [1, -1]),
        (["1", ""], "?int64", [1, None]),
        (["1.5", ""], "float64", [1.5, "nan"]),
        (["1.5", "NA"], "float64", [1.5, "nan"]),
        (["nan", "-inf"], "float64", ["nan", -np.inf]),
        (["true", "False"], "bool", [True, False]),
        (["true", ""], "?bool", [True, None]),
        (["true", "1"], "string", ["true", "1"]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["18446744073709551615", "0"], "uint64", [2**64 - 1, 0]),
        (["18446744073709551615", "-1"], "string", ["18446744073709551615", "-1"]),
        (["36893488147419103232", "1"], "float64", [2.0**65, 1.0]),
        (["36893488147419103233", "1"], "string", ["36893488147419103233", "1"]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),
        (["0.5", "9007199254740993"], "string", ["0.5", "9007199254740993"]),
        (["9007199254740992", "0.5"], "float64", [2.0**53, 0.5]),
        (["", ""], "float64", ["nan", "nan"]),
        (["a", ""], "string", ["a", ""]),
        (["NA", "x"], "string", ["NA", "x"]),
        (["4.9e-324", "1.7976931348623157e308"], "float64", [5e-324, 1.7976931348623157e308]),
    ],
)
def test_types(tmp_path: Path, settings: Settings, values: list[str], kind: str, want: list[Any]) -> None:
    (tmp_path / "x").write_text("n,v\n" + "".join(f"{n},{v}\n" for n, v in enumerate(values)))
    array = read_all(tmp_path / "x", settings)["v"]
    assert str(array.type) == f"{len(values)} * {kind}"
    assert [("nan" if v != v else v) for v in array.to_list()] == want


@pytest.mark.usefixtures("small_blocks")
def test_a_late_row_changes_the_type_of_all(tmp_path: Path, settings: Settings) -> None:
    """A type guessed from the first block would fail, or lose digits, thousands of rows later."""
    rows = [[str(n), str(n), "true", str(2**60 + n)] for n in range(3000)]
    rows[2990] = ["2990.5", "late", "", "18446744073709551615"]
    text = "a,b,c,d\n" + "".join(",".join(row) + "\n" for row in rows)
    found = read(tmp_path / "x", text, settings)
    assert found["a"] == [float(row[0]) for row in rows]
    assert found["b"] == [row[1] for row in rows]
    assert found["c"] == [None if n == 2990 else True for n in range(3000)]
    assert found["d"] == [int(row[3]) for row in rows]
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert len(source.boundaries([])) > 10


@pytest.mark.usefixtures("small_blocks")
def test_comments_and_quotes_over_blocks(tmp_path: Path, settings: Settings) -> None:
    lines = [f'{n},"a\n# not a comment {n}"\n# a comment, with "one quote\n' for n in range(500)]
    found = read(tmp_path / "x", "# head\nn,text\n" + "".join(lines), settings)
    assert found["n"] == list(range(500))
    assert found["text"][7] == "a\n# not a comment 7"
    plain = "".join(f"{n},#{n}\n#{n},x\n" for n in range(500))  # no comments at the head: these are rows
    assert len(read(tmp_path / "y", "a,b\n" + plain, settings)["a"]) == 1000


def test_rows_of_other_lengths_are_named(tmp_path: Path, settings: Settings) -> None:
    for bad in ("1,2,3\n", "1\n"):
        (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 300 + bad)
        with pytest.raises(CorruptDataError, match=r"x\.csv.*Expected 2 columns, got"):
            open_source(str(tmp_path / "x.csv"), None, settings)
        (tmp_path / "x.csv").unlink()


@pytest.mark.parametrize(
    "text",
    ['a\tb\n0\tw\n1\t"x\n2\ty\n3\tz\n', 'a,b\n0,"aa"\n1,"cd', "a,b\n" + "0,p\n" * 300 + '1,"5\n' + "2,p\n" * 900],
)
def test_a_quote_that_is_never_closed(tmp_path: Path, settings: Settings, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(CorruptDataError, match=r"x\.csv: a quote is opened and never closed"):
        open_source(str(tmp_path / "x.csv"), None, settings)


@pytest.mark.parametrize("text", ["a,b\r1,2\r3,4\r", "1 2\r3 4\r5 6\r"])
def test_carriage_returns_alone_are_named(tmp_path: Path, settings: Settings, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    with pytest.raises(FormatError, match=r"x\.csv: its lines end with carriage returns alone"):
        open_source(str(tmp_path / "x.csv"), None, settings)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shift", range(12))
def test_line_ends_inside_quotes_over_blocks(tmp_path: Path, settings: Settings, shift: int) -> None:
    fields = [f"{'p' * n}\r\ntail" for n in range(400)]
    text = f"a,b\n0,{'x' * shift}\n" + "".join(f'{n},"{field}"\n' for n, field in enumerate(fields))
    assert read(tmp_path / "x", text, settings)["b"][1:] == fields


def test_bad_text_far_in(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x.csv").write_bytes(b"a,b\n" + b"1,x\n" * 100_000 + b"1,\xff\xfe\n")
    with pytest.raises(CorruptDataError, match=r"x\.csv.*UTF8"):
        open_source(str(tmp_path / "x.csv"), None, settings)


def test_a_header_alone_and_repeated_names(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    with closing(open_source(str(tmp_path / "x.csv"), None, settings)) as source:
        assert (source.entries, list(source.columns), source.boundaries([])) == (0, ["a", "b"], [0])
        assert len(source.read(["a"], 0, 0)["a"]) == 0
    (tmp_path / "y.csv").write_text("a,b,a\n1,2,3\n")
    with closing(open_source(str(tmp_path / "y.csv"), None, settings)) as source:
        assert (list(source.columns), source.repeated) == (["a", "b"], ["a"])
        assert source.read(["a"], 0, 1)["a"].to_list() == [1]


@given(
    rows=st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=6)), min_size=1
    )
)
@examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_csv_writes_comes_back(tmp_path: Path, settings: Settings, rows: list[tuple[int, float, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(["i", "x", "s"])
    rows = [(i, x, f"t{s}".replace("\r", "").replace("\0", "")) for i, x, s in rows] + [(0, 0.5, "x")]
    writer.writerows(rows)
    (tmp_path / "x").write_bytes(text.getvalue().encode(errors="replace"))
    found = read_all(tmp_path / "x", settings)
    (tmp_path / "x").unlink()
    assert found["i"].to_list() == [i for i, _, _ in rows]
    assert found["x"].to_numpy().tobytes() == np.array([x for _, x, _ in rows]).tobytes()
    assert found["s"].to_list() == [s.encode(errors="replace").decode() for _, _, s in rows]


def test_layouts_of_nothing() -> None:
    assert find_layout("", whole=True) is None
    assert find_layout("# only\n# comments\n", whole=True) is None
    assert find_layout("a b c\nd e\nf g h i\n", whole=True) is None


def test_tables_of_experiments(shared_data: Path, settings: Settings) -> None:
    want = {
        "cms_dileptons/Zmumu.csv.gz": (10_000, "float64", "pt1"),
        "trackml_mini/event000000001-truth.csv.gz": (None, "int64", "particle_id"),
        "cms_certification/lumi_small.csv": (None, "float64", "avgpu"),
        "cms_certification/abnormal_SPT_2010.txt": (None, "int64", "f0"),
        "sensors_skab/valve1_1.csv.gz": (None, "float64", "Volume Flow RateRMS"),
    }
    for name, (entries, kind, column) in want.items():
        with closing(open_source(str(shared_data / name), None, settings)) as source:
            assert entries in (None, source.entries)
            assert source.columns[column] == kind, name
            arrays = source.read(list(source.columns), 0, source.entries)
            assert {len(array) for array in arrays.values()} == {source.entries}
            assert not ak.any(ak.is_none(arrays[column]))
