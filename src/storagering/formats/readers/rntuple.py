"""RNTuples as sources of columns: uproot decodes, the pages are fetched and checked here."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.config import Settings
from storagering.errors import ChecksumError
from storagering.formats.blob import Blob
from storagering.formats.limits import check_unpacking
from storagering.formats.readers.pages import (
    PageBlob,
    alternatives_of,
    field_numbers,
    list_pages,
    sizes_in_clusters,
    stored_column,
    stored_fields,
)
from storagering.formats.readers.root_source import RootSource, plain_text, typename_of
from storagering.formats.source import Storage
from storagering.urls import redact_url


class NtupleSource(RootSource):
    """An RNTuple; its columns are its top-level fields."""

    format = "rntuple"

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any, settings: Settings) -> None:
        self._pages, self._settings = PageBlob(blob), settings
        model.file.source.blob = self._pages
        try:
            self._pages.check_page_lists(model)
        except AssertionError as error:  # so uproot tells of checksums
            raise ChecksumError(
                f"{redact_url(blob.url)}: header or footer of RNTuple {tree!r} does not match its checksum"
            ) from error
        super().__init__(blob, tree, model, file)
        self._fields = {plain_text(name): field for name, field in model.iteritems(recursive=False)}
        self.columns = {n: typename_of(f) for n, f in self._fields.items()}
        self.title = plain_text(model.header.ntuple_description)
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
        return plain_text(getattr(self._fields[name], "description", ""))

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
        cache = None if (origin, end) == (start, stop) else _Held(self._cache)
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
        for field, packed, unpacked in sizes_in_clusters(self._model, clusters, columns):
            check_unpacking(f"{redact_url(self.url)}: a cluster of column {field!r}", packed, unpacked, self._settings)
        for page in list_pages(self._model, clusters, sorted(columns)):
            if cache is None or cache.get(f"{self._model.cache_key}:{page.cluster}:{page.column}") is None:
                yield page

    def _buffers(self, key: str, first: int, last: int, cache: Any) -> dict[str, Any]:
        """What Awkward needs for one physical column over some clusters."""
        data = self._numbers(_column(key), first, last, cache)
        if key.endswith("-cardinality"):
            return {f"{key}-data": np.diff(data)}
        if key.endswith("-optional"):
            return {f"{key}-index": _index_of_optional(data)}
        if data.dtype.names:  # a variant: tag 0 is none of its types
            tags, index = data["tag"].astype(np.int8), data["index"].astype(np.int64)
            for tag in np.unique(tags):  # counted anew in each cluster; values lie in the order of the entries
                index[tags == tag] = np.arange(np.count_nonzero(tags == tag))
            return {
                f"{key}-tags": tags,
                f"{key}-index": np.where(tags == 0, 0, index),
                "nones-index": np.array([-1], np.int64),
            }
        return {f"{key}-data": data, f"{key}-offsets": data}

    def _numbers(self, column: int, first: int, last: int, cache: Any) -> Any:
        """The elements of a physical column over some clusters."""
        model = self._model
        if len(alternatives_of(model, column)) > 1:
            return self._from_alternatives(column, first, last)
        record = model.column_records[column]
        each = math.prod(model.field_records[number].repetition or 1 for number in field_numbers(model, column))
        behind = record.first_element_index - each * self._starts[first]  # it was added to the model later
        return model.read_cluster_range(column, first, last, missing_element_padding=max(0, behind), array_cache=cache)

    def _from_alternatives(self, column: int, first: int, last: int) -> Any:
        """The same of a field that each cluster stores in a way of its own; uproot takes one for the other."""
        model, pieces = self._model, []
        found = model.get_field_metadata(column)  # whose type the form has
        is_index = found.dtype_byte in uproot.const.rntuple_index_types
        for cluster in range(first, last):
            links = model.page_link_list[cluster]
            stored = stored_column(model, links, column)
            own = model.get_field_metadata(stored)
            if not is_index and not np.can_cast(own.dtype, found.dtype):
                raise NotImplementedError(f"it is stored as {found.dtype} in one cluster, as {own.dtype} in another")
            piece = np.empty(sum(int(page.num_elements) for page in links[stored].pages), own.dtype)
            model.read_cluster_pages(cluster, stored, replace(own, dtype_result=own.dtype), destination=piece)
            pieces.append(piece)
        if not is_index:
            return np.concatenate(pieces, dtype=found.dtype)
        offsets = np.zeros(1, np.int64)
        for piece in pieces:
            offsets = np.concatenate([offsets, piece.astype(np.int64) + offsets[-1]])
        if offsets[-1] > np.iinfo(found.dtype).max:
            raise NotImplementedError(f"its lists hold more values than {found.dtype} counts")
        return offsets.astype(found.dtype)


class _Held:
    """A cache that forgets nothing of what it once said that it has."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._held: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        if (found := self._cache.get(key)) is not None:
            self._held[key] = found
        return self._held.get(key)

    def __setitem__(self, key: str, array: Any) -> None:
        self._cache[key] = array


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
