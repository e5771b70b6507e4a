"""What a plan says about the order of entries, written out number by number."""

from itertools import accumulate, pairwise

import numpy as np

from storagering.loaders.plan import EpochPlan, Share
from storagering.types import Array


def entries_of(plan: EpochPlan, share: Share) -> list[Array]:
    """The entries of each batch of a share, numbered unit after unit; -1 is padding."""
    starts = list(accumulate(plan.entries, initial=0))
    places = [np.arange(starts[p.unit] + p.start, starts[p.unit] + p.stop) for p in share.pieces]
    numbers = np.concatenate([*places, [-1]])  # the last one is what -1 points to
    return [numbers[share.sources[a:b]] for a, b in pairwise(share.bounds)]


def batches_of(plan: EpochPlan, rank: int = 0, world_size: int = 1) -> list[Array]:
    """The entries of each of a rank's batches."""
    if plan.shuffle == "exact":
        return [plan.exact(step, rank, world_size) for step in range(plan.num_steps)]
    shares = [plan.share(window, rank, world_size) for window in range(plan.num_windows)]
    return [batch for share in shares for batch in entries_of(plan, share)]


def sequence_of(plan: EpochPlan) -> list[int]:
    """All entries in the order of use."""
    return [int(n) for batch in batches_of(plan) for n in batch]
