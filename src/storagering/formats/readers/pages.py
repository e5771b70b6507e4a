"""Pages of an RNTuple: fetched together, and compared with the XXH3 that is stored behind each.

uproot compares the checksums of anchor, header and footer only. Here the page lists and every page are
compared before it sees them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import xxhash

from storagering.errors import ChecksumError, InternalError
from storagering.formats.blob import Blob, Range
from storagering.formats.readers.root_source import compression_name
from storagering.formats.source import Storage
from storagering.urls import redact_url

_CHECKSUM_BYTES = 8


class Page(NamedTuple):
    """Where a page lies, and whether its checksum follows it."""

    field: str
    cluster: int
    column: int
    start: int
    stop: int
    checked: bool


class PageBlob:
    """A blob that gives uproot the pages which `served` fetched, and everything else as it is.

    Safe to use from several threads: each is served what it fetched itself.
    """

    def __init__(self, blob: Blob) -> None:
        self.url, self.size, self.version, self.checksum = blob.url, blob.size, blob.version, blob.checksum
        self._blob, self._local = blob, threading.local()

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        fetched: dict[Range, tuple[Page, memoryview]] | None = getattr(self._local, "pages", None)
        if fetched is None:
            return self._blob.read(start, stop)
        if (start, stop) not in fetched:
            raise InternalError(f"{redact_url(self.url)}: bytes {start:,} to {stop:,} were not fetched as a page")
        page, data = fetched[start, stop]
        # Just before it is decoded, so that it comes from memory only once.
        if page.checked and not _is_sound(data):
            raise ChecksumError(
                f"{redact_url(self.url)}: column {page.field!r} is damaged in cluster {page.cluster}: the page at byte "
                f"{start:,} does not match its checksum; fetch it again"
            )
        return data[: stop - start]

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`."""
        return [self.read(start, stop) for start, stop in ranges]

    def close(self) -> None:
        """See `Blob.close`."""
        self._blob.close()

    @contextmanager
    def served(self, pages: Iterable[Page]) -> Iterator[None]:
        """Within it, this thread reads nothing but these pages, and ChecksumError where one is not what was written."""
        pages = list({(page.start, page.stop): page for page in pages}.values())
        ranges = [(page.start, page.stop + page.checked * _CHECKSUM_BYTES) for page in pages]
        data = self._blob.read_ranges(ranges)
        self._local.pages = {(p.start, p.stop): (p, view) for p, view in zip(pages, data, strict=True)}
        try:
            yield
        finally:
            self._local.pages = None

    def check_page_lists(self, model: Any) -> None:
        """Compare the checksums of the lists that say where the pages are.

        Raises:
            ChecksumError: one of them is not what was written.
        """
        for number, group in enumerate(model.footer.cluster_group_records):
            link = group.page_list_link
            chunk, _ = model.read_locator(link.locator, link.env_uncomp_size)
            if not _is_sound(memoryview(chunk.raw_data)):
                raise ChecksumError(
                    f"{redact_url(self.url)}: the list of pages {number} of RNTuple {model.name!r} does not match its "
                    "checksum; fetch it again"
                )


def list_pages(model: Any, clusters: Iterable[int], columns: Iterable[int]) -> Iterator[Page]:
    """All pages of physical columns in some clusters, as the page lists have them."""
    fields = {column: _field_path(model, column) for column in columns}
    for cluster in clusters:
        links = model.page_link_list[cluster]
        for column, field in fields.items():
            if column < len(links):  # columns that were added to the model later are not in the first clusters
                for page in links[stored_column(model, links, column)].pages:
                    start, size = int(page.locator.offset), int(page.locator.num_bytes)
                    yield Page(field, cluster, column, start, start + size, bool(page.has_checksum))


def sizes_in_clusters(model: Any, clusters: Iterable[int], columns: Iterable[int]) -> Iterator[tuple[str, int, int]]:
    """Field, stored and decoded bytes of physical columns in each of some clusters, as the page lists claim."""
    fields = {column: _field_path(model, column) for column in columns}
    for cluster in clusters:
        links = model.page_link_list[cluster]
        for column, field in fields.items():
            if column < len(links):
                pages, bits = links[stored_column(model, links, column)].pages, model.column_records[column].nbits
                packed = sum(int(page.locator.num_bytes) for page in pages)
                yield field, packed, sum(int(page.num_elements) for page in pages) * bits // 8


def stored_fields(model: Any) -> dict[int, Storage]:
    """Top-level field number -> how all its physical columns together are stored."""
    tops = [field_numbers(model, column)[-1] for column in range(len(model.column_records))]
    settings: dict[int, set[int]] = {top: set() for top in tops}
    sums: dict[int, list[int]] = {top: [0, 0, 0] for top in tops}
    for links in model.page_link_list:
        for top, record, link in zip(tops, model.column_records, links, strict=False):
            if link.pages:
                settings[top].add(int(link.compression_settings))
            sums[top][0] += len(link.pages)
            sums[top][1] += sum(int(page.locator.num_bytes) for page in link.pages)
            sums[top][2] += sum(-(-int(page.num_elements) * record.nbits // 8) for page in link.pages)
    numbers = (n for n, record in enumerate(model.field_records) if record.parent_field_id == n)
    return {
        top: Storage(", ".join(map(compression_name, sorted(settings.get(top, ())))), *sums.get(top, (0, 0, 0)))
        for top in numbers
    }


def alternatives_of(model: Any, column: int) -> list[int]:
    """All columns that hold what this one does, each in its way (a field's representations), itself included."""
    field = model.column_records[column].field_id
    ways: dict[int, list[int]] = {}
    for number, record in enumerate(model.column_records):
        if record.field_id == field:
            ways.setdefault(record.repr_idx, []).append(number)
    place = next(numbers.index(column) for numbers in ways.values() if column in numbers)
    return [numbers[place] for numbers in ways.values()]


def stored_column(model: Any, links: Any, column: int) -> int:
    """The one of a column's alternatives that a cluster has."""
    if not links[column].suppressed:
        return column
    others = (n for n in alternatives_of(model, column) if n < len(links) and not links[n].suppressed)
    return next(others, column)


def _is_sound(data: memoryview) -> bool:
    stored = int.from_bytes(data[-_CHECKSUM_BYTES:], "little")
    return xxhash.xxh3_64_intdigest(data[:-_CHECKSUM_BYTES]) == stored


def _field_path(model: Any, column: int) -> str:
    return ".".join(model.field_records[number].field_name for number in reversed(field_numbers(model, column)))


def field_numbers(model: Any, column: int) -> list[int]:
    """The field of a physical column and those that it is part of, up to the top."""
    number = model.column_records[column].field_id
    numbers = [number]
    while model.field_records[number].parent_field_id != number:
        number = model.field_records[number].parent_field_id
        numbers.append(number)
    return numbers
