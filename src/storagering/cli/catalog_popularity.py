"""``storagering catalog popularity``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from storagering.cli.console import say, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.cache.layout import Cache
    from storagering.catalog.popularity.forecast import Forecast
    from storagering.catalog.popularity.table import Line, Rate
    from storagering.catalog.popularity.weeks import WeeklyAccesses
    from storagering.config import Settings

_TEXT = """\
Learns from the accesses of past weeks which datasets will be popular (read at least --accesses times) in
the next one. Accesses are what loaders and queries of this cache wrote down, or with --logs those of imported
grid logs, or with --csv those of a table with columns dataset, week, naccess, and tier if it has one.

Persistence (next week is as this one), a random forest, a linear model (SGD) and XGBoost predict each of the
last --weeks weeks from the weeks before it; each threshold is the best for twelve weeks before. For each data
tier the table gives the shares of popular and other datasets that were recognised (TPR, TNR), false alarms
(FP) and misses (FN). Errors are those from week to week (jackknife); --json has the binomial ones, too."""
_EXAMPLES = """\
storagering catalog popularity --csv weekly.csv.gz
storagering catalog popularity --logs xrootd --apply
storagering catalog popularity --weeks 0 --prefetch 20 > wanted.txt"""


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "predict which datasets will be read next week"
    parser = add_verb(actions, "popularity", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--csv", metavar="FILE", help="take the accesses from a table: a path or URL")
    text = "take them from imported logs, of the kind with most accesses unless one is named"
    source.add_argument("--logs", nargs="?", const="", metavar="KIND", help=text)
    text = "a dataset is popular with so many accesses in a week (default: 10)"
    parser.add_argument("--accesses", type=int, default=10, metavar="N", help=text)
    text = "judge the models on so many weeks, 0 for none (default: 20)"
    parser.add_argument("--weeks", type=int, default=20, metavar="N", help=text)
    text = "only datasets that were read within so many weeks (default: 26)"
    parser.add_argument("--window", type=int, default=26, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the models (default: 0)")
    text = "write what is expected into the cache's ledger, for the eviction policy 'popularity'"
    parser.add_argument("--apply", action="store_true", help=text)
    text = "list so many datasets that are worth having here and are not, the best first"
    parser.add_argument("--prefetch", type=int, metavar="N", help=text)
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Judge, predict, and use what is predicted."""
    from storagering.cache.layout import open_cache
    from storagering.catalog.popularity.applying import apply_scores, worth_having
    from storagering.catalog.popularity.features import Question
    from storagering.catalog.popularity.forecast import forecast
    from storagering.catalog.popularity.rolling import rolled_weeks
    from storagering.cli.progress import counting_bar
    from storagering.config import load_settings

    settings = load_settings()
    cache = open_cache(settings)
    data = _accesses(args, cache, settings)
    with counting_bar("weeks", rolled_weeks(args.weeks) if args.weeks else 0) as progress:
        found = forecast(
            data,
            question=Question(args.accesses, args.window),
            weeks=args.weeks,
            seed=args.seed,
            threads=settings.threads,
            progress=progress,
        )
    wanted = worth_having(cache, found.scores, args.prefetch) if args.prefetch is not None else None
    if args.apply:
        written = apply_scores(cache, found.scores)
        say(f"wrote the popularity of {len(written):,} dataset(s), {sum(map(bool, written.values())):,} of them known")
    if args.json:
        show_json(asdict(found) | {"prefetch": wanted})
        return 0
    _show(found, err=wanted is not None)
    for one in wanted or ():
        print(one.dataset)
    return 0


def _accesses(args: argparse.Namespace, cache: Cache, settings: Settings) -> WeeklyAccesses:
    from storagering.catalog.popularity import weeks

    if args.csv:
        return weeks.read_csv(args.csv, settings)
    if args.logs is not None:
        return weeks.read_logs(cache, args.logs or None)
    return weeks.read_accesses(settings)


def _show(found: Forecast, *, err: bool) -> None:
    """The table, on stderr where stdout has a list for other programs."""
    if found.table:
        headers = ("tier", "model", "TPR", "TNR", "FP", "FN", "balanced accuracy", "over persistence")
        numeric = (False, False, True, True, True, True, True, True)
        show_table(headers, map(_cells, found.table), numeric, err=err)
    say(f"week {found.week}: {found.model} has scores for {len(found.scores):,} datasets")


def _cells(line: Line) -> tuple[str, ...]:
    return (
        line.tier,
        line.model,
        _with_error(line.tpr),
        _with_error(line.tnr),
        f"{line.false_positives:,}",
        f"{line.false_negatives:,}",
        _with_error(line.balanced_accuracy),
        _with_error(line.gain, sign="+"),
    )


def _with_error(rate: Rate, sign: str = "") -> str:
    if math.isnan(rate.value):
        return ""
    return f"{rate.value:{sign}.3f}" + ("" if math.isnan(rate.weekly) else f" ± {rate.weekly:.3f}")
