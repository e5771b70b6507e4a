"""Made-up weekly accesses to datasets of five data tiers, one of which appears halfway and is read in another way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from storagering.catalog.popularity.weeks import WeeklyAccesses
from storagering.errors import InputError
from storagering.types import Array

NEW_TIER = "MINIAOD"
#: Of an established tier: the chance that a dataset in use is so in the next week, and that an unused one comes into
#: use. Campaigns last for months.
_TIERS: Mapping[str, tuple[float, float]] = {
    "AOD": (0.975, 0.004),
    "AODSIM": (0.970, 0.006),
    "MINIAODSIM": (0.975, 0.006),
    "USER": (0.960, 0.008),
}
#: A dataset of the new tier is popular in any week with this chance, whatever it was before.
_BURSTS = 0.08
_LEAST_WEEKS = 10


def make_weekly_accesses(*, seed: int, weeks: int = 80, per_tier: int = 60) -> WeeklyAccesses:
    """Accesses by week: established tiers are used for months on end, the new one in single weeks.

    Args:
        weeks: `NEW_TIER` appears after half of them.
        per_tier: datasets of each tier.

    Raises:
        InputError: a number is too small.
    """
    if weeks < _LEAST_WEEKS or per_tier < 1:
        raise InputError(f"{weeks} weeks, {per_tier} datasets a tier: at least {_LEAST_WEEKS} and 1 are needed")
    rng = np.random.default_rng(seed)
    names, tiers, counts = [], [], []
    for tier in sorted((*_TIERS, NEW_TIER)):
        names += [f"/Primary{number}/Era-v1/{tier}" for number in range(per_tier)]
        tiers += [tier] * per_tier
        counts.append(_bursts(rng, per_tier, weeks) if tier == NEW_TIER else _campaigns(rng, tier, per_tier, weeks))
    return WeeklyAccesses(tuple(names), tuple(tiers), np.concatenate(counts))


def _campaigns(rng: np.random.Generator, tier: str, datasets: int, weeks: int) -> Array:
    stays, comes = _TIERS[tier]
    used = rng.random(datasets) < comes / (comes + 1 - stays)
    found = np.zeros((datasets, weeks))
    for week in range(weeks):
        many = np.round(rng.lognormal(np.log(200), 0.8, datasets))
        few = rng.poisson(0.3, datasets)
        found[:, week] = np.where(used, many, few)
        used = rng.random(datasets) < np.where(used, stays, comes)
    return found


def _bursts(rng: np.random.Generator, datasets: int, weeks: int) -> Array:
    many = np.round(rng.lognormal(np.log(100), 1.0, (datasets, weeks))) + 10
    few = rng.poisson(0.5, (datasets, weeks))
    found: Array = np.where(rng.random((datasets, weeks)) < _BURSTS, many, few).astype(np.float64)
    found[:, : weeks // 2] = 0
    return found
