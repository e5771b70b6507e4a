"""Which format a file is of, by its contents: names lie, and many sources have none."""

from __future__ import annotations

import re

from storagering.errors import FormatError
from storagering.formats.blob import Blob
from storagering.urls import redact_url

#: What can be read, for people.
READABLE = (
    "ROOT (TTree, RNTuple), Parquet, HDF5, Zarr, Arrow IPC and Feather, Avro, NumPy (.npy, .npz), CSV, "
    "JSON lines, LHE and HepMC, each also packed by gzip, bzip2, xz, zstd or lz4"
)
#: Wrappings of one file, by what they begin with.
PACKED = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}

_MAGIC = {
    b"PAR1": "parquet",
    b"PARE": "parquet",
    b"ARROW1": "arrow",
    b"FEA1": "feather",
    b"Obj\x01": "avro",
    b"\x93NUMPY": "npy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PK\x00\x00PK\x03\x04": "zip",
}
_HEAD_BYTES = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
#: Where the first record of a ROOT file may begin (100 in all releases); tells one from text like "root:x:0:0".
_FIRST_RECORDS = range(64, 1024)
_LHE = re.compile(rb"\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*)*<LesHouchesEvents\b", re.S)
_HEPMC = re.compile(rb"\s*HepMC::")
_BOM = b"\xef\xbb\xbf"


def find_format(blob: Blob) -> str:
    """``root``, ``parquet``, ``arrow``, ..., ``zip`` (see `zip_format`), ``text``, or a value of `PACKED`.

    Raises:
        FormatError: it is empty, or nothing here reads it.
        SourceError: the server failed.
    """
    head = bytes(blob.read(0, min(_HEAD_BYTES, blob.size)))
    if not head:
        raise FormatError(f"{redact_url(blob.url)} is empty: it has no bytes at all")
    found = _by_magic(head, blob.size) or _as_text(head, blob) or _displaced_hdf5(blob)
    if not found:
        raise unknown_format(blob, head)
    return found


def unknown_format(blob: Blob, head: bytes) -> FormatError:
    """The error for a file that nothing here reads."""
    return FormatError(
        f"{redact_url(blob.url)} is not of a format that can be read (it begins with {head[:8]!r}); "
        f"these can: {READABLE}"
    )


def zip_format(names: list[str]) -> str:
    """``npz``, ``zarr`` or '' for a zip file with these members."""
    leaves = {name.rpartition("/")[2] for name in names}
    if leaves & {"zarr.json", ".zgroup", ".zarray"}:
        return "zarr"
    return "npz" if not names or any(name.endswith(".npy") for name in names) else ""


def _by_magic(head: bytes, size: int) -> str:
    if head[:4] == b"root" and (len(head) < 12 or int.from_bytes(head[8:12], "big") in _FIRST_RECORDS):
        return "root"
    for table in (_MAGIC, PACKED):
        for magic, name in table.items():
            if head.startswith(magic):
                return name
    if head[:4] == b"\xff\xff\xff\xff" and 0 < int.from_bytes(head[4:8], "little") < size:
        return "arrow-stream"
    return ""


def _as_text(head: bytes, blob: Blob) -> str:
    text = head.removeprefix(_BOM)
    if _LHE.match(text):
        return "lhe"
    if _HEPMC.match(text):
        return "hepmc"
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(f"{redact_url(blob.url)} is text in UTF-16; save it as UTF-8")
    if b"\0" in text or not _is_utf8(text, whole=len(head) == blob.size):
        return ""
    first = text.lstrip()[:1]
    if first == b"[":
        raise FormatError(
            f"{redact_url(blob.url)} is one JSON array; write one object a line instead (jq -c '.[]' does it)"
        )
    return "json-lines" if first == b"{" else "text"


def _is_utf8(text: bytes, *, whole: bool) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return not whole and error.start >= len(text) - 3 and error.reason == "unexpected end of data"
    return True


def _displaced_hdf5(blob: Blob) -> str:
    """HDF5 may begin after a block of the user's own, at 512, 1024, 2048, ... bytes."""
    places = []
    at = 512
    while at + len(_HDF5) <= blob.size:
        places.append(at)
        at *= 2
    found = blob.read_ranges([(at, at + len(_HDF5)) for at in places]) if places else []
    return "hdf5" if any(bytes(piece) == _HDF5 for piece in found) else ""
