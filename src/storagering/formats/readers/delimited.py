"""CSV, TSV and other text tables: read twice from beginning to end, once for the types and once for the values."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError
from storagering.formats.blob import Blob
from storagering.formats.detect import unknown_format
from storagering.formats.readers.arrow_ipc import Batches, IpcSource, open_unpacked
from storagering.formats.readers.text_blocks import BLOCK_BYTES, BOM, BlockFile, line_blocks
from storagering.formats.readers.text_layout import TextLayout, find_layout
from storagering.formats.readers.text_types import TextColumn
from storagering.urls import redact_url

_SAMPLE_BYTES = 256 << 10
_SPACES = re.compile(rb"[ \t\r\f\v]+")
_EDGES = re.compile(rb"^ | $", re.M)
_MARK = "\1end\1"


def open_delimited(blob: Blob, settings: Settings, spool: str) -> IpcSource:
    """A text table.

    Raises:
        FormatError: the text is no table, or its lines end with carriage returns alone.
        CorruptDataError: a row has more or fewer fields than the others, or a quote is never closed.
    """
    head = bytes(blob.read(0, min(_SAMPLE_BYTES, blob.size)))
    if b"\r" in head and b"\n" not in head:
        raise FormatError(
            f"{redact_url(blob.url)}: its lines end with carriage returns alone; write it anew with "
            "tr '\\r' '\\n' < OLD > NEW"
        )
    whole = len(head) == blob.size
    layout = find_layout(head.removeprefix(BOM).decode(errors="strict" if whole else "ignore"), whole=whole)
    if layout is None:
        raise unknown_format(blob, head)
    return open_unpacked(blob, "csv", lambda: _batches(blob, layout), settings, spool, exact=True)


def _batches(blob: Blob, layout: TextLayout) -> Batches:
    columns = [TextColumn() for _ in layout.names]
    for batch in _text_batches(blob, layout):
        for column, text in zip(columns, batch.columns, strict=True):
            column.see(text)
    fields = []
    for name, column in zip(layout.names, columns, strict=True):
        kind, nullable = column.field_type
        fields.append(pa.field(name, kind, nullable=nullable))
    schema = pa.schema(fields)

    def contents() -> Iterator[pa.RecordBatch]:
        for batch in _text_batches(blob, layout):
            arrays = [column.convert(text) for column, text in zip(columns, batch.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return schema, contents()


def _text_batches(blob: Blob, layout: TextLayout) -> Iterator[pa.RecordBatch]:
    """All rows, every field as text.

    Raises:
        CorruptDataError: a quoted field goes on to the end of the file.
    """
    names = [str(number) for number in range(len(layout.names))]
    quote = False if layout.is_spaced else '"'
    reader = pyarrow.csv.open_csv(
        pa.PythonFile(BlockFile(_pieces(_marked(blob, layout))), mode="r"),
        pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
        pyarrow.csv.ParseOptions(delimiter=layout.delimiter, quote_char=quote, newlines_in_values=bool(quote)),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    last = None
    for batch in reader:
        if last is not None and batch.num_rows:
            yield last
        last = batch if batch.num_rows else last
    if last is None or any(column[-1].as_py() != _MARK for column in last.columns):
        raise CorruptDataError(f"{redact_url(blob.url)}: a quote is opened and never closed; fetch it again")
    yield last.slice(0, last.num_rows - 1)


def _marked(blob: Blob, layout: TextLayout) -> Iterator[bytes]:
    """The rows and one more, which a field that does not end would swallow."""
    end = b"\n"
    for rows in _cleaned(blob, layout):
        yield rows
        end = rows[-1:]
    mark = layout.delimiter.join([_MARK] * len(layout.names)).encode()
    yield (b"" if end == b"\n" else b"\n") + mark + b"\n"


def _pieces(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Of the size that pyarrow reads, none cut after a carriage return: it would lose a newline that follows."""
    rest = b""
    for block in blocks:
        rest += block
        while len(rest) > BLOCK_BYTES:
            cut = BLOCK_BYTES - rest.startswith(b"\r", BLOCK_BYTES - 1)
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def _cleaned(blob: Blob, layout: TextLayout) -> Iterator[bytes]:
    """Whole lines of rows, block by block: no header, no comments, one space between spaced fields."""
    skip, quoted = layout.lines, False
    for block in line_blocks(blob):
        rows = block
        while skip and rows:
            _, _, rows = rows.partition(b"\n")
            skip -= 1
        if layout.comments and (rows.startswith(b"#") or b"\n#" in rows):
            rows, quoted = _without_comments(rows, quoted)
        elif not layout.is_spaced:
            quoted ^= bool(rows.count(b'"') % 2)
        if layout.is_spaced:
            rows = _EDGES.sub(b"", _SPACES.sub(b" ", rows))
        if rows:
            yield rows


def _without_comments(rows: bytes, quoted: bool) -> tuple[bytes, bool]:
    kept = []
    for line in io.BytesIO(rows):
        if line.startswith(b"#") and not quoted:
            continue
        quoted ^= bool(line.count(b'"') % 2)
        kept.append(line)
    return b"".join(kept), quoted
