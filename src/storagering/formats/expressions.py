"""The language of selections and definitions: ``num(Jet_pt) > 2``, ``any((Jet_pt > 30) & (abs(Jet_eta) < 2.4))``.

It reads as awkward/NumPy code does, but is never run as Python: the text is split into known tokens,
parsed to Python's syntax tree, and only whitelisted nodes of that are translated to the small tree
that ``Expression.evaluate`` walks.
"""

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from storagering.errors import SpecError, nearest_names
from storagering.formats import functions as fn
from storagering.formats.syntax import parse_python

MAX_TEXT = 100_000
MAX_NESTING = 100
_BOUNDS = {"Pow": (-64, 64, "exponent"), "LShift": (0, 63, "shift"), "RShift": (0, 63, "shift")}
_PARENTHESES = "put each comparison in parentheses, as in (a > 1) & (b < 2), because & | ^ ~ bind tighter"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its text and the columns that it needs, in order of first use."""

    text: str
    names: tuple[str, ...]
    tree: Any = field(repr=False, compare=False)

    def evaluate(self, columns: Mapping[str, Any]) -> ak.Array:
        """The value for each entry; a constant is repeated, and missing floating-point numbers are NaN.

        Args:
            columns: an awkward or NumPy array for each of ``names`` (for a constant: for any column).

        Raises:
            SpecError: it cannot be computed from these columns, or an integer or truth value is missing.
        """
        return _guarded(self, columns, fn.without_missing)


def evaluate_mask(expression: Expression, columns: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The entries that a selection keeps; an entry for which it is missing is not kept.

    Raises:
        SpecError: it cannot be computed from these columns, or is not one truth value per entry.
    """
    return _guarded(expression, columns, fn.entry_mask)


def _guarded(expression: Expression, columns: Mapping[str, Any], finish: Callable[[ak.Array], T]) -> T:
    prefix = f"expression {_short(expression.text)!r}"
    try:
        with np.errstate(all="ignore"):
            arrays, entries = _load(expression.names, columns)
            value = fn.evaluate(expression.tree, arrays)
            if not isinstance(value, ak.Array):
                value = ak.Array(np.full(entries, value))
            if len(value) != entries:
                raise SpecError(f"the result has {len(value)} items for {entries} entries")
            return finish(value)
    except MemoryError:
        raise
    except SpecError as error:
        raise SpecError(f"{prefix}: {error}") from error
    except Exception as error:
        raise SpecError(f"{prefix} cannot be computed: {_reason(error)}") from error


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _reason(error: Exception) -> str:
    """The first line of an exception: awkward's go on with where in its own code it happened."""
    lines = str(error).strip().splitlines()
    return _short(lines[0], 200) if lines else type(error).__name__


def _load(names: tuple[str, ...], columns: Mapping[str, Any]) -> tuple[dict[str, ak.Array], int]:
    for name in names:
        if name not in columns:
            raise SpecError(f"column {name!r} was not read{nearest_names(name, columns)}")
    if not columns:
        raise SpecError("a constant needs some column to tell the number of entries")
    arrays = {name: ak.Array(columns[name]) for name in names}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"the columns have different numbers of entries: {lengths}")
    return arrays, next(iter(lengths.values()), len(next(iter(columns.values()))))


def parse_expression(text: str, known: Collection[str]) -> Expression:
    """Parse an expression over the columns ``known``; a name that is no identifier goes in backquotes.

    Raises:
        SpecError: the text is not in the language, names something unknown, or is beyond a limit.
    """
    if not isinstance(text, str):
        raise SpecError(f"an expression is text, not {type(text).__name__}")
    try:
        if len(text) > MAX_TEXT:
            raise SpecError(f"its {len(text)} characters are more than {MAX_TEXT}; split it into several definitions")
        parser = _Parser(text, known)
        tree = parser.parse()
        return Expression(text, tuple(parser.names), tree)
    except SpecError as error:
        raise SpecError(f"expression {_short(text)!r}: {error}") from error


# Each token is complete in itself, so that what ast.parse is given holds no prefixes of strings, escapes,
# comments or numbers run together with words, some of which it would only warn about.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | `(?P<quoted>[^`\r\n]+)`
    | (?P<name>[^\W\d]\w*)
    | (?P<number>(?>0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
        |(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9_]+)?)(?!\w))
    | (?P<string>(?<!\w)(?:'[^'\\\r\n]*'|"[^"\\\r\n]*"))
    | (?P<foreign>&&|\|\||!(?!=))
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<operator>[-+*/%&|^~<>=!,:.])""",
    re.VERBOSE,
)

_LOGIC = f"and, or, not, is and in do not work on columns: use & | ~ with parentheses; {_PARENTHESES}"
_REFUSED: dict[type[ast.AST], str] = {
    ast.BoolOp: _LOGIC,
    ast.IfExp: "write where(condition, a, b) for a if condition else b",
    ast.NamedExpr: "nothing can be assigned in an expression; compare with ==",
    ast.Tuple: "there can be only one expression",
}
_INSIDE = "index inside entries, with [:, 0] for the first item of each: an index of entries changes what an entry is"


class _Parser:
    """One parse: from text to tokens, Python's syntax tree and ours."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text = text
        self.known = dict.fromkeys(known)
        self.names: dict[str, None] = {}
        self.depth = 0
        self.quoted: dict[str, str] = {}
        # As the text does not contain it, nothing that the user wrote can pass for a placeholder.
        self.prefix = "_q"
        while self.prefix in text:
            self.prefix += "_"

    def parse(self) -> Any:
        source = self._rewrite()
        if not source:
            raise SpecError("it is empty")
        try:
            tree = parse_python(source)
        except (SyntaxError, ValueError) as error:
            hint = "; compare with ==" if re.search(r"[^=!<>]=[^=]", source) else ""
            raise SpecError(f"it cannot be read: {getattr(error, 'msg', 'it is not proper text')}{hint}") from error
        except (RecursionError, MemoryError) as error:
            raise SpecError("it is nested too deeply or has too many terms; split it into several") from error
        return self.operand(tree)

    def _rewrite(self) -> str:
        """The text for Python's parser: one line, with placeholders for names that are not plain identifiers."""
        pieces: list[str] = []
        position = nesting = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise SpecError(f"it cannot be read from character {position + 1} on: {self.text[position:][:20]!r}")
            if match.lastgroup == "foreign":
                raise SpecError(f"write & for &&, | for || and ~ for !; {_PARENTHESES}")
            nesting += {"open": 1, "close": -1}.get(match.lastgroup or "", 0)
            if nesting > MAX_NESTING:
                raise SpecError(f"its brackets are nested more than {MAX_NESTING} deep")
            pieces.append(self._piece(match))
            position = match.end()
        return "".join(pieces).strip()

    def _piece(self, match: re.Match[str]) -> str:
        kind, token = match.lastgroup, match[match.lastgroup or 0]
        if kind == "space":
            return " "
        if kind == "number" and len(token) > 100:
            raise SpecError("a number in it is too long")
        # Python would replace letters such as µ by others that it deems the same.
        if kind == "quoted" or (kind == "name" and not token.isascii()):
            placeholder = f"{self.prefix}{len(self.quoted)}_"
            self.quoted[placeholder] = token
            return f" {placeholder} "
        return token

    def operand(self, node: ast.AST) -> Any:
        """Translate a node that is used as a value: anything but a string."""
        result = self.translate(node)
        if isinstance(result, fn.Const) and isinstance(result.value, str):
            raise SpecError("a string can only be compared, with == or !=; columns with odd names go in backquotes")
        return result

    def translate(self, node: ast.AST) -> Any:
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise SpecError(_REFUSED.get(type(node), f"{type(node).__name__} is not part of the expression language"))
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise SpecError(f"it is nested more than {MAX_NESTING} deep")
        result = handler(self, node)
        self.depth -= 1
        return result

    def constant(self, node: ast.Constant) -> Any:
        return _checked(node.value)

    def name(self, node: ast.Name) -> Any:
        if node.id in fn.CONSTANTS and node.id not in self.known:
            return fn.Const(fn.CONSTANTS[node.id])
        return self._resolve([self._written(node.id)])

    def _written(self, identifier: str) -> str:
        return self.quoted.get(identifier, identifier)

    def attribute(self, node: ast.expr) -> Any:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(self._written(node.attr))
            node = node.value
        if not isinstance(node, ast.Name):
            raise SpecError("a field can only be taken of a column, as in Jet.pt; mask it afterwards: Jet.pt[mask]")
        if any(part.startswith("_") for part in parts):
            raise SpecError(
                "a field cannot begin with an underscore; a column whose name has a dot and one is put in backquotes"
            )
        return self._resolve([self._written(node.id), *reversed(parts)])

    def _resolve(self, parts: list[str]) -> Any:
        """The column that the longest beginning of a dotted name stands for, and the fields that remain."""
        whole = ".".join(parts)
        for end in range(len(parts), 0, -1):
            column = ".".join(parts[:end])
            if column in self.known:
                self.names[column] = None
                return fn.Column(column, tuple(parts[end:]))
        if whole in fn.FUNCTIONS:
            raise SpecError(f"{whole} is a function: write {whole}(...)")
        raise SpecError(f"there is no column {_short(whole)!r}{nearest_names(whole[:200], self.known)}")

    def unary(self, node: ast.UnaryOp) -> Any:
        name = type(node.op).__name__
        if name not in fn.UNARY:
            raise SpecError(_LOGIC)
        operand = self.operand(node.operand)
        if not isinstance(operand, fn.Const):
            return fn.Unary(name, operand)
        return _folded(fn.UNARY[name], operand.value)

    def binary(self, node: ast.expr) -> Any:
        operators: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):
            operators.append(node)
            node = node.left
        result = self.operand(node)
        for operation in reversed(operators):
            name = type(operation.op).__name__
            if name not in fn.BINARY:
                raise SpecError(f"{name} is not part of the expression language")
            right = self.operand(operation.right)
            _check_right(name, right)
            result = _chained(result, name, right)
        return result

    def compare(self, node: ast.Compare) -> Any:
        name = type(node.ops[0]).__name__
        if len(node.ops) > 1:
            raise SpecError(f"write (a < b) & (b < c) for a < b < c; if none was meant, {_PARENTHESES}")
        if name not in fn.COMPARISONS:
            raise SpecError(_LOGIC)
        self._check_parentheses(node)
        translate = self.translate if name in ("Eq", "NotEq") else self.operand
        left, right = translate(node.left), translate(node.comparators[0])
        return _chained(left, name, right)

    def _check_parentheses(self, node: ast.Compare) -> None:
        """Refuse ``a & b > 1``, which means ``(a & b) > 1``, unless it is written so."""
        left, right = node.left, node.comparators[0]
        bare = [left] if left.col_offset == node.col_offset else []
        bare += [right] if right.end_col_offset == node.end_col_offset else []
        for side in bare:
            logical = isinstance(side, ast.BinOp) and isinstance(side.op, ast.BitAnd | ast.BitOr | ast.BitXor)
            if logical or (isinstance(side, ast.UnaryOp) and isinstance(side.op, ast.Invert)):
                raise SpecError(f"a comparison next to & | ^ ~ is ambiguous: {_PARENTHESES}")

    def call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name):
            raise SpecError("functions are called by their plain names, as in sqrt(x), without np. or ak.")
        name = self._written(node.func.id)
        function = fn.FUNCTIONS.get(name)
        if function is None:
            raise SpecError(f"there is no function {_short(name)!r}{nearest_names(name[:200], fn.FUNCTIONS)}")
        if len(node.args) < function.arity or (len(node.args) > function.arity and not function.more):
            hint = f"; for the {name} of two columns use {name}imum(a, b)" if name in ("min", "max") else ""
            raise SpecError(f"{name}() takes {function.arity} argument(s), not {len(node.args)}{hint}")
        options = tuple(_option(name, function, keyword) for keyword in node.keywords)
        args = tuple(self.operand(arg) for arg in node.args)
        if all(isinstance(arg, fn.Const) for arg in args):
            return _folded(lambda *values: fn.apply_function(name, values, dict(options)), *(a.value for a in args))
        return fn.Call(name, args, options)

    def subscript(self, node: ast.Subscript) -> Any:
        base = self.operand(node.value)
        if isinstance(base, fn.Const):
            raise SpecError("a constant cannot be indexed")
        index = node.slice
        if isinstance(index, ast.Tuple | ast.Slice):
            parts = [self._part(part) for part in (index.elts if isinstance(index, ast.Tuple) else [index])]
            if not parts or parts[0] != slice(None):
                raise SpecError(_INSIDE)
            return fn.Take(base, tuple(parts))
        mask = self.translate(index)
        if isinstance(mask, fn.Const):
            raise SpecError("write Jet.pt for the field pt of Jet" if isinstance(mask.value, str) else _INSIDE)
        return fn.Select(base, mask)

    def _part(self, node: ast.expr) -> int | slice:
        if not isinstance(node, ast.Slice):
            return self._integer(node)
        bounds = [None if bound is None else self._integer(bound) for bound in (node.lower, node.upper, node.step)]
        if bounds[2] == 0:
            raise SpecError("the step of a slice cannot be 0")
        return slice(*bounds)

    def _integer(self, node: ast.expr) -> int:
        value = self.translate(node) if type(node) in _HANDLERS else None
        if not isinstance(value, fn.Const) or type(value.value) is not int or not -(2**63) <= value.value < 2**63:
            raise SpecError("[:, ...] takes integers and slices of them; a mask stands alone: Jet_pt[Jet_eta < 2.4]")
        return value.value


_HANDLERS: dict[type[ast.AST], Callable[[_Parser, Any], Any]] = {
    ast.Constant: _Parser.constant,
    ast.Name: _Parser.name,
    ast.Attribute: _Parser.attribute,
    ast.UnaryOp: _Parser.unary,
    ast.BinOp: _Parser.binary,
    ast.Compare: _Parser.compare,
    ast.Call: _Parser.call,
    ast.Subscript: _Parser.subscript,
}


def _checked(value: Any) -> fn.Const:
    if not isinstance(value, bool | int | float | str):
        raise SpecError(f"{_short(repr(value))} is not a real number, and so not part of the expression language")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise SpecError("an integer in it does not fit in 64 bits")
    return fn.Const(value)


def _folded(function: Callable[..., Any], *values: Any) -> fn.Const:
    """Compute a constant now, so that only columns are left for later."""
    try:
        with np.errstate(all="ignore"):
            value = function(*values)
    except SpecError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        raise SpecError(f"a constant in it cannot be computed: {_reason(error)}") from error
    return _checked(value.item() if isinstance(value, np.generic | np.ndarray) else value)


def _check_right(name: str, right: Any) -> None:
    low, high, what = _BOUNDS.get(name, (0, 0, ""))
    if what and isinstance(right, fn.Const) and not low <= right.value <= high:
        raise SpecError(f"a constant {what} must be between {low} and {high}")


def _chained(left: Any, name: str, right: Any) -> Any:
    if isinstance(left, fn.Const) and isinstance(right, fn.Const):
        return _folded(lambda: fn.apply_operator(name, left.value, right.value))
    if isinstance(left, fn.Chain):
        return fn.Chain(left.first, (*left.rest, (name, right)))
    return fn.Chain(left, ((name, right),))


def _option(name: str, function: fn.Function, keyword: ast.keyword) -> tuple[str, bool]:
    if keyword.arg not in function.keywords:
        takes = f"takes the keyword {function.keywords[0]} only" if function.keywords else "takes no keywords"
        raise SpecError(f"{name}() {takes}")
    if not isinstance(keyword.value, ast.Constant) or not isinstance(keyword.value.value, bool):
        raise SpecError(f"{keyword.arg}= must be True or False")
    return keyword.arg, keyword.value.value
