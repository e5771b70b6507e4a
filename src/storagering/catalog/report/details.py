"""One dataset at length: what it is made of, its columns, its history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storagering.catalog.report.facts import ColumnFacts, Detail, Row
from storagering.catalog.report.figures import draw_distribution, draw_spark
from storagering.catalog.report.html import Child, Html, element
from storagering.catalog.report.numbers import (
    bytes_text,
    count_text,
    ratio_text,
    share_text,
    time_text,
    value_text,
)
from storagering.catalog.report.tables import Cell, Heading, draw_table

_DIGEST = 16
_MEDIAN = 3


def draw_detail(detail: Detail, place: str, span: tuple[int, int], *, is_open: bool) -> Html:
    """A section that folds.

    Args:
        place: its id on the page.
        span: first and last moment of all accesses, in seconds since 1970.
    """
    d = detail.dataset
    summary = element(
        "summary",
        element("strong", d.name),
        element("span", f"{count_text(d.entries)} entries"),
        element("span", f"{bytes_text(d.nbytes)} stored"),
        element("span", ratio_text(d.raw_bytes, d.nbytes)),
    )
    parts = (_about(detail), _columns(detail), _sources(detail), _versions(detail), _skipped(detail))
    return element(
        "details", summary, parts, _reads(detail, span), id=place, class_="dataset", open="" if is_open else None
    )


def _about(detail: Detail) -> Html:
    d = detail.dataset
    told = {
        "stored": f"{bytes_text(d.nbytes)} in {count_text(d.chunks)} chunks of {d.format}",
        "decoded": f"{bytes_text(d.raw_bytes)}, {bytes_text(d.raw_bytes / d.entries) if d.entries else '–'} an entry",
        "version": f"{d.version}, made {time_text(d.created)}",
    }
    if d.here_bytes is not None:
        told["on this disk"] = f"{count_text(d.here_chunks or 0)} chunks, {share_text(d.here_bytes, d.nbytes)}"
    pairs = [*told.items(), *detail.about]
    return element("dl", [(element("dt", name), element("dd", _shortened(name, text))) for name, text in pairs])


def _shortened(name: str, text: str) -> Child:
    """Digests by their first digits."""
    return element("code", text[:_DIGEST], title=text) if name in ("digest", "specification") else text


def _columns(detail: Detail) -> list[Html]:
    columns, number = detail.columns, detail.dataset.columns
    headings = [
        Heading("Column"),
        Heading("Unit"),
        Heading("Type"),
        Heading("Distribution", hint="histogram; below it the median, the quartiles and 5% to 95%"),
        Heading("Mean", number=True),
        Heading("σ", number=True, hint="standard deviation"),
        Heading("Min", number=True),
        Heading("Median", number=True),
        Heading("Max", number=True),
        Heading("Special values"),
    ]
    shown = draw_table(headings, map(_column_row, columns), style="columns")
    more = _more(number, len(columns), "columns", detail)
    return [element("h3", f"{count_text(number)} columns"), shown, *more]


def _column_row(c: ColumnFacts) -> list[Child | Cell]:
    name = element("span", c.name, class_="name")
    median = c.quantiles[_MEDIAN] if c.quantiles else None
    kind = f"{c.kind} {c.dtype}" if c.kind not in ("flat", "string") else c.dtype
    return [
        [name, element("span", c.doc, class_="doc")] if c.doc and c.doc != c.name else name,
        c.unit,
        kind,
        draw_distribution(c),
        _number(c.mean),
        _number(c.std),
        _number(c.min),
        _number(median),
        _number(c.max),
        ", ".join(_special(c)),
    ]


def _number(value: float | None) -> Cell:
    return Cell(value_text(value), value)


def _special(c: ColumnFacts) -> Iterable[str]:
    for count, name in ((c.nan_count, "NaN"), (c.inf_count, "infinite")):
        if count:
            yield f"{count_text(count)} {name}"
    if c.zero_count and c.count:
        yield f"{share_text(c.zero_count, c.count)} zero"
    if c.mantissa_bits is not None:
        yield f"{c.mantissa_bits} bits kept"


def _sources(detail: Detail) -> list[Html]:
    number, verified, nbytes = detail.source_sums
    if not number:
        return []
    headings = (
        Heading("Source"),
        Heading("Class"),
        Heading("Table"),
        Heading("Entries", number=True),
        Heading("Size", number=True),
        Heading("Format"),
        Heading("Verified", hint="whether every byte that was used was covered by a checksum"),
    )
    rows = [
        (
            element("span", url, class_="url"),
            label,
            tree,
            Cell(count_text(entries), entries),
            Cell(bytes_text(size), size),
            kind,
            "yes" if checked else "no",
        )
        for url, label, tree, entries, size, kind, checked in detail.sources
    ]
    title = f"{count_text(number)} source{'s' if number > 1 else ''}, {bytes_text(nbytes)}"
    checked_text = f"{count_text(verified)} verified by checksums"
    more = _more(number, len(rows), "source_files", detail)
    return [element("h3", title, element("small", checked_text)), draw_table(headings, rows), *more]


def _versions(detail: Detail) -> list[Html]:
    if len(detail.versions) < 2:
        return []
    headings = (
        Heading("Version"),
        Heading("Digest"),
        Heading("Made from"),
        Heading("Created", number=True, hint="UTC"),
        Heading("Entries", number=True),
        Heading("Chunks", number=True),
        Heading("Stored", number=True),
    )
    return [element("h3", "Versions"), draw_table(headings, map(_version_row, detail.versions))]


def _version_row(row: Row) -> Sequence[Child | Cell]:
    version, digest, parent, created, entries, chunks, nbytes, current = row
    return (
        f"{version}, current" if current else str(version),
        element("code", digest[:_DIGEST], title=digest),
        element("code", (parent or "")[:_DIGEST], title=parent),
        Cell(time_text(created), created),
        Cell(count_text(entries), entries),
        Cell(count_text(chunks), chunks),
        Cell(bytes_text(nbytes), nbytes),
    )


def _skipped(detail: Detail) -> list[Html]:
    shown: list[Html] = []
    if detail.skipped_columns:
        headings = (Heading("Skipped column"), Heading("Type"), Heading("Reason"))
        shown.append(element("h3", f"{count_text(detail.num_skipped_columns)} columns of the sources were skipped"))
        shown.append(draw_table(headings, detail.skipped_columns))
        shown.extend(_more(detail.num_skipped_columns, len(detail.skipped_columns), "skipped_columns", detail))
    if detail.skipped_sources:
        shown.append(element("h3", f"{count_text(len(detail.skipped_sources))} sources were left out"))
        shown.append(draw_table((Heading("Source"), Heading("Reason")), detail.skipped_sources))
    return shown


def _reads(detail: Detail, span: tuple[int, int]) -> list[Html]:
    d = detail.dataset
    if not detail.accesses:
        return []
    text = f"{count_text(d.reads)} reads, {bytes_text(d.read_bytes)}; the last {time_text(d.last_read)}"
    return [element("h3", "Accesses", element("small", text)), draw_spark(detail.accesses, *span)]


def _more(number: int, shown: int, table: str, detail: Detail) -> list[Html]:
    """What to ask for the rest; the query is for people, and run by nobody here."""
    if number <= shown:
        return []
    query = f"SELECT * FROM {table} WHERE dataset = '{detail.dataset.name}'"  # noqa: S608
    text = f"… and {count_text(number - shown)} more: "
    return [element("p", text, element("code", f'storagering sql "{query}"'), class_="quiet")]
