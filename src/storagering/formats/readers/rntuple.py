"""RNTuples as sources of columns, read by uproot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import uproot

from storagering.formats.blob import Blob
from storagering.formats.readers.root_source import RootSource, typename_of


class NtupleSource(RootSource):
    """An RNTuple; its columns are its top-level fields."""

    format = "rntuple"

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any) -> None:
        super().__init__(blob, tree, model, file)
        self._fields = dict(model.iteritems(recursive=False))
        self.columns = {n: typename_of(f) for n, f in self._fields.items()}
        # uproot reads one cluster too many when a range ends on a boundary: the next read finds it here.
        self._cache = uproot.cache.LRUArrayCache("100 MB")

    def doc(self, name: str) -> str:
        return str(getattr(self._fields[name], "description", "") or "")

    def boundaries(self, names: Iterable[str]) -> list[int]:  # noqa: ARG002  (clusters are the same for all)
        return sorted({0, self.entries} | {int(c.num_first_entry) for c in self._model.ntuple.cluster_summaries})

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        if len(names) == 1:
            field = self._fields[names[0]]
            return {names[0]: field.array(entry_start=start, entry_stop=stop, array_cache=self._cache)}
        wanted = set(names)
        record = self._model.arrays(
            filter_name=lambda name: name in wanted, entry_start=start, entry_stop=stop, array_cache=self._cache
        )
        return {name: record[name] for name in names}
