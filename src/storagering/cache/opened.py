"""The source that a worker has open, kept from one task to the next: opening one can cost as much as a chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storagering.cache.messages import BuildContext, blamed_on, spool_of
from storagering.errors import SourceChangedError
from storagering.formats.readers import open_source
from storagering.formats.source import Source
from storagering.types import Span


class OpenSources:
    """The sources of a build, one of them open at a time."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context
        self._source: Source | None = None
        self._number = -1

    def of(self, pieces: Iterable[Span]) -> Iterator[tuple[Span, Source]]:
        """Every piece with its open source.

        Raises:
            SourceChangedError: a file is not what it was when the build was planned.
            SourceError, NotFoundError, CorruptDataError: it cannot be opened.
        """
        for span in pieces:
            if self._source is None or span.source != self._number:
                self.close()
                with blamed_on(span.source):
                    self._source, self._number = self._open(span.source), span.source
            yield span, self._source

    def _open(self, number: int) -> Source:
        context = self._context
        location, planned = context.locations[number], context.sources[number]
        source = open_source(location, planned.tree, context.settings, spool_of(context.spool, location))
        found = (source.entries, source.nbytes, source.version)
        if found != (planned.entries, planned.nbytes, planned.version):
            source.close()
            raise SourceChangedError(f"{planned.url} changed while it was being converted; run the command again")
        return source

    def close(self) -> None:
        """Close the one that is open."""
        source, self._source = self._source, None
        if source is not None:
            source.close()
