"""Reading only what a selection leaves: its own columns first, the others where entries survive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np

from storagering.cache.selection import Selection
from storagering.formats.source import Source
from storagering.types import Array, Span

Runs = tuple[tuple[int, int], ...]

#: With more than this share of a piece to be read, one long read is better than many short ones.
_WORTH_SKIPPING = 0.7
#: With more different cuts than this, all columns are read for all that any of them needs: a server's answer
#: takes its time for each.
_MAX_GROUPS = 8


class PrunedReader:
    """Reads the selected entries of one source.

    What comes out is equal to a selection from the whole columns, however little was read.

    Args:
        names: columns of the source that can be read.
        outputs: columns that are wanted, be they of the source or defined.
    """

    def __init__(self, source: Source, selection: Selection, names: Sequence[str], outputs: Sequence[str]) -> None:
        self.source, self._selection, self._outputs = source, selection, outputs
        self._early = list(selection.early_names) or list(names[:1])  # some column tells the number of entries
        needed = {*outputs, *selection.source_names}.difference(self._early)
        self._late = [name for name in names if name in needed]
        self._bounds: dict[str, Array] = {}

    def read(
        self, span: Span, made: Mapping[str, Array], known: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], int, int]:
        """The columns that are wanted, of the entries that the selection keeps.

        Args:
            made: what the build makes itself, for all entries of the span.
            known: the source's columns in that span, if they were read already.

        Returns:
            The columns ({} without survivors), the number of entries, and the decoded bytes that were read.

        Raises:
            SpecError: an expression cannot be evaluated on these columns.
            StorageringError: as `Source.read`.
        """
        early = dict(known or self.source.read(self._early, span.start, span.stop))
        columns, mask = self._selection.keep(early)
        if mask is None:
            mask = np.ones(span.stop - span.start, np.bool_)
        entries, size = int(np.count_nonzero(mask)), _size(early)
        if not entries:
            return {}, 0, size
        columns = {name: array[mask] for name, array in columns.items()}
        if known is None:
            late, late_size = self._read_late(span, mask)
            columns, size = columns | late, size + late_size
        columns = self._selection.complete(columns, {name: array[mask] for name, array in made.items()})
        return {name: columns[name] for name in self._outputs}, entries, size

    def _read_late(self, span: Span, mask: Array) -> tuple[dict[str, Any], int]:
        columns: dict[str, Any] = {}
        size = 0
        for runs, names in self._groups(span, mask).items():
            pieces = []
            for start, stop in runs:
                read = self.source.read(names, start, stop)
                size += _size(read)
                own = mask[start - span.start : stop - span.start]
                pieces.append({name: ak.to_packed(ak.Array(read[name])[own]) for name in names})
            for name in names:
                columns[name] = ak.concatenate([p[name] for p in pieces]) if len(pieces) > 1 else pieces[0][name]
        return columns, size

    def _groups(self, span: Span, mask: Array) -> dict[Runs, list[str]]:
        """The entries to read -> the columns for which they are these."""
        groups: dict[Runs, list[str]] = {}
        for name in self._late:
            groups.setdefault(self._runs_of(name, span, mask), []).append(name)
        if len(groups) <= _MAX_GROUPS:
            return groups
        wanted = np.zeros(len(mask), np.bool_)
        for start, stop in {run for runs in groups for run in runs}:
            wanted[start - span.start : stop - span.start] = True
        return {_runs(wanted, np.arange(span.start, span.stop + 1)): self._late}

    def _runs_of(self, name: str, span: Span, mask: Array) -> Runs:
        if name not in self._bounds:
            self._bounds[name] = np.asarray(self.source.boundaries([name]), np.int64)
        bounds = self._bounds[name]
        inner = bounds[(bounds > span.start) & (bounds < span.stop)]
        cuts = np.concatenate(([span.start], inner, [span.stop]))
        kept = np.add.reduceat(mask, cuts[:-1] - span.start, dtype=np.int64) > 0
        if int(np.diff(cuts)[kept].sum()) > _WORTH_SKIPPING * (span.stop - span.start):
            return ((span.start, span.stop),)
        return _runs(kept, cuts)


def _runs(kept: Array, cuts: Array) -> Runs:
    """Neighbouring blocks that are kept, as ranges of entries."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])).astype(np.int8)))
    return tuple(zip(cuts[edges[::2]].tolist(), cuts[edges[1::2]].tolist(), strict=True))


def _size(arrays: dict[str, Any]) -> int:
    return sum(int(array.nbytes) for array in arrays.values())
