"""``storagering catalog import-logs``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagering.cli.console import say, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.catalog.gridlogs.importing import ImportedFile

_KINDS = ("xrootd", "eos", "condor", "fts", "cmssw", "jobmonitoring", "wmarchive", "aso", "dbs", "phedex")
_TEXT = """\
Takes logs of the grid into the catalog: tables log_KIND; log_transfers, log_jobs, log_accesses and
log_replicas have what all kinds tell. The fields are those that CMS's systems write. Files are JSON (one
record, one a line, an array), Avro or CSV, each possibly packed, here or on a server. Importing a file again
does nothing. Records that cannot be taken are counted and shown with file and line; those of another kind
end the command."""
_EXAMPLES = """\
storagering catalog import-logs xrootd 'aaa-2024-*.json.gz'
storagering catalog import-logs phedex root://server//store/replicas.csv"""


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "take logs of data access, jobs, transfers and replicas into the catalog"
    parser = add_verb(actions, "import-logs", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("kind", metavar="KIND", help=", ".join(_KINDS))
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, patterns, @lists and URLs")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Import, and tell what became of each file."""
    from storagering.catalog.gridlogs.importing import import_logs
    from storagering.cli.progress import counting_bar
    from storagering.config import load_settings
    from storagering.formats.sources import resolve_sources

    settings = load_settings()
    files = [url for url, _ in resolve_sources(args.files, settings)]
    with counting_bar("importing", len(files)) as progress:
        found = import_logs(args.kind, files, settings=settings, progress=progress)
    for one in found:
        for problem in one.problems:
            say(f"storagering: warning: {problem}")
    if args.json:
        show_json(found)
    else:
        _show(found)
    return 0


def _show(found: tuple[ImportedFile, ...]) -> None:
    rows = [
        (one.log.source, f"{one.log.records:,}", f"{one.log.bad:,}", "there already" if one.known else "imported")
        for one in found
    ]
    show_table(("file", "records", "bad", "state"), rows, (False, True, True, False))
