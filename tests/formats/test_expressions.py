"""The expression language, each feature against awkward and NumPy and each refusal for its advice."""

import pickle
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.formats.expression_columns import (
    COLUMNS,
    DEEP,
    ETA,
    FIXED,
    FLAG,
    MET,
    PT,
    N,
    by_advice,
    check,
    parse,
    refusal,
    value,
)

from storagering.errors import SpecError
from storagering.formats.expressions import evaluate_mask, parse_expression
from storagering.formats.functions import FUNCTIONS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("met", MET),
        ("met + 1", MET + 1),
        ("2 - met * n / 4", 2 - MET * N / 4),
        ("-met ** 2", -(MET**2)),
        ("2 ** n ** 2 - 1", 2**N**2 - 1),
        ("(met - 1) - (n - 2) - 3", (MET - 1) - (N - 2) - 3),
        ("n // 2 + n % 2", N // 2 + N % 2),
        ("n << 2 >> 1", N << 2 >> 1),
        ("n << n", N << N),
        ("n & 1 | n ^ 2", N & 1 | N ^ 2),
        ("~n", ~N),
        ("+n", N),
        ("~flag", ~FLAG),
        ("(met > 1) & (n <= 2) | ~flag", (MET > 1) & (N <= 2) | ~FLAG),
        ("(n & 1) == 0", (N & 1) == 0),
        ("n % 2 != 1", N % 2 != 1),
        ("met >= n", MET >= N),
        ("Jet_pt < 2 * met", PT < 2 * MET),
        ("Jet_pt * Jet_eta", PT * ETA),
        ("deep + met", DEEP + MET),
        ("deep * max(Muon_pt)", ak.Array([[[5.0, 10.0], []], [], [[np.nan]]])),
        ("2 * pi", np.full(3, 2 * np.pi)),
        ("True", np.full(3, True)),
        ("~True", np.full(3, False)),
        ("1e3 + 0x10 + .5 + 1_0", np.full(3, 1026.5)),
        ("sqrt(4) ** 3 < 9", np.full(3, True)),
        ("met ** (1 / 2)", MET**0.5),
        ("met ** -64", MET**-64),
        (" ( met\n\t+ 1 ) ", MET + 1),
    ],
)
def test_operators_agree_with_numpy(text: str, expected: Any) -> None:
    check(text, expected)


def test_types_follow_the_columns() -> None:
    assert str(value("Jet_pt * 2.5 + pi").type) == "3 * var * float32"
    assert str(value("where(Jet_pt > 20, Jet_pt, 0)").type) == "3 * var * float32"
    assert str(value("fill(max(Jet_pt), -999)").type) == "3 * float32"
    assert str(value("max(Jet_pt)").type) == "3 * float32"
    assert str(value("where(flag, u8, -1)").type) == "3 * int16"
    assert str(value("fixed * met").type) == "3 * 3 * float64"


def test_flat_column_goes_with_entries_of_a_fixed_size_column() -> None:
    check("fixed * met", FIXED * MET[:, np.newaxis])
    check("met - fixed", MET[:, np.newaxis] - FIXED)


def test_constants_beyond_an_integer_column_compare() -> None:
    check("u8 > 300", [False, False, False])
    check("u8 != -1", [True, True, True])
    check("id == 18446744073709551615", [False, False, True])
    assert "out of bounds" in refusal("u8 + 300")


CASTS = ["float32", "float64", "int32", "int64"]
ONE_ARGUMENT = [name for name, function in FUNCTIONS.items() if (function.kind, function.arity) == ("elementwise", 1)]
ONE_ARGUMENT = [name for name in ONE_ARGUMENT if name not in CASTS]
REDUCTIONS = [name for name, function in FUNCTIONS.items() if function.kind == "list"]


def test_the_table_of_functions() -> None:
    names = """abs sqrt cbrt exp exp2 log log2 log10 log1p expm1 sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh
        arcsinh arccosh arctanh hypot floor ceil trunc round sign ones_like zeros_like nan_to_num clip class_of bin_of
        pick minimum maximum where isnan isinf isfinite deltaphi deltar fill num any all sum prod min max mean std
        largest_of argmin argmax firsts count_nonzero sort"""
    assert sorted(FUNCTIONS) == sorted([*names.split(), *CASTS])


@pytest.mark.parametrize("name", ONE_ARGUMENT)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_functions_of_one_number(name: str) -> None:
    check(f"{name}(x)", getattr(np, name)(COLUMNS["x"]))
    check(f"{name}(0.25)", np.full(3, getattr(np, name)(0.25)))


@pytest.mark.parametrize("name", ["arctan2", "hypot", "minimum", "maximum"])
def test_functions_of_two_numbers(name: str) -> None:
    check(f"{name}(met, x)", getattr(np, name)(MET, COLUMNS["x"]))
    check(f"{name}(Jet_pt, met)", getattr(np, name)(PT, MET))
    check(f"{name}(3, met)", getattr(np, name)(3, MET))


def test_where() -> None:
    check("where(flag, met, -met)", np.where(FLAG, MET, -MET))
    check("where(flag, 1, 0)", np.where(FLAG, 1, 0))
    check("where(Jet_pt > 20, met, Jet_pt)", ak.Array(ak.values_astype(ak.Array([[1, 1, 20], [], [10]]), np.float32)))
    check("where(flag, Jet_pt, 0)", ak.where(FLAG, PT, ak.zeros_like(PT)))
    assert "true or false" in refusal("where(n, met, 0)")
    assert "true or false" in refusal("where(True, 1, 2)")
    assert "different types" in refusal("where(flag, name, met)")


def test_angles() -> None:
    wide = np.concatenate([np.linspace(-40, 40, 4001), np.pi * np.arange(-9, 10), np.nextafter(np.pi, [0, 4])])
    for phi in (wide, wide.astype(np.float32)):
        wrapped = ak.to_numpy(parse_expression("deltaphi(a, 0)", ["a"]).evaluate({"a": phi}))
        assert wrapped.dtype == phi.dtype
        pi = phi.dtype.type(np.pi)
        assert np.all((wrapped >= -pi) & (wrapped < pi))
        np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * phi), atol=1e-5)
        inside = np.abs(phi) < 3
        np.testing.assert_array_equal(wrapped[inside], phi[inside])
    check("deltaphi(3, -3)", np.full(3, 6 - 2 * np.pi))
    check("deltar(Jet_eta, Jet_pt, Jet_eta, Jet_pt - 3)", ak.full_like(PT, 3))
    check("deltar(met, 0, 0, 0)", MET)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("column", ["Jet_pt", "deep", "fixed"])
def test_list_functions_are_awkwards(name: str, column: str) -> None:
    array = ak.Array(COLUMNS[column])
    axis = array.ndim - 1
    options = {"mask_identity": True} if name in ("mean", "std") else {}
    expected = getattr(ak, name)(array, axis=axis, **options)
    if name in ("argmin", "argmax"):
        check(f"fill({name}({column}), -1)", ak.fill_none(expected, -1))
    else:
        dtype = np.float32 if "float32" in str(expected.type) else np.float64
        check(f"{name}({column})", ak.fill_none(expected, dtype(np.nan), axis=-1))


def test_list_functions_on_empty_lists_and_options() -> None:
    assert value("any(Jet_pt > 25)").to_list() == [True, False, False]
    assert value("all(Jet_pt > 25)").to_list() == [False, True, False]
    assert value("sum(Jet_pt)").to_list() == [100, 0, 10]
    check("sort(Jet_pt, ascending=False)", PT)
    check("sort(Jet_pt, ascending=True)", ak.sort(PT))
    assert value("num(tags)").to_list() == [2, 0, 1]
    assert value("num(Jet)").to_list() == [1, 0, 1]
    untyped = {"empty": ak.Array([[], []])}
    assert parse_expression("fill(max(empty[empty > 3]), 0)", untyped).evaluate(untyped).to_list() == [0, 0]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_nothing_is_reduced_over_entries(name: str) -> None:
    assert "one value per entry" in refusal(f"{name}(met)")
    assert "one value per entry" in refusal(f"{name}(num(Jet_pt))")
    assert "one value per entry" in refusal(f"{name}(name)")
    assert "one value per entry" in refusal(f"{name}(2)")


def test_missing_values() -> None:
    assert np.isnan(value("max(Jet_pt)")[1])
    for text in ("argmax(Jet_pt)", "firsts(Jet_id)", "max(Jet_pt) > 5", "holes"):
        assert "fill(x, value)" in refusal(text)
    check("fill(firsts(Jet_id), 0)", np.array([1, 0, 4], np.uint8))
    check("fill(firsts(Jet_id), -1)", np.array([1, -1, 4], np.int16))
    check("fill(max(Jet_pt) > 5, False)", [True, False, True])
    check("fill(holes, 2)", [1, 2, 3])
    assert value("Jet_pt[:, :1] - max(Muon_pt)").to_list()[:2] == [[45.0], []]
    assert np.isnan(value("Jet_pt - max(Muon_pt)")[2, 0])
    assert "whole lists" in refusal("list_holes")
    assert "nothing can stand" in refusal("firsts(tags)")
    assert "nothing can stand" in refusal("firsts(Jet)")
    assert "constant" in refusal("fill(met, n)")
    assert "numbers" in refusal("fill(name, 1)")
    some = {"a": ak.Array([[1], [2, 3]])}
    assert str(parse_expression("firsts(a)", some).evaluate(some).type) == "2 * int64"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jet_pt[:, :2]", PT[:, :2]),
        ("Jet_pt[:, -1:]", PT[:, -1:]),
        ("Jet_pt[:, ::-1]", PT[:, ::-1]),
        ("Jet_pt[:]", PT),
        ("fixed[:, 1]", FIXED[:, 1]),
        ("fixed[:, -1] + 1", FIXED[:, -1] + 1),
        ("deep[:, :, :1]", DEEP[:, :, :1]),
        ("(Jet_pt + 1)[:, 0:2]", (PT + 1)[:, 0:2]),
        ("Jet_pt[Jet_eta < 2.4]", PT[ETA < 2.4]),
        ("Jet_pt[(Jet_eta < 2.4) & (Jet_pt > 25)]", PT[(ETA < 2.4) & (PT > 25)]),
        ("Jet_pt[Jet_pt > 25][:, :1]", PT[PT > 25][:, :1]),
        ("deep[num(deep) > 1]", DEEP[ak.num(DEEP, axis=2) > 1]),
        ("deep[deep > 1]", DEEP[DEEP > 1]),
        ("fixed[fixed > 3]", ak.Array([[], [4.0, 5.0], [6.0, 7.0, 8.0]])),
        ("Jet_pt[Jet_pt > max(Muon_pt)]", ak.values_astype(ak.Array([[50.0, 30.0, 20.0], [], []]), np.float32)),
        ("Jet_eta[Jet_pt == max(Jet_pt)]", ETA[:, :1]),
        ("num(Jet[Jet.eta > 3])", [0, 0, 1]),
    ],
)
def test_indices(text: str, expected: Any) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    "text", ["Jet_pt[0]", "Jet_pt[-1]", "Jet_pt[1:]", "Jet_pt[::2]", "Jet_pt[0, :]", "Jet_pt[:2, 0]", "Jet_pt[True]"]
)
def test_entries_are_never_indexed(text: str) -> None:
    assert "index inside entries, with [:, 0]" in refusal(text)


INDICES_REFUSED = {
    "use firsts(Jet_pt), which may be missing, or select num(Jet_pt) > 0": ["Jet_pt[:, 0]"],
    "select num(Jet_pt) > 2": ["Jet_pt[:, 2]"],
    "select num(Jet_pt) >= 2": ["Jet_pt[:, -2]"],
    "use firsts(...)": ["sort(Jet_pt)[:, 0]"],
    "no item 5": ["fixed[:, 5]"],
    "has 0 level(s) of lists in each entry, too few": ["met[:, 0]", "name[:, 0]"],
    "has 1 level(s) of lists in each entry, too few": ["Jet_pt[:, 0, 0]"],
    "would drop entries": ["Jet_pt[met > 1]"],
    "must be a mask": ["Jet_pt[argmax(Jet_pt)]", "Jet_pt[Jet_pt]"],
    "do not have the lengths": ["Jet_pt[Muon_pt > 3]", "Jet_pt[fixed > 3]"],
    "more levels": ["Jet_pt[deep > 3]"],
    "a mask stands alone": ["Jet_pt[:, Jet_pt > 3]"],
    "integers": ["Jet_pt[:, n]", "Jet_pt[:, 1.5]", "Jet_pt[:, True]", "Jet_pt[:, 9223372036854775808]"],
    "step": ["Jet_pt[:, ::0]"],
    "Ellipsis": ["Jet_pt[...]", "Jet_pt[:, ...]"],
    "inside entries": ["Jet_pt[()]"],
    "a constant cannot be indexed": ["pi[:, 0]"],
    "write Jet.pt": ['Jet["pt"]'],
    "nothing can be assigned": ["Jet_pt[(Jet_eta := 2)]"],
}


@pytest.mark.parametrize(("text", "advice"), by_advice(INDICES_REFUSED))
def test_indices_refused(text: str, advice: str) -> None:
    assert advice in refusal(text)


def test_one_entry_without_items_does_not_pass_a_shorter_mask() -> None:
    columns = {"a": ak.Array([[1, 2], [3]]), "b": ak.Array([[9], [9]])}
    with pytest.raises(SpecError, match="lengths"):
        parse_expression("a[b > 3]", columns).evaluate(columns)


def test_names() -> None:
    assert parse("met + Jet_pt * met - num(Jet_eta)").names == ("met", "Jet_pt", "Jet_eta")
    assert parse("1 + 1").names == ()
    assert parse("Jet.pt").names == ("Jet.pt",)
    assert parse("Jet.eta + Jet.pt").names == ("Jet", "Jet.pt")
    check("Jet.pt", [9.0, 8.0, 7.0])
    check("Jet.eta", [[2.0], [], [4.0]])
    check("Jet.`eta`", [[2.0], [], [4.0]])
    check("`muonp4/fP.fX` > 1", [False, True, True])
    check("`my-col` - `n`", COLUMNS["my-col"] - N)
    check("`Jet.pt`", [9.0, 8.0, 7.0])
    check("_q0_ + `_q0_` + `n`", [15, 18, 21])
    check("num(Jet_pt) + num", [4, 1, 2])
    check("\N{MICRO SIGN} + 1", [2, 3, 4])
    columns = {"pi": N, "a.b": ak.Array([{"c": {"d": i}} for i in range(3)]), "class": N}
    assert parse_expression("pi", columns).evaluate(columns).to_list() == [1, 2, 3]
    assert parse_expression("a.b.c.d + `class`", columns).evaluate(columns).to_list() == [1, 3, 5]


def test_unknown_names_list_the_nearest() -> None:
    assert "there is no column 'jet_pt'; nearest names: 'Jet_pt'" in refusal("jet_pt + 1")
    assert "'my-cool'; nearest names: 'my-col'" in refusal("`my-cool`")
    assert "there is no function 'nun'; nearest names: 'num'" in refusal("nun(Jet_pt)")
    assert "there is no field 'phi' in Jet; there are: 'pt', 'eta'" in refusal("Jet.phi")
    assert "no field 'phi' in met; it is not a record" in refusal("met.phi")
    assert "no column 'Muon.pt'" in refusal("Muon.pt")
    assert "sqrt is a function" in refusal("sqrt + 1")


def test_strings() -> None:
    check('name == "a"', [True, False, True])
    check("'a' != name", [False, True, False])
    check('tags == "a"', [[True, False], [], [False]])
    check("tags == name", [[True, False], [], [False]])
    check('Jet_pt[:, :1][tags[:, :1] == "a"]', PT[:, :1][ak.Array([[True], [], [False]])])
    assert "can only be compared" in refusal('name < "a"')
    assert "can only be compared" in refusal('name + "a"')
    assert "can only be compared" in refusal('"a"')
    assert "column of strings" in refusal('met == "a"')
    assert "column of strings" in refusal('"a" == "a"')
    assert "not implemented for string types" in refusal("name + 1")
    assert "does not work on strings" in refusal("max(tags)")


def test_no_entries() -> None:
    none = {name: ak.Array(column)[:0] for name, column in COLUMNS.items()}
    for text in ("met + 1", "Jet_pt[:, 0]", "max(Jet_pt)", "Jet_pt[Jet_eta > 1]", "fixed * met", "1", "argmax(Jet_pt)"):
        assert len(parse(text).evaluate(none)) == 0
    assert evaluate_mask(parse("num(Jet_pt) > 1"), none).shape == (0,)


def test_expressions_travel_between_processes() -> None:
    expression = parse("firsts(Jet_pt[:, :2][Jet_eta[:, :2] < 2]) + `my-col`")
    copy = pickle.loads(pickle.dumps(expression))
    assert copy == expression
    assert hash(copy) == hash(expression)
    assert ak.array_equal(copy.evaluate(COLUMNS), expression.evaluate(COLUMNS), equal_nan=True)
    assert "Chain" not in repr(expression)


def test_nothing_warns() -> None:
    """Warnings are errors in these tests."""
    assert not np.isfinite(ak.to_numpy(value("met / 0 + log(x) + sqrt(x) + n // 0 + exp(met * 1000)"))).any()
    assert value("log(0)").to_list() == [-np.inf] * 3


TOKENS = [*COLUMNS, *FUNCTIONS, *"+-*/%&|^~<>()[],:.=!`'\"# \\@{};", "**", "==", "[:, 0]", "(", ")", "0", "1", "2.5"]
TOKENS += ["and", "not", "if", "else", "for", "in", "is", "lambda", "None", "True", "1e999", "f'", "9" * 30, "pi", "_"]


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(TOKENS), max_size=12).map("".join)))
@example("met" + "+met" * 2000)
def test_any_text_works_or_is_refused(text: str) -> None:
    try:
        expression = parse(text)
        assert set(expression.names) <= set(COLUMNS)
        assert len(expression.evaluate(COLUMNS)) == 3
    except SpecError as error:
        assert str(error).startswith("expression ")  # noqa: PT017


Sample = tuple[str, Any]
RANDOM = np.random.default_rng(1)
FLAT = {"a": RANDOM.normal(size=7), "b": RANDOM.normal(size=7).astype(np.float32), "c": RANDOM.integers(-3, 4, 7)}
ARITHMETIC = {
    "+": lambda p, q: p + q,
    "-": lambda p, q: p - q,
    "*": lambda p, q: p * q,
    "/": lambda p, q: p / q,
    "//": lambda p, q: p // q,
    "%": lambda p, q: p % q,
}


def bigger(smaller: st.SearchStrategy[Sample]) -> st.SearchStrategy[Sample]:
    constants = st.one_of(st.integers(-5, 5), st.floats(-9, 9, width=32)).map(lambda c: (f"({c!r})", c))
    names = st.sampled_from(sorted(ARITHMETIC))
    pairs = st.one_of(st.tuples(smaller, smaller), st.tuples(smaller, constants), st.tuples(constants, smaller))
    return st.one_of(
        st.builds(lambda o, p: (f"({p[0][0]} {o} {p[1][0]})", ARITHMETIC[o](p[0][1], p[1][1])), names, pairs),
        st.builds(lambda p: (f"maximum({p[0][0]}, {p[1][0]})", np.maximum(p[0][1], p[1][1])), pairs),
        smaller.map(lambda p: (f"-{p[0]}", -p[1])),
        smaller.map(lambda p: (f"where({p[0]} > 0, {p[0]}, -{p[0]})", np.where(p[1] > 0, p[1], -p[1]))),
    )


SAMPLES: st.SearchStrategy[Sample] = st.recursive(
    st.sampled_from(sorted(FLAT)).map(lambda name: (name, FLAT[name])), bigger, max_leaves=8
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_arithmetic_agrees_with_numpy(data: st.DataObject) -> None:
    with np.errstate(all="ignore"):
        text, expected = data.draw(SAMPLES)
    result = ak.to_numpy(parse_expression(text, FLAT).evaluate(FLAT))
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)
