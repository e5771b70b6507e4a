"""The page: what is in the cache, how small it has become, who reads it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from storagering.catalog.report.details import draw_detail
from storagering.catalog.report.facts import DatasetFacts, Facts, TrainingFacts
from storagering.catalog.report.figures import draw_accesses, draw_meter, draw_storage
from storagering.catalog.report.html import Child, Html, element, join, trusted
from storagering.catalog.report.numbers import (
    bytes_text,
    count_text,
    duration_text,
    ratio_text,
    share_text,
    short_count,
    time_text,
    value_text,
)
from storagering.catalog.report.tables import Cell, Heading, draw_table

#: How an earlier report is known, which may be replaced.
MARK = '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="generator" content="Storagering'
_BARS = 8
_OPEN = 1
_FILTERED = 12
_DATASETS = (
    Heading("Dataset"),
    Heading("Entries", number=True),
    Heading("Columns", number=True),
    Heading("Chunks", number=True),
    Heading("Stored", number=True, hint="bytes of its chunks"),
    Heading("Ratio", number=True, hint="decoded bytes for one that is stored"),
    Heading("Resident", number=True, hint="share of it that lies on this node's disk"),
    Heading("Reads", number=True, hint="epochs of loaders, SQL scans and exports"),
    Heading("Read", number=True, hint="bytes that were read"),
    Heading("Last read", number=True, hint="UTC"),
    Heading("Created", number=True, hint="UTC"),
)


def draw_page(facts: Facts) -> str:
    """The whole page, as one HTML document that needs nothing else."""
    style, script = _own("style.css"), _own("sort.js")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    head = join(
        [
            element("meta", http_equiv="Content-Security-Policy", content=f"{policy}; form-action 'none'"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", "Storagering: the catalog"),
            element("style", trusted(style)),
        ]
    )
    body = join([_header(facts), _overview(facts), _accesses(facts), _datasets(facts), _trainings(facts.trainings)])
    details = _details(facts)
    made = f"Made by {facts.software} from the catalog of {facts.cache.root}, {time_text(facts.made)} UTC."
    return "".join(
        (
            f'{MARK}">{head}</head>\n<body><main>{body}{details}</main>',
            element("footer", made, " Times are UTC; 1 kB is 1000 bytes."),
            element("script", trusted(script)),
            "</body></html>\n",
        )
    )


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(facts: Facts) -> Html:
    ring = element(
        "svg",
        element("circle", cx=20, cy=20, r=15, class_="pipe"),
        [element("circle", cx=x, cy=y, r=3.2, class_="bunch") for x, y in ((20, 5), (33, 27.5), (7, 27.5))],
        class_="ring",
        viewBox="0 0 40 40",
        aria_hidden="true",
    )
    name = element("p", ring, "Storagering", class_="brand")
    stored, raw = sum(d.nbytes for d in facts.datasets), sum(d.raw_bytes for d in facts.datasets)
    if not facts.datasets:
        return element("header", name, element("h1", "The cache is empty"), _no_datasets())
    many = len(facts.datasets) != 1
    title = f"{short_count(len(facts.datasets))} dataset{'s' if many else ''}, {bytes_text(raw)} of data"
    tiles = (
        ("entries", short_count(sum(d.entries for d in facts.datasets))),
        ("stored", bytes_text(stored)),
        ("smaller than raw", ratio_text(raw, stored)),
        ("chunks", short_count(sum(d.chunks for d in facts.datasets))),
        ("read so far", bytes_text(sum(d.read_bytes for d in facts.datasets))),
        ("trainings", short_count(facts.num_trainings)),
    )
    shown = [element("div", element("b", value), element("span", text)) for text, value in tiles]
    return element("header", name, element("h1", title), element("div", shown, class_="tiles"))


def _no_datasets() -> Html:
    return element("p", "Convert something: ", element("code", "storagering convert SOURCE... --name NAME"))


def _overview(facts: Facts) -> Html:
    largest = [(d.name, d.nbytes, d.raw_bytes) for d in facts.datasets[:_BARS]]
    legend = _legend((("stored", "stored"), ("raw", "decoded")))
    storage = element("section", element("h2", "Largest datasets"), draw_storage(largest), legend)
    return element("div", storage if largest else None, _cache(facts), class_="two")


def _legend(entries: Sequence[tuple[str, str]]) -> Html:
    return element("p", [element("span", element("i", class_=style), text) for style, text in entries], class_="legend")


def _cache(facts: Facts) -> Html:
    """What lies in the cache, tier by tier, and how much room is left."""
    cache = facts.cache
    used = next((nbytes for tier, _, nbytes, _ in facts.tiers if tier == "disk"), 0)
    limit = cache.quota or used + cache.free
    of = "the quota of" if cache.quota else "what the disk has room for,"
    parts: list[Child] = [
        element("h2", "Cache"),
        draw_meter([("stored", used)], limit),
        element("p", f"{bytes_text(used)} of chunks, {share_text(used, limit)} of {of} {bytes_text(limit)}."),
    ]
    if facts.tiers:
        headings = (
            Heading("Tier"),
            Heading("Chunks", number=True),
            Heading("Size", number=True),
            Heading("Uses", number=True),
        )
        rows = [
            (tier, Cell(count_text(n), n), Cell(bytes_text(size), size), Cell(count_text(uses), uses))
            for tier, n, size, uses in facts.tiers
        ]
        parts.append(draw_table(headings, rows))
    away = sum(d.nbytes - d.here_bytes for d in facts.datasets if d.here_bytes is not None)
    if away > 0:
        parts.append(element("p", f"{bytes_text(away)} are known but not on this disk; they come when they are read."))
    facts_of = (("Folder", cache.root), ("Free on the disk", bytes_text(cache.free)))
    parts.append(element("dl", [(element("dt", name), element("dd", text)) for name, text in facts_of]))
    return element("section", parts)


def _accesses(facts: Facts) -> Html:
    if not facts.accesses:
        text = "Nothing has been read yet: loaders, SQL and exports enter what they read."
        return element("section", element("h2", "Accesses"), element("p", text, class_="quiet"))
    sizes: dict[str, int] = {}
    for _, tier, nbytes in facts.accesses:
        sizes[tier] = sizes.get(tier, 0) + nbytes
    tiers = sorted(sizes, key=lambda tier: -sizes[tier])
    shown = [(f"t{number}", f"{tier or 'unknown'} {bytes_text(sizes[tier])}") for number, tier in enumerate(tiers[:4])]
    rest = sum(sizes[tier] for tier in tiers[4:])
    legend = _legend([*shown, ("t4", f"other {bytes_text(rest)}")] if rest else shown)
    reads = sum(d.reads for d in facts.datasets)
    who = f"{_many(facts.users, 'user')} on {_many(facts.hosts, 'host')}"
    what = f"bytes read per {_INTERVALS[facts.interval]}, by tier"
    text = f"{_many(reads, 'read')} (epochs, SQL, exports) by {who}; {what}."
    chart = draw_accesses(facts.accesses, facts.interval, tiers)
    return element("section", element("h2", "Accesses"), element("p", text, class_="quiet"), chart, legend)


_INTERVALS = {3600: "hour", 86_400: "day", 7 * 86_400: "week", 28 * 86_400: "four weeks"}


def _many(count: int, what: str) -> str:
    return f"{count_text(count)} {what}{'' if count == 1 else 's'}"


def _datasets(facts: Facts) -> Html | None:
    if not facts.datasets:
        return None
    told = {d.dataset.name: number for number, d in enumerate(facts.details)}
    rows = (_dataset_row(d, told.get(d.name)) for d in facts.datasets)
    field = element("input", type="search", placeholder="filter by name", aria_label="filter by name", hidden="")
    return element(
        "section",
        element("h2", "Datasets", field if len(facts.datasets) > _FILTERED else None),
        draw_table(_DATASETS, rows, style="datasets", sortable=True),
        id="datasets",
    )


def _dataset_row(d: DatasetFacts, number: int | None) -> list[Child | Cell]:
    name = d.name if number is None else element("a", d.name, href=f"#d{number}")
    here = None if d.here_bytes is None else share_text(d.here_bytes, d.nbytes)
    return [
        name,
        Cell(count_text(d.entries), d.entries),
        Cell(count_text(d.columns), d.columns),
        Cell(count_text(d.chunks), d.chunks),
        Cell(bytes_text(d.nbytes), d.nbytes),
        Cell(ratio_text(d.raw_bytes, d.nbytes), round(d.raw_bytes / max(d.nbytes, 1), 3)),
        Cell(here, d.here_bytes),
        Cell(count_text(d.reads), d.reads),
        Cell(bytes_text(d.read_bytes) if d.reads else "–", d.read_bytes),
        Cell(time_text(d.last_read), d.last_read or 0),
        Cell(time_text(d.created), d.created),
    ]


def _trainings(trainings: Sequence[TrainingFacts]) -> Html | None:
    if not trainings:
        return None
    headings = (
        Heading("When", hint="UTC"),
        Heading("Recipe"),
        Heading("Model"),
        Heading("Dataset"),
        Heading("Epochs", number=True),
        Heading("Time", number=True),
        Heading("Metrics"),
    )
    rows = [
        (
            time_text(t.time),
            t.recipe,
            t.model,
            t.dataset if t.version is None else f"{t.dataset}, version {t.version}",
            Cell(t.epochs, t.epochs),
            Cell(duration_text(t.seconds or 0), t.seconds),
            [element("span", name, element("b", value_text(value)), class_="metric") for name, value in t.metrics],
        )
        for t in trainings
    ]
    return element("section", element("h2", "Latest trainings"), draw_table(headings, rows))


def _details(facts: Facts) -> Html | None:
    if not facts.details:
        return None
    times = [begin for begin, _, _ in facts.accesses]
    span = (times[0], times[-1] + facts.interval) if times else (0, 1)
    shown = [draw_detail(d, f"d{n}", span, is_open=n < _OPEN) for n, d in enumerate(facts.details)]
    few = len(facts.details) < len(facts.datasets)
    text = f"The {len(facts.details)} that are read most or are largest; SQL tells of all." if few else None
    return element("section", element("h2", "In detail"), element("p", text, class_="quiet") if text else None, shown)
