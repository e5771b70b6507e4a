"""What expressions compute: the nodes of their trees, the operators, the functions and the ways to index.

An array holds one item per entry, and nothing here may change that: lists are reduced, indexed and
masked inside each entry only. Everything raises ``SpecError`` for what cannot be done; exceptions of
awkward and NumPy pass through, and ``expressions`` names the expression in them.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from storagering.errors import SpecError, nearest_names
from storagering.formats import arithmetic


class Const(NamedTuple):
    """A constant."""

    value: Any


class Column(NamedTuple):
    """A column, or a field of a field ... of one that holds records."""

    name: str
    fields: tuple[str, ...] = ()


class Unary(NamedTuple):
    """An operator with one operand."""

    operator: str
    operand: Any


class Chain(NamedTuple):
    """Operators applied from left to right, flat so that a sum of many terms is not a deep tree."""

    first: Any
    rest: tuple[tuple[str, Any], ...]


class Call(NamedTuple):
    """A function of the language, its arguments and its keywords."""

    name: str
    args: tuple[Any, ...]
    options: tuple[tuple[str, bool], ...]


class Take(NamedTuple):
    """Integers and slices inside each entry."""

    base: Any
    items: tuple[int | slice, ...]


class Select(NamedTuple):
    """A mask inside each entry."""

    base: Any
    mask: Any


class Function(NamedTuple):
    """A function of the language: what it calls, and with how many arguments and which keywords."""

    call: Callable[..., Any]
    arity: int = 1
    more: bool = False
    kind: Literal["elementwise", "list", "where", "fill"] = "elementwise"
    keywords: tuple[str, ...] = ()


def depth(array: ak.Array) -> int:
    """How many levels of lists an array has, the entries included (below 1: a mixture)."""
    return int(array.layout.purelist_depth)


def _is_text(layout: Any) -> bool:
    return layout.parameter("__array__") in ("string", "bytestring")


def _layers(array: ak.Array) -> list[Any]:
    """The nested layouts of an array, from the entries in to what the innermost lists hold."""
    layers = [array.layout]
    while (layers[-1].is_list or layers[-1].is_option or layers[-1].is_indexed) and not _is_text(layers[-1]):
        layers.append(layers[-1].content)
    return layers


def _leaf(array: ak.Array) -> Any:
    return _layers(array)[-1]


def leaf_dtype(array: ak.Array) -> np.dtype[Any] | None:
    """The NumPy type of the numbers in an array; None if it holds something else."""
    leaf = _leaf(array)
    return leaf.dtype if leaf.is_numpy else None


def _scalar_for(value: Any, dtype: np.dtype[Any] | None) -> Any:
    """A constant in the type that keeps an array's own where the value fits, as NumPy's operators do."""
    if dtype is None:
        return value
    try:
        return np.result_type(dtype, value).type(value)
    except OverflowError:
        return np.promote_types(dtype, np.min_scalar_type(value)).type(value)


def _align(args: Sequence[Any]) -> list[Any]:
    """Give all arrays the levels of the deepest: a value of an entry goes with each item of its lists.

    Left to itself, awkward pairs a flat column with the *last* axis of a fixed-size one, and turns a
    missing value into a missing list. An axis of length one avoids both.
    """
    depths = [depth(a) for a in args if isinstance(a, ak.Array)]
    if depths and min(depths) < 1:
        raise SpecError("a column mixes items of different types")
    deepest = max(depths, default=0)

    def deepen(array: ak.Array) -> ak.Array:
        own = depth(array)
        return array if own == deepest else array[(slice(None),) * own + (np.newaxis,) * (deepest - own)]

    return [deepen(a) if isinstance(a, ak.Array) else a for a in args]


def apply_operator(name: str, left: Any, right: Any) -> Any:
    """Apply a binary operator to arrays or constants.

    Raises:
        SpecError: a string constant is compared with something that is not text.
    """
    if name in BINARY:
        return BINARY[name](*_align((left, right)))
    return COMPARISONS[name](*_align((_comparable(left, right), _comparable(right, left))))


def _comparable(value: Any, other: Any) -> Any:
    if isinstance(value, str) and not (isinstance(other, ak.Array) and _is_text(_leaf(other))):
        raise SpecError(f"the string {value!r} can be compared with a column of strings only")
    # NumPy compares a short integer with a constant beyond its range, but awkward refuses to.
    dtype = leaf_dtype(other) if type(value) is int and isinstance(other, ak.Array) else None
    return _scalar_for(value, dtype) if dtype is not None and dtype.kind in "iu" else value


def apply_function(name: str, args: Sequence[Any], options: dict[str, bool]) -> Any:
    """Call a function of the language; the caller has checked the name, the arity and the keywords.

    Raises:
        SpecError: the arguments are of the wrong kind, such as a flat column for a reduction.
    """
    function = FUNCTIONS[name]
    if function.kind == "list":
        return _over_lists(name, function, args[0], options)
    if function.kind == "fill":
        return _fill(*args)
    if function.kind == "where":
        return _where(*args)
    return function.call(*_align(args))


def _over_lists(name: str, function: Function, array: Any, options: dict[str, bool]) -> ak.Array:
    if not isinstance(array, ak.Array) or depth(array) < 2:
        raise SpecError(
            f"{name}() works inside the list that each entry holds, and its argument has one value per entry; "
            f"nothing is ever combined over entries"
        )
    # Awkward would happily reduce the characters' codes.
    if name not in ("num", "firsts", "sort") and _is_text(_leaf(array)):
        raise SpecError(f"{name}() does not work on strings")
    return function.call(array, axis=depth(array) - 1, **options)


def _fill(array: Any, value: Any) -> ak.Array:
    if not isinstance(array, ak.Array) or isinstance(value, ak.Array):
        raise SpecError("fill(x, value) takes an expression with a column in it, and a constant")
    if not (_leaf(array).is_numpy or _leaf(array).is_unknown):
        raise SpecError("fill() works on numbers only")
    return ak.fill_none(array, _scalar_for(value, leaf_dtype(array)), axis=-1)


def _where(condition: Any, yes: Any, no: Any) -> ak.Array:
    if not isinstance(condition, ak.Array) or leaf_dtype(condition) != np.bool_:
        raise SpecError("the first argument of where() must be true or false for each item, as in where(x > 0, x, 0)")
    if not isinstance(yes, ak.Array) and isinstance(no, ak.Array):
        yes = _scalar_for(yes, leaf_dtype(no))
    elif not isinstance(no, ak.Array) and isinstance(yes, ak.Array):
        no = _scalar_for(no, leaf_dtype(yes))
    return ak.where(*_align((condition, yes, no)))


def _masked(reduce: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction that is missing for an empty list, as min and max are, rather than NaN."""

    def call(array: ak.Array, axis: int) -> Any:
        return reduce(array, axis=axis, mask_identity=True)

    return call


def _invert(x: Any) -> Any:
    return not x if isinstance(x, bool) else ~x


# By the names of the nodes of Python's syntax trees.
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
    "Pow": operator.pow,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "BitXor": operator.xor,
    "LShift": operator.lshift,
    "RShift": operator.rshift,
}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
}
UNARY: dict[str, Callable[[Any], Any]] = {"UAdd": operator.pos, "USub": operator.neg, "Invert": _invert}

#: Names of constants; a column of the same name hides one.
CONSTANTS = {"pi": math.pi, "nan": math.nan}
_ONE_ARGUMENT = """sqrt cbrt exp exp2 log log2 log10 log1p expm1 sin cos tan arcsin arccos arctan sinh cosh tanh
    arcsinh arccosh arctanh floor ceil trunc sign isnan isinf isfinite ones_like zeros_like nan_to_num"""
_REDUCTIONS = "num any all sum prod min max argmin argmax firsts count_nonzero"

FUNCTIONS: dict[str, Function] = {
    **{name: Function(getattr(np, name)) for name in _ONE_ARGUMENT.split()},
    **{name: Function(getattr(np, name), 2) for name in ("arctan2", "hypot", "minimum", "maximum")},
    "abs": Function(np.absolute),
    "round": Function(np.round),
    "deltaphi": Function(arithmetic.deltaphi, 2),
    "deltar": Function(arithmetic.deltar, 4),
    "where": Function(_where, 3, kind="where"),
    "fill": Function(_fill, 2, kind="fill"),
    "clip": Function(arithmetic.clip, 3),
    "class_of": Function(arithmetic.class_of, 2, more=True),
    "largest_of": Function(arithmetic.largest_of, 2, more=True),
    "bin_of": Function(arithmetic.bin_of, 3, more=True),
    "pick": Function(arithmetic.pick, 2, more=True),
    **{name: Function(arithmetic.cast(name)) for name in ("float32", "float64", "int32", "int64")},
    **{name: Function(getattr(ak, name), kind="list") for name in _REDUCTIONS.split()},
    "mean": Function(_masked(ak.mean), kind="list"),
    "std": Function(_masked(ak.std), kind="list"),
    "sort": Function(ak.sort, kind="list", keywords=("ascending",)),
}


def select(base: ak.Array, mask: Any) -> ak.Array:
    """The items of each entry's lists for which the mask is true; a missing value counts as false.

    Raises:
        SpecError: the mask is not true or false for each item, or does not have the lists of the base.
    """
    if not isinstance(mask, ak.Array) or leaf_dtype(mask) != np.bool_:
        raise SpecError("an index must be a mask, true or false for each item, as in Jet_pt[Jet_eta < 2.4]")
    levels = depth(mask)
    if levels < 2:
        raise SpecError("a mask with one value per entry would drop entries; select entries with the `where` selection")
    if levels > depth(base):
        raise SpecError("the mask has more levels of lists than what it selects from")
    # Awkward takes a fixed-size mask for NumPy's, which flattens, and does not compare the lengths.
    base, mask = (ak.from_regular(x, axis=None) for x in (base, ak.fill_none(mask, False, axis=-1)))
    try:
        mask, _ = ak.broadcast_arrays(mask, ak.local_index(base, axis=levels - 1))
    except ValueError as error:
        raise SpecError("the mask's lists do not have the lengths of the lists that it selects from") from error
    return base[mask]


def take(base: ak.Array, items: tuple[int | slice, ...], text: str) -> ak.Array:
    """Index the lists inside each entry, as in ``Jet_pt[:, 0]``; ``text`` is what an error message calls the base.

    Raises:
        SpecError: there are fewer levels of lists than items, or an entry has too few items.
    """
    levels = depth(base)
    if len(items) > levels:
        raise SpecError(f"{text} has {levels - 1} level(s) of lists in each entry, too few for this index")
    try:
        return base[items]
    except (IndexError, ValueError) as error:
        number = next((i for i in items if isinstance(i, int)), 0)
        enough = f"num({text}) > {number}" if number >= 0 else f"num({text}) >= {-number}"
        first = f"use firsts({text}), which may be missing, or " if number == 0 else ""
        raise SpecError(f"an entry has no item {number} in {text}: {first}select {enough} beforehand") from error


def without_missing(array: ak.Array) -> ak.Array:
    """An array to store: missing numbers are NaN, and a type that allows for missing ones is made plain.

    Raises:
        SpecError: something is missing that NaN cannot stand for.
    """
    if _leaf(array).is_union:
        raise SpecError("the result mixes items of different types")
    if not any(layer.is_option for layer in _layers(array)):
        return array
    missing = [bool(ak.any(ak.is_none(array, axis=axis), axis=None)) for axis in range(depth(array))]
    if any(missing[:-1]):
        raise SpecError("whole lists are missing in the result, and nothing can stand for them")
    dtype = leaf_dtype(array)
    if dtype is None or dtype.kind not in "fiub":
        if any(missing):
            raise SpecError("the result is missing for some entries or items, and nothing can stand for that")
        return array
    if any(missing) and dtype.kind != "f":
        what = "true or false" if dtype.kind == "b" else "integers"
        raise SpecError(
            f"the result is {what} and missing for some entries or items, such as those with empty lists; "
            f"say what to put there with fill(x, value)"
        )
    return ak.fill_none(array, dtype.type(np.nan if dtype.kind == "f" else 0), axis=-1)


def entry_mask(array: ak.Array) -> NDArray[np.bool_]:
    """An array as NumPy's truth value for each entry; what is missing is false.

    Raises:
        SpecError: it holds anything but one truth value per entry.
    """
    if depth(array) != 1:
        raise SpecError("a selection needs one truth value per entry and this has a list; use any(...) or all(...)")
    dtype = leaf_dtype(array)
    if dtype != np.bool_:
        advice = "; compare it, as in (...) != 0" if dtype is not None and dtype.kind in "iuf" else ""
        raise SpecError(f"a selection must be true or false, not {dtype or 'a record or string'}{advice}")
    return np.asarray(ak.to_numpy(ak.fill_none(array, False, axis=-1), allow_missing=False), dtype=np.bool_)


def evaluate(node: Any, arrays: Mapping[str, ak.Array]) -> Any:
    """The value of a node: an array with one item per entry, or a constant.

    Raises:
        SpecError: it cannot be computed; awkward's and NumPy's own exceptions pass through.
    """
    return _EVALUATORS[type(node)](node, arrays)


def _evaluate_const(node: Const, _: Mapping[str, ak.Array]) -> Any:
    # Awkward cannot pass on a Python integer beyond int64.
    return np.uint64(node.value) if type(node.value) is int and node.value >= 2**63 else node.value


def _evaluate_column(node: Column, arrays: Mapping[str, ak.Array]) -> Any:
    array = arrays[node.name]
    for name in node.fields:
        if name not in ak.fields(array):
            what = nearest_names(name, ak.fields(array)) or "; it is not a record"
            raise SpecError(f"there is no field {name!r} in {node.name}{what}")
        array = array[name]
    return array


def _evaluate_chain(node: Chain, arrays: Mapping[str, ak.Array]) -> Any:
    value = evaluate(node.first, arrays)
    for name, operand in node.rest:
        value = apply_operator(name, value, evaluate(operand, arrays))
    return value


def _evaluate_call(node: Call, arrays: Mapping[str, ak.Array]) -> Any:
    return apply_function(node.name, [evaluate(arg, arrays) for arg in node.args], dict(node.options))


def _evaluate_take(node: Take, arrays: Mapping[str, ak.Array]) -> Any:
    text = ".".join((node.base.name, *node.base.fields)) if isinstance(node.base, Column) else "..."
    return take(evaluate(node.base, arrays), node.items, text)


_EVALUATORS: dict[type, Callable[[Any, Mapping[str, ak.Array]], Any]] = {
    Const: _evaluate_const,
    Column: _evaluate_column,
    Unary: lambda node, arrays: UNARY[node.operator](evaluate(node.operand, arrays)),
    Chain: _evaluate_chain,
    Call: _evaluate_call,
    Take: _evaluate_take,
    Select: lambda node, arrays: select(evaluate(node.base, arrays), evaluate(node.mask, arrays)),
}
