"""What a selection demands is met by every entry that it keeps."""

from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.formats.conditions import NEVER, Both, Condition, Either, Within, both, compare, demand, either
from storagering.formats.expressions import evaluate_mask, parse_expression
from storagering.formats.forms import assign_keys, describe_column
from storagering.types import Array

ODD = [0.1, 0.3, 1 / 3, np.nan, -0.0, np.inf, -np.inf, 2.5, 0.7]
COLUMNS: dict[str, Any] = {
    "i": np.array([-(2**31), -1, 0, 1, 2, 3, 2**31 - 1] * 2, np.int32),
    "big": np.array([2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**62, -(2**63), 0] * 2),
    "u": np.array([2**64 - 1, 2**64 - 2, 2**63, 2**53 + 1, 1, 0, 7] * 2, np.uint64),
    "f": np.array([*ODD, 3.4e38, np.finfo(np.float32).smallest_subnormal, 1e10, 16777216, 5], np.float32),
    "half": np.array([*ODD, 65504, 6e-8, 1000, 2049, 5], np.float16),
    "d": np.array([*ODD, 1e300, 5e-324, 1e10, 0.1 + 0.2, 5]),
    "flag": np.array([True, False, False, True, False, True, True] * 2),
    "text": ak.Array(["a", "b", "", "é", "a", "long", "x"] * 2),
    "lists": ak.Array([[1.5], [], [2, 3], [np.nan], [5], [6], [7]] * 2),
}
ENTRIES = 14
SCHEMA = assign_keys([describe_column(name, ak.Array(array)) for name, array in COLUMNS.items()])


def meets(condition: Condition | None) -> Array:
    """The entries that meet a condition, one by one."""
    if condition is None:
        return np.ones(ENTRIES, np.bool_)
    if isinstance(condition, Within):
        values = ak.Array(COLUMNS[condition.column]).to_list()
        low: Any = condition.low
        high: Any = condition.high
        return np.array([v != v or low <= v <= high for v in values])
    found = [meets(part) for part in condition.parts]
    everything = isinstance(condition, Both)
    whole: Array = (np.logical_and if everything else np.logical_or).reduce([np.full(ENTRIES, everything), *found])
    return whole


def check(text: str) -> Condition | None:
    expression = parse_expression(text, SCHEMA.names)
    kept = evaluate_mask(expression, COLUMNS)
    condition = demand(expression, SCHEMA)
    assert meets(condition)[kept].all(), (text, condition)
    return condition


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("i == 3", 2),
        ("3 == i", 2),
        ("i > 1", 6),
        ("i <= -1", 4),
        ("~(i > 1)", 8),
        ("i != 3", 12),
        ("flag", 8),
        ("~flag", 6),
        ("(i == 3) & flag", 2),
        ("(i == 3) | (i == 1)", 4),
        ("~((i != 3) | flag)", 0),
        ("text == 'a'", 4),
        ("i == 2.5", 0),
        ("(i == 3) & (text == 'a') | (i == 2)", 2),
        ("big == 9007199254740991", 2),
        ("1 > 2", 0),
    ],
)
def test_what_is_understood(text: str, kept: int) -> None:
    assert meets(check(text)).sum() == kept


@pytest.mark.parametrize(
    "text",
    [
        "f == 0.1",
        "half == 0.1",
        "d == 0.1",
        "f > 1e39",
        "f == 1e39",
        "half >= 70000.5",
        "half == 65520.0",
        "half <= -1e6",
        "big == 9007199254740993",
        "big == 9007199254740992.0",
        "u == 18446744073709551615",
        "u > -1",
        "u >= 1.8446744073709552e19",
        "big == 9223372036854775808",
        "f == 16777217",
        "d != 0.3",
        "d < nan",
        "i + 1 == 4",
        "abs(i) < 2",
        "(i & 1) == 1",
        "i == i",
        "any(lists > 2)",
        "num(lists) == 1",
        "(flag == 1) ^ (i > 2)",
        "text != 'a'",
        "where(flag, i, 0) > 0",
        "2 > 1",
        "(i > 1) == flag",
        "~(text == 'a')",
        "half == 2049",
        "f < 1.2e-45",
        "half < 1e-7",
        "~(d == 0.3)",
    ],
)
def test_roundings_and_what_is_not_understood(text: str) -> None:
    check(text)


NAMES = st.sampled_from(["i", "big", "u", "f", "half", "d"])
CONSTANTS = st.one_of(
    st.sampled_from([v for name in ("i", "big", "u") for v in COLUMNS[name].tolist()]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 0.3, 1 / 3, float(np.float32(0.1)), float(np.float16(0.1)), 65520.0, 3.5e38, 1e-50, 2.0**53]),
)
COMPARISONS = st.builds(
    lambda name, operator, constant: f"({name} {operator} {constant!r})",
    NAMES,
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    CONSTANTS,
)
SELECTIONS = st.recursive(
    st.one_of(COMPARISONS, st.sampled_from(["flag", "(text == 'a')", "any(lists > 2)"])),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("&|"), part).map(lambda t: f"({t[0]} {t[1]} {t[2]})"), part.map("(~{})".format)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(text=SELECTIONS)
def test_every_entry_that_is_kept_meets_the_condition(text: str) -> None:
    check(text)


def test_joining() -> None:
    one, other = Within("i", 1, 2), Within("d", 0.0, 1.0)
    assert both([one, None]) == one
    assert both([None]) is None
    assert both([one, NEVER, other]) == NEVER
    assert both([one, other]) == Both((one, other))
    assert either([one, None]) is None
    assert either([one, NEVER]) == one
    assert either([]) == NEVER
    assert either([one, other]) == Either((one, other))


def test_constants_that_say_nothing() -> None:
    columns = {c.name: c for c in SCHEMA.columns}
    for constant in (float("nan"), float("inf"), "a", None):
        assert compare("Eq", columns["d"], constant) is None
    assert compare("Lt", columns["text"], "a") is None
    assert compare("Eq", columns["lists"], 1) is None
