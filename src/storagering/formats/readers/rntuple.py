"""RNTuples as sources of columns: uproot decodes, the pages are fetched and checked here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.errors import ChecksumError
from storagering.files import redact_url
from storagering.formats.blob import Blob
from storagering.formats.readers.pages import PageBlob, list_pages, stored_fields
from storagering.formats.readers.root_source import RootSource, typename_of
from storagering.formats.source import Storage


class NtupleSource(RootSource):
    """An RNTuple; its columns are its top-level fields."""

    format = "rntuple"

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any) -> None:
        self._pages = PageBlob(blob)
        model.file.source.blob = self._pages
        try:
            self._pages.check_page_lists(model)
        except AssertionError as error:  # so uproot tells of checksums
            raise ChecksumError(
                f"{redact_url(blob.url)}: header or footer of RNTuple {tree!r} does not match its checksum"
            ) from error
        super().__init__(blob, tree, model, file)
        self._fields = dict(model.iteritems(recursive=False))
        self.columns = {n: typename_of(f) for n, f in self._fields.items()}
        self.title = str(model.header.ntuple_description or "")
        self._starts = [int(c.num_first_entry) for c in model.ntuple.cluster_summaries]
        self._forms: dict[str, Any] = {}
        self._inner: dict[int, list[int]] = {}
        for number, record in enumerate(model.field_records):
            if record.parent_field_id != number:
                self._inner.setdefault(record.parent_field_id, []).append(number)
        # A cluster that is read in parts is decoded once.
        self._cache = uproot.cache.LRUArrayCache("100 MB")
        stored = (page for links in model.page_link_list for link in links for page in link.pages)
        self.self_checked = all(page.has_checksum for page in stored)

    def doc(self, name: str) -> str:
        return str(getattr(self._fields[name], "description", "") or "")

    def storage(self) -> dict[str, Storage]:
        stored = stored_fields(self._model)
        return {name: stored[field.field_id] for name, field in self._fields.items()}

    def boundaries(self, names: Iterable[str]) -> list[int]:  # noqa: ARG002  (clusters are the same for all)
        return sorted({0, self.entries, *self._starts})

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """Whole clusters at once, and never the one behind (which uproot's own ``arrays`` reads too)."""
        forms = {name: self._form(name) for name in names}
        if start == stop:
            return {name: ak.Array(form.length_zero_array()) for name, form in forms.items()}
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)
        origin, end = self._starts[first], [*self._starts, self.entries][last]
        cache = None if (origin, end) == (start, stop) else self._cache
        keys = dict.fromkeys(key for form in forms.values() for key in _column_keys(form))
        with self._pages.served(self._missing(keys, range(first, last), cache)):
            buffers: dict[str, Any] = {}
            for key in keys:
                buffers |= self._buffers(key, first, last, cache)
            return {
                name: ak.from_buffers(form, end - origin, buffers)[start - origin : stop - origin]
                for name, form in forms.items()
            }

    def _form(self, name: str) -> Any:
        """The form that uproot gives a field. Its own ``to_akform`` looks through all fields for each."""
        if name not in self._forms:
            numbers = [self._fields[name].field_id]
            for number in numbers:
                numbers += self._inner.get(number, ())
            paths = [path for n in numbers if (path := self._model.all_fields[n].path)]
            self._forms[name] = self._model.field_form(numbers[0], paths)
        return self._forms[name]

    def _missing(self, keys: Iterable[str], clusters: range, cache: Any) -> Iterator[Any]:
        columns = {_column(key) for key in keys}
        for page in list_pages(self._model, clusters, sorted(columns)):
            if cache is None or f"{self._model.cache_key}:{page.cluster}:{page.column}" not in cache:
                yield page

    def _buffers(self, key: str, first: int, last: int, cache: Any) -> dict[str, Any]:
        """What Awkward needs for one physical column over some clusters."""
        column = _column(key)
        behind = self._model.column_records[column].first_element_index - self._starts[first]
        data = self._model.read_cluster_range(
            column, first, last, missing_element_padding=max(0, behind), array_cache=cache
        )
        if key.endswith("-cardinality"):
            return {f"{key}-data": np.diff(data)}
        if key.endswith("-optional"):
            return {f"{key}-index": _index_of_optional(data)}
        if data.dtype.names:  # a variant: tag 0 is none of its types
            tags, index = data["tag"].astype(np.int8), data["index"]
            return {
                f"{key}-tags": tags,
                f"{key}-index": np.where(tags == 0, 0, index),
                "nones-index": np.array([-1], np.int64),
            }
        return {f"{key}-data": data, f"{key}-offsets": data}


def _column(key: str) -> int:
    return int(key.split("-")[1])


def _column_keys(form: Any) -> Iterator[str]:
    """Keys of a form's physical columns."""
    if form.form_key and form.form_key.startswith("column-"):
        yield form.form_key
    inner = form.contents if hasattr(form, "contents") else [getattr(form, "content", None)]
    for content in filter(None, inner):
        yield from _column_keys(content)


def _index_of_optional(offsets: Any) -> Any:
    """Offsets of lists of at most one value, as the index of an optional one."""
    present = np.diff(offsets) > 0
    index = np.full(len(present), -1, offsets.dtype)
    index[present] = np.arange(present.sum(), dtype=offsets.dtype)
    return index
