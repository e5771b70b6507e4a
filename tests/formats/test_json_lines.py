"""JSON lines: nested values, and types that hold for the whole file."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, LimitExceededError
from storagering.formats.readers import open_source, text_blocks
from storagering.formats.source import UnreadableColumnsError
from storagering.testing.source_contract import read_all


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 2048)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([2**63, 0], "uint64"),
        ([2**60 + 1, -1], "int64"),
        ([True, False], "bool"),
        (["2020-01-01", "2020-01-02"], "string"),
        (["2020-01-01", "x"], "string"),
        ([1.5, None], "?float64"),
        ([[1, 2], []], "var * int64"),
        ([[1, None], []], "var * ?int64"),
        ([[1], None], "option[var * int64]"),
        ([[[1.5], []], []], "var * var * float64"),
        ([{"x": 1}, {"x": 2}], "{x: int64}"),
        ([{"x": 1}, {"x": 2, "y": [1]}], "{x: int64, y: option[var * int64]}"),
        ([{"x": 1}, None], "?{x: int64}"),
        ([[{"pt": 1.5}], []], "var * {pt: float64}"),
        ([float("nan"), float("-inf")], "float64"),
        ([-0.0, 1], "float64"),
        ([1e-320, 1.7976931348623157e308], "float64"),
    ],
)
def test_types(tmp_path: Path, settings: Settings, values: list[Any], kind: str) -> None:
    array = read_all(write(tmp_path / "x", [{"v": v} for v in values]), settings)["v"]
    assert str(array.type) == f"2 * {kind}"
    if kind == "float64":
        assert [str(value) for value in array.to_list()] == [str(float(value)) for value in values]
    else:
        fields = ak.fields(array)
        assert array.to_list() == [dict.fromkeys(fields) | v if isinstance(v, dict) else v for v in values]


@pytest.mark.usefixtures("small_blocks")
def test_a_late_line_changes_the_type_of_all(tmp_path: Path, settings: Settings) -> None:
    rows: list[dict[str, Any]] = [{"a": n, "b": n, "s": "2020-01-01", "l": [], "c": n} for n in range(500)]
    rows[490] |= {"a": 0.5, "b": 2**64 - 1, "s": "late", "l": [[1]], "d": 1}
    del rows[480]["c"]
    found = read_all(write(tmp_path / "x", rows), settings)
    assert [str(array.type) for array in found.values()] == [
        f"500 * {kind}" for kind in ("float64", "uint64", "string", "var * var * int64", "?int64", "?int64")
    ]
    assert found["b"].to_list() == [row["b"] for row in rows]
    assert found["s"].to_list() == [row["s"] for row in rows]
    assert found["l"].to_list() == [row["l"] for row in rows]
    assert found["c"].to_list() == [row.get("c") for row in rows]
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert len(source.boundaries([])) > 5


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, "x"], "it mixes integers and strings"),
        ([[1], {"x": 1}], "it mixes arrays and objects"),
        ([True, 0], "it mixes bools and integers"),
        ([{"x": [1]}, {"x": 1}], "it mixes arrays and integers"),
        ([2**53 + 1, 0.5], "it mixes fractions and integers of more digits than float64 holds"),
        ([2**64, 0], "it has integers of more than 64 bits"),
        ([None, None], "it has no values, so its type is unknown"),
    ],
)
def test_columns_without_a_type_are_told(tmp_path: Path, settings: Settings, values: list[Any], reason: str) -> None:
    with closing(open_source(str(write(tmp_path / "x", [{"v": v, "n": 1} for v in values])), None, settings)) as source:
        assert list(source.columns) == ["v", "n"]
        with pytest.raises(UnreadableColumnsError) as caught:
            source.read(["n", "v"], 0, 2)
        assert caught.value.reasons == {"v": reason}
        assert source.read(["n"], 0, 2)["n"].to_list() == [1, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1}\n{"a": \n', "line 2 is not a JSON object"),
        ('{"a": 1}\n\n[1]\n', "line 3 is not a JSON object but list"),
        ('{"a": 1, "a": 2}\n', "line 1.*comes twice"),
        ('{"a": 1}\n' * 1000 + "{'a': 1}\n", "line 1,001"),
        ('{"a": "\\ud800"}\n', "damaged"),
    ],
)
def test_what_is_no_json_lines(tmp_path: Path, settings: Settings, text: str, told: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(CorruptDataError, match=told):
        open_source(str(tmp_path / "x"), None, settings)


def test_deep_nesting_is_refused(tmp_path: Path, settings: Settings) -> None:
    """pyarrow would crash the process."""
    for depth in (100, 100_000):
        (tmp_path / f"x{depth}").write_text('{"a":' + "[" * depth + "]" * depth + "}\n")
        with pytest.raises((LimitExceededError, FormatError, UnreadableColumnsError)):
            read_all(tmp_path / f"x{depth}", settings)


_scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=4)
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@given(rows=st.lists(st.dictionaries(st.text(max_size=3), _values, max_size=3), min_size=1, max_size=8))
@examples(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_objects(tmp_path: Path, settings: Settings, rows: list[dict[str, Any]]) -> None:
    """Every column comes back as `json` has it, or with the reason why not."""
    path = write(tmp_path / "x", rows)
    with closing(open_source(str(path), None, settings)) as source:
        for name in source.columns:
            try:
                found = source.read([name], 0, len(rows))[name].to_list()
            except UnreadableColumnsError:
                continue
            assert found == [row.get(name) for row in rows]
    path.unlink()
