"""All kinds of logs that can be imported."""

from __future__ import annotations

from storagering.catalog.gridlogs.jobs import CONDOR, JOBMONITORING, WMARCHIVE
from storagering.catalog.gridlogs.kinds import Kind
from storagering.catalog.gridlogs.storage import DBS, PHEDEX
from storagering.catalog.gridlogs.transfers import ASO, CMSSW, EOS, FTS, XROOTD
from storagering.errors import SpecError, nearest_names

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (XROOTD, EOS, CONDOR, FTS, CMSSW, JOBMONITORING, WMARCHIVE, ASO, DBS, PHEDEX)
}


def find_kind(name: str) -> Kind:
    """The kind of that name.

    Raises:
        SpecError: there is none; names the nearest.
    """
    if name not in KINDS:
        raise SpecError(f"no kind of log {name!r}{nearest_names(name, KINDS)}")
    return KINDS[name]
