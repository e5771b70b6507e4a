"""The text of HepMC events, checked before pyhepmc parses it: that trusts numbers, and dies of wrong ones."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from storagering.errors import FormatError, LimitExceededError, TruncatedError
from storagering.formats.blob import Blob
from storagering.urls import redact_url

#: How a file of each kind ends.
ENDS = {
    "HepMC::Asciiv3": b"HepMC::Asciiv3-END_EVENT_LISTING",
    "HepMC::IO_GenEvent": b"HepMC::IO_GenEvent-END_EVENT_LISTING",
}
_HEAD_BYTES = 4096
_BLOCK_BYTES = 1 << 20
_MAX_EVENT_BYTES = 1 << 28
#: A line of numbers with something else in it, for which the library takes 0.
_ODD = re.compile(rb"\n[EVP] [-+0-9.eE \t\[\],@naifNAIF]*[^-+0-9.eE \t\[\],@naifNAIF\r\n]+")
_PARTICLE = re.compile(rb"\nP +(\d+) +(-?\d+) ")
_VERTEX = re.compile(rb"\nV +-(\d+) +-?\d+ +\[([\d, ]*)\]")


def hepmc_kind(blob: Blob) -> str:
    """One of `ENDS`.

    Raises:
        FormatError: a kind of HepMC file that pyhepmc does not read.
        TruncatedError: the file does not end as it must.
    """
    head = bytes(blob.read(0, min(_HEAD_BYTES, blob.size))).decode(errors="replace")
    kind = next((name for name in ENDS if f"{name}-START_EVENT_LISTING" in head), None)
    if kind is None:
        raise FormatError(f"{redact_url(blob.url)} is no HepMC file of ASCII version 2 or 3 (IO_GenEvent or Asciiv3)")
    tail = bytes(blob.read(max(0, blob.size - _HEAD_BYTES), blob.size)).rstrip()
    if not tail.endswith(ENDS[kind]):
        raise TruncatedError(
            f"{redact_url(blob.url)} does not end with {ENDS[kind].decode()}: events are missing; fetch it again"
        )
    return kind


class HepmcText:
    """The events of a file as text; ends before the first that is damaged.

    Attributes:
        counts: particles of each event that `blocks` has given and `next_count` has not.
        fault: what is wrong with the event that the text ends before, '' if nothing.
    """

    def __init__(self, blob: Blob, kind: str) -> None:
        self._blob, self._kind = blob, kind
        self.counts: deque[int] = deque()
        self.fault = ""

    def next_count(self) -> int:
        """Particles in the text of the event that has been parsed."""
        return self.counts.popleft() if self.counts else 0

    def blocks(self) -> Iterator[bytes]:
        """The text in pieces of whole events.

        Raises:
            LimitExceededError: an event is longer than 256 MiB.
        """
        for text in self._events():
            self.fault = _fault(text, self._kind)
            if self.fault:
                yield b"\n" + ENDS[self._kind] + b"\n"
                return
            if text.startswith(b"\nE "):
                self.counts.append(text.count(b"\nP "))
            yield text

    def _events(self) -> Iterator[bytes]:
        """What stands before the first event, then each event from the end of the line before it on."""
        rest = bytearray()
        for start in range(0, self._blob.size, _BLOCK_BYTES):
            seen = max(1, len(rest) - 2)
            rest += self._blob.read(start, min(start + _BLOCK_BYTES, self._blob.size))
            begin = 0
            while (end := rest.find(b"\nE ", max(seen, begin + 1))) > 0:
                yield bytes(memoryview(rest)[begin:end])
                begin = end
            del rest[:begin]
            if len(rest) > _MAX_EVENT_BYTES:
                raise LimitExceededError(
                    f"{redact_url(self._blob.url)}: an event is longer than {_MAX_EVENT_BYTES:,} bytes"
                )
        yield bytes(rest)


def _fault(text: bytes, kind: str) -> str:
    if found := _ODD.search(text):
        return f"{found[0].decode(errors='replace').strip()!r} are not numbers"
    if not text.startswith(b"\nE "):
        return "it has no first line" if b"\nP " in text or b"\nV " in text else ""
    try:
        return _fault_in_version_3(text) if kind == "HepMC::Asciiv3" else _fault_in_version_2(text)
    except (ValueError, IndexError):
        return "a line has too few numbers"


def _fault_in_version_2(text: bytes) -> str:
    head, *vertices = text.split(b"\nV ")
    stated = int(head.split(None, 9)[8])
    if len(vertices) != stated:
        return f"{len(vertices)} vertices, it says {stated}"
    if b"\nP " in head:
        return "particles before the first vertex"
    for vertex in vertices:
        numbers, particles = vertex.split(None, 8), vertex.count(b"\nP ")
        orphans, leaving = int(numbers[6]), int(numbers[7])
        if particles < orphans + leaving:  # Pythia 8 wrote vertices that have more than they say
            return f"{particles} particles of a vertex, which says {orphans + leaving}"
    return ""


def _fault_in_version_3(text: bytes) -> str:
    stated_vertices, stated = (int(n) for n in text.split(None, 4)[2:4])
    particles = [(int(number), int(mother)) for number, mother in _PARTICLE.findall(text)]
    vertices = [(int(number), into) for number, into in _VERTEX.findall(text)]
    if len(particles) != stated or len(vertices) != text.count(b"\nV "):
        return f"{len(particles)} particles and {len(vertices)} vertices can be read, it says {stated} particles"
    if len({number for number, _ in particles} & set(range(1, stated + 1))) != stated:
        return "its particles are not numbered from 1 on"
    if len({number for number, _ in vertices} & set(range(1, stated_vertices + 1))) != len(vertices):
        return "its vertices are not numbered from -1 on"
    implied = {mother for _, mother in particles if mother > 0}
    if len(vertices) + len(implied) < stated_vertices:
        return f"{len(vertices) + len(implied)} vertices, it says {stated_vertices}"
    if any(not -stated_vertices <= mother <= stated or mother == number for number, mother in particles):
        return "a particle comes from one that is not there"
    into = b",".join(numbers for _, numbers in vertices).split(b",")
    if any(not 1 <= int(number) <= stated for number in into if number.strip()):
        return "a particle goes into a vertex that is not there"
    return ""
