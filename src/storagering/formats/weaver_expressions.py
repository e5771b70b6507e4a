"""Expressions of weaver-core's data configurations in our own language.

Weaver evaluates them as Python over ``np``, ``ak``, ``math`` and helpers of its own. Here the syntax tree
of one is rewritten, node by node, into text of our expression language: what has no counterpart there is
refused, and nothing is ever run.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence

from storagering.errors import SpecError
from storagering.formats.syntax import parse_python

_MODULES = {"np", "numpy", "ak", "awkward", "math"}
_CONSTANTS = {"pi": math.pi, "e": math.e, "nan": math.nan}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_SAME = """sqrt cbrt exp exp2 log log2 log10 log1p expm1 sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh
    arctanh floor ceil trunc sign isnan isinf isfinite ones_like zeros_like nan_to_num abs round arctan2 hypot minimum
    maximum clip"""
_ELEMENTWISE = {name: name for name in _SAME.split()} | {
    "absolute": "abs",
    "fabs": "abs",
    "_clip": "clip",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "fill_none": "fill",
    "float32": "float32",
    "float64": "float64",
    "int32": "int32",
    "int64": "int64",
}
_BINARY = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "true_divide": "/",
    "power": "**",
    "pow": "**",
    "mod": "%",
    "remainder": "%",
    "floor_divide": "//",
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_xor": "^"}
#: Reductions inside an entry, with the axis that they take if none is given (None: all at once).
_REDUCTIONS = {
    **dict.fromkeys(
        ("any", "all", "sum", "prod", "min", "max", "mean", "std", "count_nonzero", "argmin", "argmax", "count")
    ),
    "num": "1",
    "firsts": "1",
    "sort": "-1",
}
_TRUTHS = {"isnan", "isinf", "isfinite", "any", "all", "logical_not", *_LOGICAL}
_UNWRAPPED = {"to_numpy", "asarray", "array", "Array", "to_packed"}
_CASTS = {"values_astype", "asarray", "array"}
#: What Awkward Array makes NaN for an empty list, where our own functions have no value.
_NAN_IF_EMPTY = {"mean", "std"}


def translate(what: str, text: str) -> str:
    """An expression of weaver's in our language.

    Values are the same; a constant, though, takes the type of what it meets, where Awkward Array makes
    ``np.where(n, pt, -1)`` and ``ak.fill_none(pt, 0)`` of a float32 ``pt`` float64. ``axis=1`` is taken for the
    last axis, as it is for flat and jagged columns.

    Args:
        what: what the expression is for; errors begin with it.

    Raises:
        SpecError: it has no counterpart, naming the part and what there is.
    """
    return _Translator(what, text).value


def translate_selection(what: str, text: str) -> str:
    """As `translate`; the result is true or false."""
    return _Translator(what, text).truth


def names_in(text: str) -> tuple[str, ...]:
    """The variables of an expression of weaver's, in order of appearance."""
    try:
        tree = parse_python(" ".join(text.split()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called and n.id not in _MODULES]
    names.sort(key=lambda node: node.col_offset)
    return tuple(dict.fromkeys(node.id for node in names))


class _Translator:
    """One expression."""

    def __init__(self, what: str, text: str) -> None:
        self._what, self._text = what, " ".join(text.split())
        try:
            tree = parse_python(self._text)
            self.value = self._visit(tree)
            self.truth = self._condition(tree)
        except SpecError:  # a ValueError, too
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SpecError(f"{what}: {text[:200]!r} is not an expression ({getattr(error, 'msg', error)})") from error

    def _refuse(self, node: ast.AST, why: str) -> SpecError:
        part = ast.unparse(node)
        of = "" if part == self._text else f" of {self._text[:200]!r}"
        return SpecError(f"{self._what}: {part[:120]!r}{of} {why}")

    def _visit(self, node: ast.expr) -> str:
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise self._refuse(node, "has no counterpart: np.where for if, & | ~ for and, or, not")
        return handler(self, node)

    def _condition(self, node: ast.expr) -> str:
        """A value that is surely true or false, as NumPy takes any number for one."""
        return self._visit(node) if self._is_truth(node) else f"({self._visit(node)} != 0)"

    def _is_truth(self, node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.BitXor):
            return self._is_truth(node.left) and self._is_truth(node.right)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, ast.Invert) and self._is_truth(node.operand)
        called = isinstance(node, ast.Call) and _function_name(node.func) in _TRUTHS
        constant = isinstance(node, ast.Constant) and isinstance(node.value, bool)
        return called or constant or isinstance(node, ast.Compare)

    def _name(self, node: ast.Name) -> str:
        return f"`{node.id}`" if not node.id.isascii() or node.id in ("pi", "nan") else node.id

    def _constant(self, node: ast.Constant) -> str:
        if not isinstance(node.value, bool | int | float | str) or (isinstance(node.value, str) and "'" in node.value):
            raise self._refuse(node, "is no constant of the expression language")
        return repr(node.value)

    def _attribute(self, node: ast.Attribute) -> str:
        if isinstance(node.value, ast.Name) and node.value.id in _MODULES:
            if node.attr in _CONSTANTS:
                return repr(_CONSTANTS[node.attr])
            raise self._refuse(node, f"has no counterpart; constants are {', '.join(_CONSTANTS)}")
        return f"{self._visit(node.value)}.{node.attr}"

    def _unary(self, node: ast.UnaryOp) -> str:
        sign = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~"}.get(type(node.op))
        if sign is None:
            raise self._refuse(node, "works on no array: write ~ for not")
        return f"({sign}{self._visit(node.operand)})"

    def _binary(self, node: ast.BinOp) -> str:
        if type(node.op) not in _OPERATORS:
            raise self._refuse(node, "has no counterpart")
        return f"({self._visit(node.left)} {_OPERATORS[type(node.op)]} {self._visit(node.right)})"

    def _compare(self, node: ast.Compare) -> str:
        if len(node.ops) > 1 or type(node.ops[0]) not in _COMPARISONS:
            raise self._refuse(node, "works on no array: write (a < b) & (b < c)")
        return f"({self._visit(node.left)} {_COMPARISONS[type(node.ops[0])]} {self._visit(node.comparators[0])})"

    def _subscript(self, node: ast.Subscript) -> str:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if isinstance(parts[0], ast.Slice):
            return f"{self._visit(node.value)}[{', '.join(ast.unparse(part) for part in parts)}]"
        if isinstance(node.slice, ast.Tuple | ast.Constant | ast.UnaryOp) and not self._is_truth(node.slice):
            raise self._refuse(node, "has no counterpart: index inside entries, with [:, 0] or a mask")
        return f"{self._visit(node.value)}[{self._visit(node.slice)}]"

    def _call(self, node: ast.Call) -> str:
        name = _function_name(node.func)
        args = node.args
        if name in _REDUCTIONS:
            return self._reduction(node, name)
        if name in _UNWRAPPED and len(args) == 1 and not node.keywords:
            return self._visit(args[0])
        kinds = [*args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "dtype")]
        if name in _CASTS and len(kinds) == 1 and len(args) + len(node.keywords) == 2:
            kind = ast.unparse(kinds[0]).strip("'").rpartition(".")[2]
            kind = {"float": "float64", "int": "int64"}.get(kind, kind)
            if kind in ("float32", "float64", "int32", "int64"):
                return f"{kind}({self._visit(args[0])})"
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in args):
            raise self._refuse(node, "takes no keywords here")
        if name == "where" and len(args) == 3:
            return f"where({self._condition(args[0])}, {self._visit(args[1])}, {self._visit(args[2])})"
        if name in _LOGICAL and len(args) == 2:
            return f"({self._condition(args[0])} {_LOGICAL[name]} {self._condition(args[1])})"
        if name == "logical_not" and len(args) == 1:
            return f"(~{self._condition(args[0])})"
        if name == "square" and len(args) == 1:
            return f"({self._visit(args[0])} ** 2)"
        if name in _BINARY and len(args) == 2:
            return f"({self._visit(args[0])} {_BINARY[name]} {self._visit(args[1])})"
        if name in _ELEMENTWISE:
            return f"{_ELEMENTWISE[name]}({', '.join(map(self._visit, args))})"
        known = sorted({*_ELEMENTWISE, *_BINARY, *_LOGICAL, *_REDUCTIONS, "where", "square", "values_astype"})
        raise self._refuse(node, f"has no counterpart; there are {', '.join(known)}")

    def _reduction(self, node: ast.Call, name: str) -> str:
        axis = _REDUCTIONS[name]
        rest: Sequence[ast.expr] = node.args[1:]
        for keyword in node.keywords:
            if keyword.arg == "axis":
                rest = [keyword.value]
            elif not (name == "sort" and keyword.arg == "ascending"):
                raise self._refuse(node, f"takes no {keyword.arg}= here")
        if rest:
            axis = ast.unparse(rest[0])
        if not node.args or len(node.args) > 2 or axis not in ("1", "-1"):
            raise self._refuse(node, "combines entries: only axis=1, inside each entry, can be had")
        options = "".join(f", ascending={ast.unparse(k.value)}" for k in node.keywords if k.arg == "ascending")
        value = f"{'num' if name == 'count' else name}({self._visit(node.args[0])}{options})"
        return f"fill({value}, nan)" if name in _NAN_IF_EMPTY else value


def _function_name(node: ast.expr) -> str:
    """``sqrt`` of ``np.sqrt``, ``ones_like`` of ``awkward.JaggedArray.ones_like``, '' for a method of a value."""
    if isinstance(node, ast.Name):
        return node.id
    if not isinstance(node, ast.Attribute):
        return ""
    base = node.value
    while isinstance(base, ast.Attribute):
        base = base.value
    return node.attr if isinstance(base, ast.Name) and base.id in _MODULES else ""


_HANDLERS: dict[type[ast.expr], Callable[..., str]] = {
    ast.Name: _Translator._name,
    ast.Constant: _Translator._constant,
    ast.Attribute: _Translator._attribute,
    ast.UnaryOp: _Translator._unary,
    ast.BinOp: _Translator._binary,
    ast.Compare: _Translator._compare,
    ast.Subscript: _Translator._subscript,
    ast.Call: _Translator._call,
}
