"""Sources that are kept open from one step of a build to the next: opening one can cost as much as a chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storagering.cache.messages import BuildContext, blamed_on, spool_of
from storagering.errors import SourceChangedError
from storagering.formats.blob import is_local, local_path
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source
from storagering.types import Span


class KeptSource:
    """A local source that one step of a build has left open for the next one, which mostly wants the same."""

    def __init__(self) -> None:
        self._location: Location | None = None
        self._source: Source | None = None

    def leave(self, location: Location, source: Source) -> None:
        """Keep an open source, or close it if that is not worth while."""
        self.close()
        if is_local(location.url) and not location.replicas and not location.whole:
            self._location, self._source = location, source
        else:
            source.close()

    def take(self, location: Location, tree: str | None) -> Source | None:
        """The source, if it is the one that was left, and still the same file."""
        if location != self._location or self._source is None or tree != self._source.tree:
            return None
        source, self._source = self._source, None
        try:
            found = local_path(location.url).stat()
        except OSError:
            found = None
        if found is None or (found.st_size, str(found.st_mtime)) != (source.nbytes, source.version):
            source.close()
            return None
        return source

    def close(self) -> None:
        """Close what nobody has taken."""
        source, self._source = self._source, None
        if source is not None:
            source.close()


class OpenSources:
    """The sources of a build; those used last stay open, as many as its context says."""

    def __init__(self, context: BuildContext, kept: KeptSource | None = None) -> None:
        self._context = context
        self._kept = kept or KeptSource()
        self._open_ones: dict[int, Source] = {}

    def of(self, pieces: Iterable[Span]) -> Iterator[tuple[Span, Source]]:
        """Every piece with its open source.

        Raises:
            SourceChangedError: a file is not what it was when the build was planned.
            SourceError, NotFoundError, CorruptDataError: it cannot be opened.
        """
        for span in pieces:
            yield span, self._get(span.source)

    def _get(self, number: int) -> Source:
        source = self._open_ones.pop(number, None)
        if source is None:
            while len(self._open_ones) >= self._context.sources_open:
                self._open_ones.pop(next(iter(self._open_ones))).close()
            with blamed_on(number):
                source = self._open(number)
        self._open_ones[number] = source
        return source

    def _open(self, number: int) -> Source:
        context = self._context
        location, planned = context.locations[number], context.sources[number]
        source = self._kept.take(location, planned.tree) or open_source(
            location, planned.tree, context.settings, spool_of(context.spool, location)
        )
        found = (source.entries, source.nbytes, source.version)
        if found != (planned.entries, planned.nbytes, planned.version):
            source.close()
            raise SourceChangedError(f"{planned.url} changed while it was being converted; run the command again")
        return source

    def close(self) -> None:
        """Close those that are open."""
        while self._open_ones:
            self._open_ones.popitem()[1].close()
