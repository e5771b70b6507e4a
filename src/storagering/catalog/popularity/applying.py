"""What predictions are for: the order in which the cache evicts, and a list of what is worth having here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from storagering.cache.layout import Cache
from storagering.cache.ledger import set_popularity
from storagering.cache.space import disk_ledger
from storagering.catalog.gridlogs.names import dataset_of_lfn
from storagering.errors import StorageringError


@dataclass(frozen=True)
class Wanted:
    """A dataset that is worth having here.

    Attributes:
        score: what is expected of next week, from 0 to 1.
    """

    dataset: str
    score: float


def scores_of_cache(cache: Cache, scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of the datasets in the cache: by name, or by the datasets that their source files belong to."""
    found: dict[str, float] = {}
    for name in cache.names():
        known = [scores[one] for one in _stands_for(cache, name) if one in scores]
        if known:
            found[name] = max(known)
    return found


def apply_scores(cache: Cache, scores: Mapping[str, float]) -> dict[str, float]:
    """Write what is expected of the cache's datasets into its ledger, for the eviction policy ``popularity``.

    Those of which nothing is known are written as 0, so that no earlier score stays.

    Returns:
        The scores that were written.

    Raises:
        CacheError: the ledger cannot be written.
    """
    known = scores_of_cache(cache, scores)
    written = {name: known.get(name, 0.0) for name in cache.names()}
    with disk_ledger(cache).transaction() as database:
        set_popularity(database, written.items())
    return written


def worth_having(cache: Cache, scores: Mapping[str, float], number: int) -> list[Wanted]:
    """The datasets with the highest scores that are not in the cache, at most so many."""
    here = {one for name in cache.names() for one in _stands_for(cache, name)}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Wanted(name, score) for name, score in ranked if name not in here and score > 0][:number]


def _stands_for(cache: Cache, name: str) -> set[str]:
    """Names under which a dataset of the cache may be known elsewhere."""
    found = {name}
    with suppress(StorageringError):  # a manifest that cannot be read: 'verify' tells of it
        found |= {one for source in cache.manifest(name).sources if (one := dataset_of_lfn(source.url))}
    return found
