"""What statistics prove of an expression is what evaluating it finds, for any values."""

from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.statistics import describe_batch
from storagering.formats.expressions import evaluate_mask, parse_expression
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.formats.proof import prove

_COMPARISONS = ["<", "<=", ">", ">=", "==", "!="]
_CONSTANTS = ["0", "1", "-1", "2", "0.1", "-0.1", "300", "1e30", "nan", "4294967296"]
_FLOATS = st.sampled_from([0.0, -0.0, 0.1, 1.0, -1.0, 2.0, 1e30, np.nan, np.inf, -np.inf, 1.5])


def proved(text: str, columns: dict[str, Any]) -> tuple[bool | None, Any]:
    """What is proved of a selection, and which entries it keeps."""
    arrays = {name: ak.Array(array) for name, array in columns.items()}
    schema = assign_keys([describe_column(name, array) for name, array in arrays.items()])
    batch = to_batch(schema, arrays, len(next(iter(arrays.values()))))
    statistics = {n: s for n, s in zip(schema.names, describe_batch(batch), strict=True) if s is not None}
    expression = parse_expression(text, schema.names)
    return prove(expression, schema, statistics), evaluate_mask(expression, arrays)


@st.composite
def terms(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["x", "n", "u", "abs(x)", "x + 1", "big"]))
    comparison, constant = draw(st.sampled_from(_COMPARISONS)), draw(st.sampled_from(_CONSTANTS))
    plain = f"{constant} {comparison} {name}" if draw(st.booleans()) else f"{name} {comparison} {constant}"
    inside = draw(st.sampled_from(["any(j {} {})", "all(j {} {})"])).format(comparison, constant)
    return draw(st.sampled_from([f"({plain})", f"~({plain})", inside, "flag", "~flag", "(1 > 0)"]))


@settings(max_examples=80)
@given(
    x=st.lists(_FLOATS, min_size=1, max_size=4),
    n=st.lists(st.integers(-3, 300), min_size=1, max_size=4),
    flag=st.lists(st.booleans(), min_size=1, max_size=4),
    j=st.lists(st.lists(_FLOATS, max_size=3), min_size=4, max_size=4),
    parts=st.lists(terms(), min_size=1, max_size=3),
    joint=st.sampled_from([" & ", " | "]),
)
def test_what_is_proved_is_so(
    x: list[float], n: list[int], flag: list[bool], j: list[list[float]], parts: list[str], joint: str
) -> None:
    columns = {
        "x": np.resize(np.array(x, np.float32), 4),
        "n": np.resize(np.array(n, np.int16), 4),
        "u": np.resize(np.array(n, np.int16), 4).astype(np.uint8),
        "big": np.resize(np.array(n, np.int64), 4) + 2**60,
        "flag": np.resize(np.array(flag), 4),
        "j": ak.values_astype(ak.Array([*j, [0.5]])[:4], np.float32),
    }
    verdict, mask = proved(joint.join(parts), columns)
    assert verdict is None or (mask == verdict).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > 2", False), ("x > 0.5", True), ("x > 1.5", None), ("3 > x", True), ("x == 7", False), ("x != 7", True),
        ("abs(y) < 4", True), ("abs(y) < 2", None), ("y >= -3", True), ("c == 5", True), ("c != 5", False),
        ("(x > 2) & (y > 0)", False), ("(x > 0.5) | (y > 0)", True), ("(x > 1.5) & (c == 5)", None),
        ("~(x > 2)", True), ("any(j > 9)", False), ("all(j < 9)", True), ("any(j < 9)", None), ("flag", True),
        ("x * 2 > 9", None), ("f > 0.1", False), ("0 > 1", False), ("holes > 0", None), ("holes < 0", False),
    ],
)  # fmt: skip
def test_what_can_be_proved(text: str, expected: bool | None) -> None:
    columns = {
        "x": np.array([1.0, 2.0]),
        "y": np.array([-3, 2]),
        "c": np.array([5, 5]),
        "f": np.array([0.1, 0.1], np.float32),  # 0.1 becomes a float32, too, which is larger than 0.1
        "flag": np.array([True, True]),
        "holes": np.array([1.0, np.nan]),
        "j": ak.Array([[1.0], []]),
    }
    assert proved(text, columns)[0] is expected
