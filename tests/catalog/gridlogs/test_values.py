"""What fields of log records say, whatever way systems have of writing it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.catalog.gridlogs.values import FLAG, FLOAT, INT, TEXT, TIME, RecordError, read_value

NOON = datetime(2017, 2, 28, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("write", [int, float, str, lambda n: {"long": n}, lambda n: f"{n}.0"])
def test_times_are_known_in_any_unit(factor: int, write: Any) -> None:
    assert read_value(write(SECONDS * factor), TIME) == NOON


@pytest.mark.parametrize("text", ["2017-02-28 12:00:00", "2017/02/28 12:00:00", "2017-02-28T13:00:00+01:00"])
def test_times_as_text(text: str) -> None:
    assert read_value(text, TIME) == NOON


def test_times_that_are_none_yet_or_none_at_all() -> None:
    assert read_value(0, TIME) is None
    assert read_value(NOON.astimezone(timezone(timedelta(hours=3))), TIME) == NOON
    for wrong in ("yesterday", 12, 10**30, "2300-01-01", float("1e300")):
        with pytest.raises(RecordError, match="is no time"):
            read_value(wrong, TIME)


@given(st.integers(631_152_000, 4_102_444_799), st.sampled_from([1, 10**3, 10**6, 10**9]))
@settings(max_examples=50)
def test_every_time_of_the_grid_comes_back(seconds: int, factor: int) -> None:
    # Milliseconds before March 1973 would be taken for seconds; the grid is younger.
    found = read_value(seconds * factor, TIME)
    assert found.timestamp() == seconds


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("438385807", INT, 438385807),
        ({"string": "42"}, INT, 42),
        (3865077537.0, INT, 3865077537),
        ("1.5e3", INT, 1500),
        ("37.4138", FLOAT, 37.4138),
        (float("nan"), FLOAT, None),
        ("-", TEXT, None),
        ("unknown", TEXT, None),
        (b"abc", TEXT, "abc"),
        (12, TEXT, "12"),
        ("y", FLAG, True),
        (False, FLAG, False),
        ("0", FLAG, False),
        (None, INT, None),
    ],
)
def test_values(value: Any, kind: str, expected: Any) -> None:
    assert read_value(value, kind) == expected


def test_factors() -> None:
    assert read_value("1.5", FLOAT, 3600.0) == 5400.0
    assert read_value(0.682977179, INT, 1e9) == 682977179


@pytest.mark.parametrize(
    ("value", "kind"), [("many", INT), (2**70, INT), ("perhaps", FLAG), ("a\ud800", TEXT), ([1], INT), ("1_000", INT)]
)
def test_what_is_not_of_its_type_is_told(value: Any, kind: str) -> None:
    with pytest.raises(RecordError):
        read_value(value, kind)
