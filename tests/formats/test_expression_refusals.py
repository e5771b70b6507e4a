"""What the expression language refuses, and the advice it gives; which masks select."""

import time

import numpy as np
import pytest
from tests.formats.expression_columns import COLUMNS, MET, N, by_advice, parse, refusal, value

from storagering.errors import SpecError
from storagering.formats.expressions import evaluate_mask, parse_expression

PARENTHESES = "(a > 1) & (b < 2)"


UNREADABLE = ["import os", "{1: 2}", 'f"{met}"', "b'a' == name", "'a\\x00' == name", "1j", "1or 2", "1.or 2", "0777"]
UNREADABLE += ["met @ n", "met # n", "met; n", "`met", "``", "met n", "`my-col``n`"]
REFUSED = {
    "use & | ~ with parentheses": ["met > 1 and n < 2", "met or n", "not flag", "met is n", "met in n"],
    "write & for &&, | for || and ~ for !": ["met && n", "met || n", "!flag"],
    "write (a < b) & (b < c)": ["1 < met < 2", "met == n == 2"],
    PARENTHESES: ["met > 1 & n < 2", "met == 1 | n == 2", "met < 2 && n > 1"],
    f"ambiguous: put each comparison in parentheses, as in {PARENTHESES}": [
        *("flag & met > 1", "met > 1 & flag", "(flag) | n == 2", "n & 1 == 0", "~n > 1")
    ],
    "write where(condition, a, b)": ["met if flag else n"],
    "compare with ==": ["met = 3", "(a := 3)"],
    "only one expression": ["met, n"],
    "without np. or ak.": ["np.sqrt(met)", "met.sqrt()", "FUNCTIONS['sqrt'](met)", "__import__('os').system('true')"],
    "use minimum(a, b)": ["min(met, n)"],
    "takes 2 argument(s), not 1": ["hypot(met)"],
    "the keyword ascending only": ["sort(Jet_pt, reverse=True)", "sort(Jet_pt, **n)"],
    "must be True or False": ["sort(Jet_pt, ascending=1)"],
    "takes no keywords": ["sum(Jet_pt, axis=0)"],
    "a field can only be taken of a column": ["Jet_pt[Jet_eta > 1].pt", "(1).real", "(met + n).real"],
    "underscore": ["met.__class__", "Jet._layout", "Jet.pt.__class__", "Jet.`__class__`"],
    "there is no column": ["__import__", "`nope`", "y.x"],
    "there is no function": ["eval('1')", "met(1)"],
    "part of the expression language": [
        "lambda: 3",
        "[x for x in n]",
        "(x for x in n)",
        "[1]",
        "sqrt(*met)",
        "None",
    ],
    "cannot be read": UNREADABLE,
    "never closed": ["(met", "Jet_pt[:"],
    "it is empty": ["", " \n "],
}


@pytest.mark.scenario(50)
@pytest.mark.parametrize(("text", "advice"), by_advice(REFUSED))
def test_refusals_teach(text: str, advice: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert advice in str(caught.value)


HOSTILE = [
    *("a" * 1_000_000, "z" * 9_999, "9" * 200, "9" * 9_999, "0x" + "f" * 9_000, "met" + ".a" * 4_900),
    *("(" * 1000 + "met" + ")" * 1000, "(" * 101 + "met" + ")" * 101, "sqrt(" * 1000 + "met" + ")" * 1000),
    *("-" * 101 + "met", "~" * 9_000 + "flag", "n**" * 3_000 + "n", "n**" * 120 + "n", "n<" * 4_999 + "n"),
    *("z|" * 4_999 + "n", "Jet_pt" + "[:,:]" * 1_900, "where(flag,1," * 101 + "1" + ")" * 101),
    *("9**9**9", "(9**64)**64", "n ** 65", "n ** -65.0", "n ** (60 + 5)", "n ** (1e999 - 1e999)", "2.0 ** 64 ** 64"),
    *("1 << 64", "n << 64", "n >> -1", "18446744073709551616", "-9223372036854775809", "2**63 + 2**63"),
    *("1 / 0", "1 % 0", "1e300 ** 64", "(-8) ** 0.5", "~1.5", "1.5 << 1", "met\0", "\0", "met\ud800", "`\ud800`"),
    *("'\ud800' == name", "\N{ARABIC-INDIC DIGIT ONE}", "\N{SUPERSCRIPT TWO}"),
]


@pytest.mark.scenario(50)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert time.perf_counter() - start < 1
    assert len(str(caught.value)) < 600


def test_limits_leave_room() -> None:
    assert value("|".join(["n"] * 500)).to_list() == [1, 2, 3]
    assert value("(" * 100 + "n" + ")" * 100).to_list() == [1, 2, 3]
    assert value("abs(" * 98 + "n" + ")" * 98).to_list() == [1, 2, 3]
    assert value("n + 2**63 - 2**63 * 1.0").to_list() == [0, 0, 0]
    with pytest.raises(SpecError, match="text, not NoneType"):
        parse_expression(None, [])  # type: ignore[arg-type]


def test_evaluation_errors_name_the_expression() -> None:
    for text in ("Jet_pt * Muon_pt", "Jet_pt * fixed", "~met", "-flag", "mixed + 1", "mixed", "sum(Jet)", "n ** -n"):
        message = refusal(text)
        assert message.startswith(f"expression {text!r}")
        assert "\n" not in message
        assert len(message) < 400
    assert len(refusal("Jet_pt * Muon_pt + " + "met + " * 100 + "met")) < 400


def test_columns_are_checked() -> None:
    expression = parse("met + n")
    with pytest.raises(SpecError, match="column 'n' was not read; nearest names: 'nn'"):
        expression.evaluate({"met": MET, "nn": N})
    with pytest.raises(SpecError, match="different numbers of entries"):
        expression.evaluate({"met": MET, "n": N[:1]})
    with pytest.raises(SpecError, match="number of entries"):
        parse("1").evaluate({})
    with pytest.raises(SpecError, match="cannot be computed"):
        expression.evaluate({"met": MET, "n": np.array([1, "a", None], object)})


def test_masks() -> None:
    def mask(text: str) -> list[bool]:
        result = evaluate_mask(parse(text), COLUMNS)
        assert type(result) is np.ndarray
        assert result.dtype == np.bool_
        return list(result.tolist())

    assert mask("flag") == [True, False, True]
    assert mask("(num(Jet_pt) > 1) & (met < 2)") == [True, False, False]
    assert mask("any((Jet_pt > 15) & (abs(Jet_eta) < 2.4))") == [True, False, False]
    assert mask("False") == [False, False, False]
    for missing in ("max(Jet_pt) > 5", "~(max(Jet_pt) < 5)", "~(mean(Jet_pt) < 5)", "firsts(Jet_pt) > 5"):
        assert mask(missing) == [True, False, True]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Jet_pt > 3", r"any\(\.\.\.\) or all\(\.\.\.\)"),
        ("n", "!= 0"),
        ("1", "!= 0"),
        ("met", "!= 0"),
        ("name", "true or false"),
        ("mixed", "one truth value"),
        ("Jet_pt[:, 0] > 3", "firsts"),
    ],
)
def test_masks_refused(text: str, advice: str) -> None:
    with pytest.raises(SpecError, match=advice):
        evaluate_mask(parse(text), COLUMNS)
