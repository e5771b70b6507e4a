"""``storagering catalog``."""

from __future__ import annotations

import argparse

from storagering.cli import (
    catalog_import_logs,
    catalog_index,
    catalog_insights,
    catalog_place,
    catalog_popularity,
    catalog_report,
)
from storagering.cli.console import say
from storagering.cli.parsing import Verbs, add_verb

_VERBS = (catalog_import_logs, catalog_index, catalog_insights, catalog_place, catalog_popularity, catalog_report)
_EXAMPLES = "storagering catalog rebuild"
_TEXT = """\
The catalog is an index of the datasets' manifests for SQL. It follows them by itself and may be
deleted at any time."""


def add_to(verbs: Verbs) -> None:
    """Add the family."""
    summary = "look after the catalog"
    parser = add_verb(verbs, "catalog", run_rebuild, summary=summary, examples=_EXAMPLES, text=_TEXT)
    actions = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    summary = "make the catalog anew from the manifests"
    add_verb(actions, "rebuild", run_rebuild, summary=summary, examples=_EXAMPLES, text=_TEXT)
    for module in _VERBS:
        module.add_to(actions)


def run_rebuild(_args: argparse.Namespace) -> int:
    """Rebuild the catalog."""
    from storagering.cache.layout import open_cache
    from storagering.catalog.index import rebuild_catalog
    from storagering.config import load_settings

    entered = rebuild_catalog(open_cache(load_settings()))["manifests"]
    say(f"the catalog was made anew: {entered:,} dataset(s)")
    return 0
