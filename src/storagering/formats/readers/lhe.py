"""Les Houches events, read by pylhe: one entry an event.

Columns are called as pylhe calls them: those of the event (``weight``, ``scale``, ...) by their own names,
those of the particles ``particles_id``, ``particles_px``, ... (momenta, energies and masses in GeV).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError, MissingExtraError, TruncatedError
from storagering.formats.blob import Blob, BlobFile
from storagering.formats.readers.arrow_ipc import Batches, open_unpacked
from storagering.formats.readers.event_tables import EventColumn, EventTable
from storagering.formats.source import Source
from storagering.urls import redact_text, redact_url

_START, _END = b"<LesHouchesEvents", b"</LesHouchesEvents>"
_TAIL_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20
_EVENT = {
    "nparticles": EventColumn("i8", doc="number of particles"),
    "pid": EventColumn("i8", doc="process"),
    "weight": EventColumn("f8", doc="event weight"),
    "scale": EventColumn("f8", doc="energy scale [GeV]"),
    "aqed": EventColumn("f8", doc="alpha QED"),
    "aqcd": EventColumn("f8", doc="alpha QCD"),
}
_INTEGERS = ("id", "status", "mother1", "mother2", "color1", "color2")
_NUMBERS = {
    "px": " [GeV]",
    "py": " [GeV]",
    "pz": " [GeV]",
    "e": " [GeV]",
    "m": " [GeV]",
    "lifetime": " [mm]",
    "spin": "",
}


def open_lhe(blob: Blob, settings: Settings, spool: str) -> Source:
    """A file of Les Houches events, parsed once into the spool.

    Raises:
        MissingExtraError: pylhe is not installed.
        CorruptDataError, TruncatedError: naming the event.
        FormatError: several documents in one file.
        SourceError: the server failed.
    """
    try:
        import pylhe
    except ImportError as error:
        raise MissingExtraError("LHE files need pylhe: pip install 'storagering[hepmc]'") from error

    def batches() -> Batches:
        _check_end(blob)
        events = _events(pylhe, blob)
        first = next(events, None)
        names = _Names(first)
        table = EventTable(names.columns())
        return table.schema, _fill(table, names, first, events, blob.url)

    return open_unpacked(blob, "lhe", batches, settings, spool, exact=True)


def _check_end(blob: Blob) -> None:
    """Whether there is one document and it is whole; pylhe stops after the first."""
    tail = bytes(blob.read(max(0, blob.size - _TAIL_BYTES), blob.size))
    if _END not in tail:
        raise TruncatedError(
            f"{redact_url(blob.url)} does not end with {_END.decode()}: events are missing; fetch it again"
        )
    if _documents(blob) > 1:
        raise FormatError(
            f"{redact_url(blob.url)} holds several documents of Les Houches events, one after the other; "
            "make each a file of its own"
        )


def _documents(blob: Blob) -> int:
    """How many begin or end in the file."""
    counts = {_START: 0, _END: 0}
    for start in range(0, blob.size, _BUFFER_BYTES):
        data = bytes(blob.read(start, min(start + _BUFFER_BYTES + len(_END), blob.size)))
        for tag in counts:  # those that begin in this step
            counts[tag] += data.count(tag, 0, _BUFFER_BYTES + len(tag) - 1)
    return max(counts.values())


def _events(pylhe: Any, blob: Blob) -> Iterator[Any]:
    """The events; pylhe only warns where it cannot go on."""
    number = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            events = pylhe.LHEFile.frombuffer(io.BufferedReader(BlobFile(blob), _BUFFER_BYTES)).events
        except (RuntimeWarning, ValueError, StopIteration) as error:
            raise _damaged(blob.url, "its header or <init> block", error) from error
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                event = next(events, None)
        except (RuntimeWarning, ValueError, IndexError, KeyError, OverflowError) as error:
            raise _damaged(blob.url, f"event {number}", error) from error
        if event is None:
            return
        yield event
        number += 1


def _damaged(url: str, where: str, error: Exception) -> CorruptDataError:
    text = redact_text(" ".join(str(error).split()), url)[:300] or type(error).__name__
    return CorruptDataError(f"{redact_url(url)}: {where} is damaged ({text}); fetch it again")


class _Names:
    """The names of the weights and scales, which all events must share."""

    def __init__(self, first: Any) -> None:
        self.weights = list(first.weights) if first else []
        self.scales = list(first.scales) if first else []

    def columns(self) -> dict[str, EventColumn]:
        """Fresh columns for them."""
        particles = {f"particles_{n}": EventColumn("i8", 1) for n in _INTEGERS}
        particles |= {f"particles_{n}": EventColumn("f8", 1, f"{n}{unit}") for n, unit in _NUMBERS.items()}
        event = {name: EventColumn(c.kind, doc=c.doc) for name, c in _EVENT.items()}
        return event | {
            "weights": EventColumn("f8", 1, ", ".join(self.weights)),
            "scales": EventColumn("f8", 1, ", ".join(self.scales)),
            "attributes": EventColumn("text", 1, "attributes of the event, NAME=VALUE"),
            "optional": EventColumn("text", 1, "comment lines of the event"),
            **particles,
        }

    def row(self, event: Any) -> dict[str, Any]:
        """An event by columns.

        Raises:
            ValueError: it has other weights than the first, or not as many particles as it says.
        """
        info, particles = event.eventinfo, event.particles
        if info.nparticles != len(particles):
            raise ValueError(f"{len(particles)} particles, it says {info.nparticles}")
        if list(event.weights) != self.weights or list(event.scales) != self.scales:
            raise ValueError("its weights or scales are called otherwise than in the first event")
        row: dict[str, Any] = {name: getattr(info, name) for name in _EVENT}
        row |= {f"particles_{n}": [getattr(p, n) for p in particles] for n in (*_INTEGERS, *_NUMBERS)}
        row["weights"], row["scales"] = list(event.weights.values()), list(event.scales.values())
        row["attributes"] = [f"{name}={value}" for name, value in event.attributes.items()]
        row["optional"] = event.optional
        return row


def _fill(table: EventTable, names: _Names, first: Any, events: Iterator[Any], url: str) -> Iterator[Any]:
    number, event = 0, first
    while event is not None:
        try:
            table.add(names.row(event))
        except ValueError as error:
            raise _damaged(url, f"event {number}", error) from error
        if table.is_full:
            yield table.take()
        event = next(events, None)
        number += 1
    yield table.take()
