"""TTrees as sources of columns, read by uproot."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from storagering.formats.blob import Blob
from storagering.formats.limits import bounded_memory
from storagering.formats.readers.root_source import RootSource, typename_of
from storagering.formats.remote.options import scheme_of

_LEAFLIST = re.compile(r"[\w.#]+(\[[^\]]*\])*(/[A-Za-z]+(\[.*\])?)?(:[\w.]+(\[[^\]]*\])*(/[A-Za-z]+)?)*_?")


class TreeSource(RootSource):
    """A TTree; its columns are the branches that hold numbers, by their full path."""

    format = "ttree"

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any) -> None:
        super().__init__(blob, tree, model, file)
        self._together = bool(scheme_of(blob.url))  # one request instead of many
        self._branches: dict[str, Any] = {}
        self._bare_names = Counter(branch.name for branch in model.itervalues(recursive=True))
        for name, branch in model.iteritems(recursive=True):
            if _is_group(branch):
                continue
            if name in self._branches:
                self.repeated.append(name)
            else:
                self._branches[name] = branch
        self.columns = {n: typename_of(b) for n, b in self._branches.items()}

    def doc(self, name: str) -> str:
        title = str(self._branches[name].title or "")
        return "" if _LEAFLIST.fullmatch(title) else title

    def boundaries(self, names: Iterable[str]) -> list[int]:
        common: set[int] | None = None
        for name in names:
            branch = self._branches[name]
            if branch.num_baskets:
                own = {int(offset) for offset in branch.entry_offsets}
                common = own if common is None else common & own
        return sorted({0, self.entries} | {e for e in common or () if 0 < e < self.entries})

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """From a server in one request where that is safe, otherwise one by one.

        uproot's ``arrays`` looks branches up by their bare names: quadratic in their number, and wrong for
        all but the first of a name.
        """
        together = [n for n in names if self._is_unique(n)] if len(names) > 1 else []
        wanted = {id(self._branches[name]) for name in together}
        read: dict[str, Any] = {}
        if together:
            read = self._model.arrays(
                filter_branch=lambda b: id(b) in wanted, entry_start=start, entry_stop=stop, library="ak", how=dict
            )
        return {n: read[n] if n in read else self._read_one(self._branches[n], start, stop) for n in names}

    def _read_one(self, branch: Any, start: int, stop: int) -> Any:
        if not _is_object(branch):
            return branch.array(entry_start=start, entry_stop=stop, library="ak")
        try:
            with bounded_memory():
                return branch.array(entry_start=start, entry_stop=stop, library="ak")
        except MemoryError as error:
            raise _MisreadError("uproot takes it for larger than memory") from error

    def _is_unique(self, name: str) -> bool:
        branch = self._branches[name]
        return self._bare_names[branch.name] == 1 and "/" not in name and not _is_object(branch)


class _MisreadError(Exception):
    """A column's type sends uproot astray."""


def _is_object(branch: Any) -> bool:
    """Whether uproot reads the branch object by object, believing every length that it finds."""
    return _interpretation(branch) == "AsObjects"


def _is_group(branch: Any) -> bool:
    """A branch that only holds other branches."""
    return len(branch.branches) > 0 and _interpretation(branch) in ("AsGrouped", "UnknownInterpretation")


def _interpretation(branch: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return type(branch.interpretation).__name__
        except Exception:  # noqa: BLE001  (uproot raises many kinds)
            return "UnknownInterpretation"
