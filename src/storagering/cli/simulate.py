"""``storagering simulate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storagering.cli.console import format_bytes, say, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.simulation.study import Point, Spread

_TEXT = "Nothing in the cache is read or changed."
_EXAMPLES = """\
storagering simulate caches --trace drift --plot drift.png
storagering simulate sites --strategies none reactive predictive"""
_CACHES = """\
Replays accesses through caches of several sizes under several policies, beside the optimum: what no cache can
do better than, even one that knows the future. With chunks of one size Belady's rule finds it; with others it
is a bound, that nobody need reach. 'belady' is his rule itself, which knows the future, too.

Traces are made up by seed: zipf (always the same popularity), drift (popularity changes), epochs (trainings
read datasets again and again), mixture (both, and scans), tiers (a year of files at five sites); or those of
the catalog's table accesses ('accesses'); or those of a CSV or Parquet file with the columns time, item and
size, and, where there are any, dataset and site."""
_CACHES_EXAMPLES = """\
storagering simulate caches --trace drift --seeds 5 --plot drift.png
storagering simulate caches --trace accesses --policies lru lfu predictive
storagering simulate caches --trace reads.parquet --sizes 5 10 20 --json"""

_SITES = """\
Simulates jobs at sites with caches, CPUs and links, event by event, under several strategies of placement: none
(nothing is kept), reactive (what was read is kept), popular (what was used most the day before is brought to all
sites) and predictive (what is expected to be used, as 'storagering catalog place' proposes). The sites, files and
jobs are made up by seed. Bytes sent are checked against bytes received, and every job ends once."""
_SITES_EXAMPLES = """\
storagering simulate sites --seeds 5
storagering simulate sites --strategies reactive predictive --jobs 5000 --json"""


def add_to(verbs: Verbs) -> None:
    """Add the family."""
    summary = "try cache policies and placement on a trace"
    parser = add_verb(verbs, "simulate", run_caches, summary=summary, examples=_EXAMPLES, text=_TEXT)
    actions = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_caches(actions)
    _add_sites(actions)


def _add_caches(actions: Verbs) -> None:
    summary = "compare cache policies with each other and with the optimum"
    parser = add_verb(actions, "caches", run_caches, summary=summary, examples=_CACHES_EXAMPLES, text=_CACHES)
    text = "a kind, 'accesses' or a file (default: drift)"
    parser.add_argument("--trace", default="drift", metavar="TRACE", help=text)
    text = "policies (default: all)"
    parser.add_argument("--policies", nargs="+", metavar="POLICY", help=text)
    text = "sizes of the cache, in percent of the bytes of all that is accessed (default: 1 2 5 10 20 40)"
    parser.add_argument("--sizes", nargs="+", type=float, metavar="PERCENT", help=text)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="made-up traces (default: 5)")
    text = "length of a made-up trace (default: 200,000)"
    parser.add_argument("--accesses", type=int, default=200_000, metavar="N", help=text)
    text = "chunks that it reads from (default: 10,000)"
    parser.add_argument("--items", type=int, default=10_000, metavar="N", help=text)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw hit ratio against cache size into a PNG")
    parser.add_json()


def _add_sites(actions: Verbs) -> None:
    summary = "compare strategies of placement"
    parser = add_verb(actions, "sites", run_sites, summary=summary, examples=_SITES_EXAMPLES, text=_SITES)
    parser.add_argument("--strategies", nargs="+", metavar="STRATEGY", help="strategies (default: all)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="made-up worlds (default: 5)")
    parser.add_argument("--jobs", type=int, default=2000, metavar="N", help="jobs (default: 2,000)")
    parser.add_argument("--datasets", type=int, default=200, metavar="N", help="datasets (default: 200)")
    parser.add_argument("--sites", type=int, default=4, metavar="N", help="sites (default: 4)")
    parser.add_argument("--days", type=float, default=14.0, metavar="N", help="days that they arrive in (default: 14)")
    text = "the largest cache, in percent of all files (default: 10)"
    parser.add_argument("--cache", type=float, default=10.0, metavar="PERCENT", help=text)
    parser.add_json()


def run_sites(args: argparse.Namespace) -> int:
    """Compare strategies."""
    from storagering.cli.progress import counting_bar
    from storagering.simulation.strategies import STRATEGIES
    from storagering.simulation.study import compare_strategies
    from storagering.simulation.world import make_worlds

    strategies = args.strategies or STRATEGIES
    sizes = {"jobs": args.jobs, "datasets": args.datasets, "sites": args.sites, "days": args.days}
    worlds = make_worlds(args.seeds, **sizes, cache_share=args.cache / 100)
    with counting_bar("simulating", len(worlds) * len(strategies)) as progress:
        summaries = compare_strategies(worlds, strategies, progress)
    if args.json:
        show_json(summaries)
        return 0
    rows = [
        (
            one.strategy,
            f"{one.mean_wait.mean:,.0f} ± {one.mean_wait.std:,.0f}",
            _percent(one.hit_ratio),
            *(f"{format_bytes(b.mean)} ± {format_bytes(b.std)}" for b in (one.traffic, one.origin_traffic, one.placed)),
        )
        for one in summaries
    ]
    headers = ("strategy", "mean wait (s)", "files found here", "traffic", "from the origin", "for placement")
    show_table(headers, rows, (False, True, True, True, True, True))
    say(f"mean ± standard deviation of {len(worlds)} world(s)")
    return 0


def run_caches(args: argparse.Namespace) -> int:
    """Compare policies."""
    from storagering.cli.progress import counting_bar
    from storagering.simulation.plots import draw_hit_ratios
    from storagering.simulation.policies import POLICIES
    from storagering.simulation.reading import load_traces
    from storagering.simulation.study import SHARES, compare_policies

    traces = load_traces(args.trace, seeds=args.seeds, accesses=args.accesses, items=args.items)
    shares = [percent / 100 for percent in args.sizes or ()] or list(SHARES)
    with counting_bar("replaying", len(traces) * len(shares)) as progress:
        points = compare_policies(traces, policies=args.policies or POLICIES, shares=shares, progress=progress)
    if args.plot:
        draw_hit_ratios(args.plot, points, title=Path(args.trace).name)
        say(f"drew {args.plot}")
    if args.json:
        show_json({"trace": args.trace, "accesses": [len(trace) for trace in traces], "points": points})
    else:
        _show_points(points)
    return 0


def _show_points(points: Sequence[Point]) -> None:
    rows = [
        (
            f"{100 * point.share:g} %",
            format_bytes(point.capacity),
            point.policy if point.exact else f"{point.policy} (at most)",
            _percent(point.hit_ratio),
            _percent(point.byte_hit_ratio),
        )
        for point in points
    ]
    show_table(("size", "bytes", "policy", "hits", "hits by bytes"), rows, (True, True, False, True, True))
    say(f"mean ± standard deviation of {max(point.traces for point in points)} trace(s)")


def _percent(spread: Spread) -> str:
    return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f} %"
