"""Columns of every kind, and how the tests of expressions ask for values and refusals."""

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np
import pytest

from storagering.errors import SpecError
from storagering.formats.expressions import Expression, parse_expression

PT = ak.values_astype(ak.Array([[50.0, 30.0, 20.0], [], [10.0]]), np.float32)
ETA = ak.values_astype(ak.Array([[1.0, -2.5, 0.0], [], [3.0]]), np.float32)
MUON = ak.Array([[5.0], [], []])
DEEP = ak.Array([[[1.0, 2.0], []], [], [[3.0]]])
MET = np.array([1, 2, 3], np.float32)
N = np.array([1, 2, 3], np.int32)
FLAG = np.array([True, False, True])
FIXED = np.arange(9.0).reshape(3, 3)
COLUMNS = {
    "Jet_pt": PT,
    "Jet_eta": ETA,
    "Jet_id": ak.values_astype(ak.Array([[1, 2, 3], [], [4]]), np.uint8),
    "Muon_pt": MUON,
    "deep": DEEP,
    "met": MET,
    "x": np.array([-0.5, 0.25, 0.75]),
    "n": N,
    "u8": np.array([1, 2, 250], np.uint8),
    "id": np.array([2**63 + 1, 3, 2**64 - 1], np.uint64),
    "flag": FLAG,
    "fixed": FIXED,
    "name": ak.Array(["a", "bb", "a"]),
    "tags": ak.Array([["a", "b"], [], ["c"]]),
    "Jet": ak.Array([[{"pt": 1.0, "eta": 2.0}], [], [{"pt": 3.0, "eta": 4.0}]]),
    "Jet.pt": np.array([9.0, 8.0, 7.0]),
    "muonp4/fP.fX": np.array([1.0, 2.0, 3.0]),
    "my-col": np.array([4.0, 5.0, 6.0]),
    "\N{MICRO SIGN}": np.array([1, 2, 3]),
    "_q0_": np.array([7, 8, 9]),
    "num": np.array([1, 1, 1]),
    "mixed": ak.Array([1, [2], "x"]),
    "holes": ak.Array([1, None, 3]),
    "list_holes": ak.Array([[1], None, [2, 3]]),
}


def parse(text: str) -> Expression:
    return parse_expression(text, list(COLUMNS))


def value(text: str) -> ak.Array:
    result = parse(text).evaluate(COLUMNS)
    assert isinstance(result, ak.Array)
    assert len(result) == 3
    return result


def by_advice(table: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(text, advice) for advice, texts in table.items() for text in texts]


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text).evaluate(COLUMNS)
    return str(caught.value)


def check(text: str, expected: Any) -> None:
    result, expected = value(text), ak.Array(expected)
    assert str(result.type) == str(expected.type)
    assert ak.array_equal(result, expected, equal_nan=True), (result.to_list(), expected.to_list())
