"""Hypothesis strategies for tables of random schemas: every kind of column, any bits, nasty names.

Needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import awkward as ak
import numpy as np
from hypothesis import strategies as st

from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.types import Array, Batch

_REAL = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
_WORDS = ("", "a", "HLT_Mu24", "naïve", "粒子", "\U0001f9c0", "x" * 300, "Jet_pt[nJet]/F")
_NAMES = (
    *("Jet_pt", "Jet_eta", "Jet_tags", "nJet", "Muon_pt", "nMuon", "event", "x", "X", "_x", "a.b", "weird name", "é"),
    *(
        "../up",
        "/abs",
        "a/b",
        "nul\0inside",
        "new\nline",
        "x" * 300,
        ".",
        "..",
        "",
        " ",
        "zarr.json",
        "offsets",
        "values",
    ),
    *(
        "x.values",
        "x.offsets",
        "Jet_pt[3]",
        "a;1",
        "a:b",
        "col000001",
        "__array__",
        "c/0",
        "\u202egnp",
        "'",
        "\\",
        "-x",
    ),
)

_Make = Callable[[np.random.Generator, int], Any]


def random_numbers(rng: np.random.Generator, dtype: str, count: int) -> Array:
    """Numbers of any bits: NaN payloads, subnormal numbers and extremes among them."""
    if dtype == "bool":
        return rng.random(count) < 0.5
    return np.frombuffer(rng.bytes(count * np.dtype(dtype).itemsize), dtype)


@st.composite
def tables(draw: st.DrawFn, max_entries: int = 30) -> Batch:
    """A batch of 0 to ``max_entries`` entries in one to four columns; Hypothesis shrinks it by kinds and size."""
    entries = draw(st.integers(0, max_entries))
    name = st.sampled_from(_NAMES) | st.text(max_size=6)
    kinds = draw(st.dictionaries(name, st.sampled_from(sorted(_KINDS)), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrays = {name: ak.Array(_KINDS[kind](rng, entries)) for name, kind in kinds.items()}
    schema = assign_keys([describe_column(name, array) for name, array in arrays.items()])
    return to_batch(schema, arrays, entries)


def _real(rng: np.random.Generator, count: int) -> Array:
    return random_numbers(rng, str(rng.choice(_REAL)), count)


def _fixed(rng: np.random.Generator, count: int) -> Array:
    shape = (count, *rng.integers(1, 4, rng.integers(1, 3)).tolist())
    return _real(rng, int(np.prod(shape))).reshape(shape)


def _words(rng: np.random.Generator, count: int) -> Any:
    # One more than wanted: without any the type would not be known.
    return ak.to_packed(ak.Array(["", *rng.choice(_WORDS, count).tolist()])[1:])


def _lists_of(make: _Make) -> _Make:
    def lists(rng: np.random.Generator, count: int) -> Any:
        counts = rng.integers(0, 4, count)
        return ak.unflatten(ak.Array(make(rng, int(counts.sum()))), counts)

    return lists


def _maybe(make: _Make) -> _Make:
    def options(rng: np.random.Generator, count: int) -> Any:
        return ak.mask(ak.Array(make(rng, count)), rng.random(count) < 0.6)

    return options


def _records_of(*makes: _Make) -> _Make:
    def records(rng: np.random.Generator, count: int) -> Any:
        contents = [ak.to_layout(make(rng, count)) for make in makes]
        return ak.Array(ak.contents.RecordArray(contents, ["pt", "tag", "rest"][: len(makes)], length=count))

    return records


def _union(rng: np.random.Generator, count: int) -> Any:
    tags = rng.integers(0, 2, count).astype(np.int8)
    index = np.where(tags, np.cumsum(tags), np.cumsum(1 - tags)) - 1
    contents = [ak.to_layout(_real(rng, int((1 - tags).sum()))), ak.to_layout(_words(rng, int(tags.sum())))]
    return ak.Array(ak.contents.UnionArray(ak.index.Index8(tags), ak.index.Index64(index), contents))


_jagged = _lists_of(_real)
_KINDS: dict[str, _Make] = {
    "flat": _real,
    "counts": lambda rng, count: rng.integers(0, 4, count).astype(np.int32),
    "complex": lambda rng, count: random_numbers(rng, "f4", 2 * count).view("c8"),
    "fixed-shape": _fixed,
    "string": _words,
    "bytes": lambda rng, count: ak.enforce_type(ak.without_parameters(_words(rng, count)), "bytes"),
    "jagged": _jagged,
    "jagged, fixed-shape": _lists_of(_fixed),
    "jagged strings": _lists_of(_words),
    "doubly-jagged": _lists_of(_jagged),
    "three deep": _lists_of(_lists_of(_jagged)),
    "record": _records_of(_real, _words),
    "records": _lists_of(_records_of(_real, _jagged, _fixed)),
    "option": _maybe(_real),
    "optional list": _maybe(_jagged),
    "optional string": _maybe(_words),
    "optional record": _maybe(_records_of(_real, _words)),
    "options": _lists_of(_maybe(_real)),
    "union": _union,
    "fixed strings": lambda rng, count: ak.Array(
        ak.contents.RegularArray(ak.to_layout(_words(rng, 2 * count)), 2, zeros_length=count)
    ),
    "record of options": _records_of(_maybe(_real), _maybe(_jagged)),
}
