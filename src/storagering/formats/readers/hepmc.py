"""HepMC events (ASCII of version 2 and 3), read by pyhepmc: one entry an event.

The columns are those of HepMC's own ``GenEventData``, which hold an event exactly: particles, vertices, and
``links1``/``links2`` between them; to which come the parents and children of each particle, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from storagering.config import Settings
from storagering.errors import CorruptDataError, MissingExtraError
from storagering.formats.blob import Blob
from storagering.formats.readers.arrow_ipc import Batches, open_unpacked
from storagering.formats.readers.event_tables import EventColumn, EventTable
from storagering.formats.readers.hepmc_text import HepmcText, hepmc_kind
from storagering.formats.readers.text_blocks import BlockFile
from storagering.formats.source import Source
from storagering.types import Array
from storagering.urls import redact_text, redact_url

_BUFFER_BYTES = 1 << 20
_PARTICLE = {
    "pid": "i4",
    "status": "i4",
    "is_mass_set": "?",
    "mass": "f8",
    "px": "f8",
    "py": "f8",
    "pz": "f8",
    "e": "f8",
}
_VERTEX = {"status": "i4", "x": "f8", "y": "f8", "z": "f8", "t": "f8"}
_POSITION = ("x", "y", "z", "t")


def open_hepmc(blob: Blob, settings: Settings, spool: str) -> Source:
    """A file of HepMC events, parsed once into the spool.

    Raises:
        MissingExtraError: pyhepmc is not installed.
        FormatError: a kind of HepMC file that pyhepmc does not read.
        CorruptDataError, TruncatedError: naming the event.
        SourceError: the server failed.
    """
    try:
        import pyhepmc
    except ImportError as error:
        raise MissingExtraError("HepMC files need pyhepmc: pip install 'storagering[hepmc]'") from error

    def batches() -> Batches:
        events = _Events(pyhepmc, blob)
        first = events.read()
        table = EventTable(_columns(events.units, events.weight_names))
        return table.schema, _fill(table, first, events)

    return open_unpacked(blob, "hepmc", batches, settings, spool, exact=True)


def _columns(units: tuple[str, str], weights: list[str]) -> dict[str, EventColumn]:
    energy = " [GeV]" if units[0] == "GEV" else " [MeV]"
    length = f" [{units[1].lower()}]"
    columns = {"event_number": EventColumn("i4"), "weights": EventColumn("f8", 1, ", ".join(weights))}
    columns |= {f"event_pos_{n}": EventColumn("f8", 0, n + length) for n in _POSITION}
    for name, kind in _PARTICLE.items():
        doc = name + energy if name in ("mass", "px", "py", "pz", "e") else ""
        columns[f"particles_{name}"] = EventColumn(kind, 1, doc)
    columns["particles_parents"] = EventColumn("i4", 2, "particles that go into the vertex that it comes from")
    columns["particles_children"] = EventColumn("i4", 2, "particles that come from the vertex that it goes into")
    for name, kind in _VERTEX.items():
        columns[f"vertices_{name}"] = EventColumn(kind, 1, name + length if name in _POSITION else "")
    columns["links1"] = EventColumn(
        "i4", 1, "particle (from 1) into vertex links2, or vertex (from -1) of particle links2"
    )
    columns["links2"] = EventColumn("i4", 1, "see links1")
    columns["attribute_id"] = EventColumn("i4", 1, "0 for the event, else particle (from 1) or vertex (from -1)")
    columns["attribute_name"] = EventColumn("text", 1)
    columns["attribute_string"] = EventColumn("text", 1)
    return columns


class _Events:
    """The events of a file, each compared with what the text says of it.

    The library takes damage for the end of the file; so its events are counted against those in the text.

    Attributes:
        units: of momenta and lengths, and
        weight_names: names of the weights; all events must have those of the first.
    """

    def __init__(self, pyhepmc: Any, blob: Blob) -> None:
        self._library, self._url = pyhepmc, blob.url
        kind = hepmc_kind(blob)
        self._text = HepmcText(blob, kind)
        self._blocks = self._text.blocks()
        stream = pyhepmc.io.pyiostream(BlockFile(self._blocks), _BUFFER_BYTES)
        reader = pyhepmc.io.ReaderAscii if kind == "HepMC::Asciiv3" else pyhepmc.io.ReaderAsciiHepMC2
        self._reader = reader(stream)
        self._number = 0
        self.units, self.weight_names = ("GEV", "MM"), list[str]()
        self._event = pyhepmc.GenEvent()

    def _weight_names(self) -> list[str]:
        info = self._event.run_info
        return list(info.weight_names) if info else []

    def read(self) -> Any:
        """The next event as ``GenEventData``, None at the end.

        Raises:
            CorruptDataError: it is damaged.
        """
        self._event = self._library.GenEvent()
        try:
            with _silent(self._library):
                good = self._reader.read_event(self._event) and not self._reader.failed()
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._damaged(redact_text(str(error), self._url)[:300]) from error
        if not good:
            for _ in self._blocks:
                pass  # whatever it has not read
            if self._text.counts or self._text.fault:
                raise self._damaged("it cannot be parsed" if self._text.counts else self._text.fault)
            return None
        data = self._library.GenEventData()
        self._event.write_data(data)
        if len(data.particles) != (expected := self._text.next_count()):
            raise self._damaged(f"{len(data.particles)} particles of {expected}")
        units, names = (data.momentum_unit.name, data.length_unit.name), self._weight_names()
        if not self._number:
            self.units, self.weight_names = units, names
        if units != self.units:
            raise self._damaged(f"its units are {'/'.join(units)}, those of the first {'/'.join(self.units)}")
        if names != self.weight_names:
            raise self._damaged("its weights are called otherwise than in the first event")
        self._number += 1
        return data

    def _damaged(self, why: str) -> CorruptDataError:
        return CorruptDataError(f"{redact_url(self._url)}: event {self._number} is damaged ({why}); fetch it again")


@contextmanager
def _silent(library: Any) -> Iterator[None]:
    """Without remarks on the standard error."""
    names = ("print_errors", "print_warnings", "debug_level")
    before = {name: getattr(library.Setup, name) for name in names}
    for name in names:
        setattr(library.Setup, name, 0)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(library.Setup, name, value)


def _fill(table: EventTable, first: Any, events: _Events) -> Iterator[Any]:
    data = first
    while data is not None:
        table.add(_row(data))
        if table.is_full:
            yield table.take()
        data = events.read()
    yield table.take()


def _row(data: Any) -> dict[str, Any]:
    particles, vertices = data.particles, data.vertices
    row: dict[str, Any] = {"event_number": data.event_number, "weights": data.weights}
    row |= {f"event_pos_{n}": getattr(data.event_pos, n) for n in _POSITION}
    row |= {f"particles_{n}": particles[n].copy() for n in _PARTICLE}
    row |= {f"vertices_{n}": vertices[n].copy() for n in _VERTEX}
    row["links1"], row["links2"] = data.links1.copy(), data.links2.copy()
    row["particles_parents"], row["particles_children"] = _family(row["links1"], row["links2"], len(particles))
    row["attribute_id"] = data.attribute_id
    row["attribute_name"], row["attribute_string"] = data.attribute_name, data.attribute_string
    return row


_Lists = tuple[Array, Array]


def _family(links1: Array, links2: Array, particles: int) -> tuple[_Lists, _Lists]:
    """Parents and children of each particle, as lengths of lists and their contents."""
    into = links1 > 0
    going, ends = links1[into] - 1, -links2[into] - 1
    coming, starts = links2[~into] - 1, -links1[~into] - 1
    vertices = int(max(ends.max(initial=-1), starts.max(initial=-1))) + 1
    origin, end = np.full(particles, -1), np.full(particles, -1)
    origin[coming], end[going] = starts, ends
    return _lists_of(origin, _by_vertex(ends, going, vertices)), _lists_of(end, _by_vertex(starts, coming, vertices))


def _by_vertex(vertex: Array, particle: Array, vertices: int) -> _Lists:
    """The particles at each vertex: offsets and contents; the last list, of no vertex, is empty."""
    offsets = np.zeros(vertices + 2, np.int64)
    np.cumsum(np.bincount(vertex, minlength=vertices + 1), out=offsets[1:])
    return offsets, particle[np.argsort(vertex, kind="stable")]


def _lists_of(vertex: Array, lists: _Lists) -> _Lists:
    """The lists at the vertex of each particle, one after the other; -1 for no vertex takes the last."""
    offsets, contents = lists
    starts, lengths = offsets[:-1][vertex], np.diff(offsets)[vertex]
    places = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return lengths, contents[places]
