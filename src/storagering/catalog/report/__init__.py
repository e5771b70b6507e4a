"""A picture of the whole catalog: one HTML page that needs no server, no network and no other file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import software
from storagering.catalog.index import use_catalog
from storagering.catalog.report.facts import CacheFacts, Facts
from storagering.catalog.report.gather import gather_facts
from storagering.catalog.report.page import MARK, draw_page
from storagering.config import Settings, load_settings, parse_quota
from storagering.files import free_bytes
from storagering.formats.writers.output import check_output, hidden_output

#: Datasets that are told of at length if the caller does not say how many.
DETAILS = 40


@dataclass(frozen=True, slots=True)
class Report:
    """What `write_report` has written.

    Attributes:
        out: absolute path of the page.
        nbytes: its size.
        datasets: number of datasets in its table.
        details: number of those that are told of at length.
    """

    out: Path
    nbytes: int
    datasets: int
    details: int


def write_report(
    path: str | Path, *, details: int = DETAILS, force: bool = False, settings: Settings | None = None
) -> Report:
    """Write what the catalog knows as one HTML page: datasets, sizes, distributions, accesses, cache, trainings.

    Nothing in it comes from elsewhere or runs but its own script, which a content security policy enforces; it names
    no users. It appears complete or not at all.

    Args:
        path: of the page; an earlier report there is replaced.
        details: number of datasets that are told of at length: those that are read most, and the largest.
        force: replace whatever file is there.

    Raises:
        OutputError: another file is there and ``force`` is not given, or the disk refuses.
        NotFoundError: there is no such folder.
        CacheError: the catalog cannot be read.
    """
    settings = settings or load_settings()
    replace = force or _is_report(Path(path).expanduser())
    out = check_output(path, force=replace)
    facts = _read(open_cache(settings), details)
    page = draw_page(facts).encode()
    with hidden_output(out, force=replace) as hidden:
        hidden.write_bytes(page)
    return Report(out, len(page), len(facts.datasets), len(facts.details))


def _read(cache: Cache, details: int) -> Facts:
    room = CacheFacts(str(cache.root), parse_quota(cache.settings.quota, cache.root), free_bytes(cache.root))

    def gather(connection: duckdb.DuckDBPyConnection) -> Facts:
        return gather_facts(connection, room, made=time.time(), software=software(), details=details)

    return use_catalog(cache, gather)


def _is_report(path: Path) -> bool:
    """Whether a file is a report of ours."""
    mark = MARK.encode()
    if not path.is_file():  # nothing waits for the other end of a pipe
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False
