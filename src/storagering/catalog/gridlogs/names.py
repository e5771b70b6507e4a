"""Datasets, data tiers and sites as CMS names them."""

from __future__ import annotations

import re

#: /store/mc/ERA/PRIMARY/TIER/PROCESSING/...: official data; era and processing make the second name of a dataset.
_OFFICIAL = re.compile(
    r"/store/(?:mc|data|hidata|himc|relval|generator|results|unmerged|backfill/\d+|t0streamer/Data)/"
    r"(?P<era>[^/]+)/(?P<primary>[^/]+)/(?P<tier>[A-Z][A-Z0-9-]*)/(?P<processing>[^/]+)/"
)
#: /store/user/NAME/PRIMARY/TASK/TIME/...: what CRAB writes for a user or group.
_USER = re.compile(r"/store/(?:user|group|temp/user)/(?P<owner>[^/]+)/(?P<primary>[^/]+)/(?P<task>[^/]+)/[^/]+/")
#: A dataset, or a block of it (``/PRIMARY/ERA-PROCESSING/TIER#...``).
_DATASET = re.compile(r"(?P<name>/[^/#\s]+/[^/#\s]+/(?P<tier>[A-Z][A-Z0-9-]*))(#.*)?")
#: A site's storages are one site for its jobs.
_STORAGE = re.compile(r"_(Disk|MSS|Buffer|Export|Tape|Test|Temp|Ceph)$")


def short_lfn(name: str) -> str:
    """A logical file name without what a site or server puts before ``/store/``, or a query behind."""
    at = name.find("/store/")
    return name[at:].partition("?")[0] if at >= 0 else name


def dataset_of_lfn(name: str) -> str | None:
    """The dataset that a file belongs to, as DBS names it; None if the name does not tell."""
    lfn = short_lfn(name)
    if found := _OFFICIAL.match(lfn):
        return f"/{found['primary']}/{found['era']}-{found['processing']}/{found['tier']}"
    if found := _USER.match(lfn):
        return f"/{found['primary']}/{found['owner']}-{found['task']}/USER"
    return None


def dataset_of_block(name: str) -> str | None:
    """The dataset of a block or dataset name; None if it is neither."""
    found = _DATASET.fullmatch(name)
    return found["name"] if found else None


def tier_of_dataset(name: str) -> str:
    """``AOD``, ``MINIAODSIM``, ...; '' if the name does not tell."""
    found = _DATASET.fullmatch(name)
    return found["tier"] if found else ""


def site_of_storage(name: str) -> str:
    """``T1_US_FNAL`` of ``T1_US_FNAL_Disk``; other names as they are."""
    return _STORAGE.sub("", name)
