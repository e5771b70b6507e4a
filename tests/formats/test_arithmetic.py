"""Functions of expressions that NumPy does not have: casts, classes, bins and tables."""

import awkward as ak
import numpy as np
import pytest
from tests.formats.expression_columns import COLUMNS, MET, PT, check, refusal

from storagering.formats.arithmetic import pick

CASTS = ["float32", "float64", "int32", "int64"]


@pytest.mark.parametrize("name", CASTS)
def test_casts(name: str) -> None:
    check(f"{name}(met * 1.5)", (MET * 1.5).astype(name))
    check(f"{name}(Jet_pt)", ak.values_astype(PT, name))
    assert "takes an expression with a column" in refusal(f"{name}(0.25)")


def test_clip() -> None:
    check("clip(Jet_pt, 15, met * 20)", ak.values_astype(ak.Array([[20, 20, 20], [], [15]]), np.float32))
    check("clip(x, 0.1, 0.5)", np.clip(COLUMNS["x"], 0.1, 0.5))


def test_class_of() -> None:
    check("class_of(n == 2, n == 3, n == 1)", np.array([2, 0, 1]))
    check("class_of(flag, 1 - flag)", np.array([0, 1, 0]))
    check("class_of(met == 2, met != 2)", np.array([1, 0, 1]))
    assert "belongs to no class" in refusal("class_of(n == 1, n == 2)")
    assert "belongs to several classes" in refusal("class_of(n < 3, n > 1)")
    assert "takes 2 argument(s), not 1" in refusal("class_of(flag)")


def test_largest_of() -> None:
    check("largest_of(met, 2.5 - x, n - 1)", np.argmax([MET, 2.5 - COLUMNS["x"], COLUMNS["n"] - 1], axis=0))
    check("largest_of(flag, 1 - flag, flag)", np.array([0, 1, 0]))
    check("largest_of(n == 7, n == 8)", np.array([0, 0, 0]))


def test_numbers_that_were_dropped_are_not_looked_up() -> None:
    kept = ak.Array([[0, 1], [-1], [1]])[np.array([True, False, True])]
    assert pick(kept, 1.5, 2.5).to_list() == [[1.5, 2.5], [2.5]]
    check("pick(Jet_id[Jet_id < 3], 7, 8, 9)", ak.Array([[8, 9], [], []]))


def test_bins_and_tables() -> None:
    for text, array in {"met": MET, "x": COLUMNS["x"], "u8": COLUMNS["u8"]}.items():
        edges = [-0.5, 0.5, 2, 3, 100]
        check(f"bin_of({text}, -0.5, 0.5, 2, 3, 100)", np.clip(np.digitize(array, edges) - 1, 0, 3))
    check("bin_of(Jet_pt, 10, 30, 40)", ak.Array([[1, 1, 0], [], [0]]))
    check("pick(n - 1, 0.5, 10, 2)", np.array([0.5, 10, 2]))
    check("pick(bin_of(Jet_pt, 10, 30, 40), 7, 8)", ak.Array([[8, 8, 7], [], [7]]))
    assert "from low to high" in refusal("bin_of(met, 3, 2)")
    assert "only constants" in refusal("bin_of(met, 1, n, 3)")
    assert "only constants" in refusal("pick(n, met, 1)")
    assert "integers from 0 to 1" in refusal("pick(n, 1, 2)")
    assert "integers from 0 to 1" in refusal("pick(met, 1, 2)")
