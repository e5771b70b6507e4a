"""``where``, ``define`` and ``label`` of a conversion, applied to some entries of a source."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from storagering.formats.expressions import Expression, evaluate_mask, parse_expression
from storagering.types import ConversionSpec

LABEL = "label"


class Selection:
    """The expressions of a spec, parsed once.

    Entries are selected first, so that ``where="num(Jet_pt) > 0"`` protects ``Jet_pt[:, 0]``; only the
    definitions that the selection itself uses see all entries.

    Args:
        columns: names of the source's columns.

    Attributes:
        source_names: columns of the source that the expressions need.

    Raises:
        SpecError: an expression is wrong.
    """

    def __init__(self, spec: ConversionSpec, columns: list[str]) -> None:
        known, self._define = list(columns), list[tuple[str, Expression]]()
        for name, text in spec.define:
            self._define.append((name, parse_expression(text, known)))
            known.append(name)
        self._where = parse_expression(spec.where, known) if spec.where is not None else None
        needed = [n for _, e in self._define for n in e.names] + list(self._where.names if self._where else ())
        self.source_names = tuple(dict.fromkeys(n for n in needed if n in columns))
        self._early = self._names_for_selection()

    def _names_for_selection(self) -> set[str]:
        early = set(self._where.names if self._where else ())
        for name, expression in reversed(self._define):
            if name in early:
                early.update(expression.names)
        return early

    def apply(self, arrays: dict[str, Any], entries: int, label: int | None) -> tuple[dict[str, Any], int]:
        """All columns, read, defined and labelled, of the selected entries; and how many these are.

        Raises:
            SpecError: an expression cannot be evaluated on these columns.
        """
        columns = {name: ak.Array(array) for name, array in arrays.items()}
        for name, expression in self._define:
            if name in self._early:
                columns[name] = expression.evaluate(columns)
        if self._where is not None:
            keep = evaluate_mask(self._where, columns)
            columns, entries = {name: array[keep] for name, array in columns.items()}, int(np.count_nonzero(keep))
        for name, expression in self._define:
            if name not in self._early:
                columns[name] = expression.evaluate(columns)
        if label is not None:
            columns[LABEL] = ak.Array(np.full(entries, label, np.int64))
        return columns, entries
