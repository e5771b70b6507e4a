"""The second pass of a mixed build: piles become shares, which workers put in order, as `mixing` tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec

from storagering.cache.build_space import BuildSpace
from storagering.cache.deals import DEAL_CHUNKS, Tally, tally_piles
from storagering.cache.finished import MIX_KEY, FinishedTasks, key_context
from storagering.cache.messages import BuildContext, Deal, Mixing, Share, Task
from storagering.cache.opened import KeptSource
from storagering.cache.pool import run_tasks
from storagering.cache.progress import BuildProgress
from storagering.cache.publish import Outcome
from storagering.cache.run import Run
from storagering.errors import ChecksumError

#: A pile that is larger than so many shares is mixed in parts, each of which reads all of it.
_LARGE = 2


def mix_outcome(outcome: Outcome, first_source: int, space: BuildSpace, progress: BuildProgress) -> Outcome:
    """The outcome of a build that dealt its entries, with chunks of mixed entries in place of what was dealt.

    Args:
        first_source: number in the manifest of the first good source.

    Raises:
        StorageringError: whatever reading or writing raises; finished shares are kept for the next time.
    """
    numbers = outcome.numbers(first_source)
    context = replace(outcome.context, sources=tuple(outcome.context.sources[number] for number in numbers))
    assert context.mixing is not None  # noqa: S101  (or else nothing was dealt)
    deals = [
        Deal(item.chunk.file, item.chunk.nbytes, tuple(dict.fromkeys(numbers[s.source] for s in item.chunk.spans)))
        for item in outcome.built
    ]
    mixing = Mixing(context.mixing.bits, tuple(deals), first_source)
    context = replace(context, mixing=mixing, locations=())
    tally = tally_piles(Path(context.staging), deals, mixing.bits)
    shares = list(_cut_shares(tally, DEAL_CHUNKS * context.spec.chunk_bytes))
    tasks = _key_shares(context, [item.chunk.digest for item in outcome.built], shares)
    FinishedTasks(Path(context.staging)).keep_only(tasks, mixing=True)
    run = Run(context, tasks, progress, space)
    total = sum(item.chunk.num_entries for item in outcome.built)
    progress.tell(f"mixing {total:,} entries in {len(tasks):,} part(s)")
    progress.start(sum(task.entries for task in run.todo))
    run_tasks(context, run, context.settings.workers, KeptSource())
    built = tuple(chunk for task in tasks for chunk in run.built[task.number])
    if (mixed := sum(item.chunk.num_entries for item in built)) != total:
        raise ChecksumError(f"{context.staging}: {total:,} entries were dealt, and {mixed:,} came out; begin again")
    return replace(outcome, built=built, sketches=run.sketches.total())


def _cut_shares(tally: Tally, limit_bytes: int) -> Iterator[Share]:
    """Neighbouring piles that are no larger than that together, and parts of those that are much larger."""
    piles = list(zip(tally.entries.tolist(), tally.nbytes.tolist(), strict=True))
    first = entries = size = 0
    for number, (own, nbytes) in enumerate([*piles, (0, limit_bytes)]):
        if entries and size + nbytes > limit_bytes:
            parts = -(-size // limit_bytes) if size > _LARGE * limit_bytes else 1
            for part in range(parts):
                some = entries * (part + 1) // parts - entries * part // parts
                yield Share((first, number - 1), (part, parts), some)
            entries = size = 0
        if not entries:
            first = number
        entries, size = entries + own, size + nbytes


def _key_shares(context: BuildContext, digests: Sequence[str], shares: Sequence[Share]) -> list[Task]:
    """One task for each share; its key is a hash of all that was dealt, and of how that is mixed."""
    assert context.mixing is not None  # noqa: S101  (see above)
    urls = [source.url for source in context.sources]
    numbers = [deal.sources for deal in context.mixing.deals]
    what = digests, numbers, context.mixing.first_source, urls
    common = sha256(key_context(context) + msgspec.json.encode(what)).digest()

    def key(share: Share) -> str:
        return MIX_KEY + sha256(common + msgspec.json.encode(share)).hexdigest()[:24]

    return [Task(number, (), key(share), share) for number, share in enumerate(shares)]
