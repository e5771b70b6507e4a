"""TTrees, written by uproot: numbers, fixed shapes, strings and lists of numbers; one basket a batch and branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.formats.forms import empty_array, to_awkward, to_batch
from storagering.formats.writers.root_file import COMPRESSIONS, compression_of, tree_name
from storagering.formats.writers.writer import (
    CountsDifferError,
    WriteOptions,
    Writer,
    dtype_refusal,
    is_plain_name,
    output_errors,
)
from storagering.types import Array, Batch, Column, Schema


class TreeWriter(Writer):
    """A ROOT file with one TTree.

    Jagged columns of one collection (``Jet_pt``, ``Jet_eta``) share one counter branch (``nJet``); which
    they are is seen from the first batch. A column ``nJet`` of the dataset is that counter if it counts
    the same as int32, the only counter that uproot writes.
    """

    format = "root"
    compressions = COMPRESSIONS

    @classmethod
    def refusal(cls, column: Column) -> str:
        if not is_plain_name(column.name, "[]/:;"):
            return f"{column.name!r} cannot be the name of a branch (no '[', ']', '/', ':', ';' or control characters)"
        if column.kind == "string":
            form = ak.forms.from_json(column.form)
            return "TTrees have no bytes" if form.parameter("__array__") == "bytestring" else ""
        if column.kind not in ("flat", "fixed-shape", "jagged"):
            return f"uproot writes no {column.kind} columns into TTrees; write it --to rntuple"
        if column.kind == "jagged" and column.parts[1].shape:
            return "uproot spoils lists of fixed shapes in TTrees; write it --to rntuple"
        if why := dtype_refusal(column, "f2 c"):
            return why.replace("it has", "TTrees have")
        return ""

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        self._tree_name = tree_name(options.tree)
        self._file: Any = None
        self._tree: Any = None
        self._counters: _Counters | None = None

    def write(self, batch: Batch) -> None:
        if self._counters is None:
            self._counters = _Counters(batch, self.options.apart)
            self._open(self._counters)
        self._counters.check(batch)
        record = to_awkward(batch)
        data = {c.name: _for_uproot(c, record[c.name]) for c in self.schema.columns}
        with output_errors(self.path):
            self._tree.extend(data)

    def _open(self, counters: _Counters) -> None:
        types = {c.name: _type_of(c) for c in self.schema.columns}
        with output_errors(self.path):
            self._file = uproot.recreate(self.path, compression=compression_of(self.codec, self.level))
            self._tree = self._file.mktree(self._tree_name, types, counter_name=counters.counter_of)
            self._set_titles()

    def _set_titles(self) -> None:
        """Give the branches their titles where uproot keeps these; it has no public way to."""
        titles = {c.name: c.doc for c in self.schema.columns if c.doc}
        if not titles:
            return
        cascading = self._tree._cascading
        for branch in cascading._branch_data:
            branch["fTitle"] = titles.get(branch.get("fName", ""), branch.get("fTitle"))
        cascading._relocate(self._tree._file, self._tree._file.sink)

    def close(self) -> None:
        if self._counters is None:
            self._counters = _Counters(_empty_batch(self.schema), frozenset(self.schema.names))
            self._open(self._counters)
        with output_errors(self.path):
            self._file.close()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()


class _Counters:
    """Which jagged columns are counted together, and by which branch."""

    def __init__(self, batch: Batch, apart: frozenset[str]) -> None:
        self._names = set(batch.schema.names)
        self._arrays = batch.arrays
        self._apart = apart
        self._groups: dict[str, list[str]] = {}
        self._counter: dict[str, str] = {}
        collections: dict[str, list[str]] = {}
        for column in batch.schema.columns:
            if column.kind == "jagged":
                prefix, _, rest = column.name.partition("_")
                alone = not rest or not prefix or column.name in apart
                collections.setdefault(column.name if alone else prefix, []).append(column.name)
        for prefix, members in collections.items():
            first = batch.arrays[members[0]][0]
            together = [n for n in members if np.array_equal(batch.arrays[n][0], first)]
            self._add(prefix, together)
            for name in members:
                if name not in together:
                    self._add(name, [name])

    def _add(self, prefix: str, members: list[str]) -> None:
        own = f"n{prefix}"
        if len(members) == 1 and not self._counts(own, members[0]):
            own = f"n{members[0]}"
        counter = own if self._counts(own, members[0]) else self._free(own)
        self._groups[counter] = members
        self._counter |= dict.fromkeys(members, counter)

    def _counts(self, own: str, member: str) -> bool:
        """Whether the dataset's column of that name holds the counts, as int32."""
        if own in self._apart or own not in self._names or len(self._arrays[own]) != 1:
            return False
        numbers = self._arrays[own][0]
        return numbers.dtype == np.int32 and np.array_equal(numbers, np.diff(self._arrays[member][0]))

    def _free(self, name: str) -> str:
        while name in self._names or name in self._groups:
            name += "_"
        return name

    def counter_of(self, name: str) -> str:
        """Name of the branch that counts this column."""
        return self._counter[name]

    def check(self, batch: Batch) -> None:
        """See that this batch is counted as the first one was."""
        differing: set[str] = set()
        for counter, members in self._groups.items():
            first = batch.arrays[members[0]][0]
            differing |= {n for n in members[1:] if not np.array_equal(batch.arrays[n][0], first)}
            if counter in self._names and not np.array_equal(batch.arrays[counter][0], np.diff(first)):
                differing.add(counter)
        if differing:
            raise CountsDifferError(frozenset(differing))


def _empty_batch(schema: Schema) -> Batch:
    return to_batch(schema, {c.name: empty_array(c) for c in schema.columns}, 0)


def _type_of(column: Column) -> Any:
    form = ak.forms.from_json(column.form)
    if column.kind in ("jagged", "string"):
        return form.type
    part = column.parts[0]
    return np.dtype((part.dtype, part.shape))


def _for_uproot(column: Column, array: Any) -> Any:
    if column.kind in ("jagged", "string"):
        return array
    numbers: Array = ak.to_numpy(array)
    return numbers
