"""How well next week's accesses are predicted: of real CMS datasets, and on a made-up trace of five tiers."""

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sklearn
import xgboost

from storagering.catalog.popularity.features import Question
from storagering.catalog.popularity.models import MODELS
from storagering.catalog.popularity.rolling import roll
from storagering.catalog.popularity.table import Line, make_table
from storagering.catalog.popularity.weeks import WeeklyAccesses, read_csv
from storagering.config import load_settings
from storagering.testing.gridlogs.weekly import make_weekly_accesses
from storagering.testing.machine import describe_machine


def until(data: WeeklyAccesses, week: int) -> WeeklyAccesses:
    return replace(data, counts=data.counts[:, : week - data.first_week + 1])


def judge(data: WeeklyAccesses, weeks: int, seeds: int) -> dict[str, Any]:
    """The table of each seed of the models; the seed changes nothing of persistence."""
    begin = time.process_time()
    tables = [make_table(roll(data, weeks=weeks, seed=seed)) for seed in range(seeds)]
    last = data.first_week + data.num_weeks - 1
    return {
        "predicted_weeks": [last - weeks + 1, last],
        "asked": sum(counts(line) for line in tables[0] if line.model == MODELS[0] and line.tier == tables[0][-1].tier),
        "cpu_seconds_per_seed": round((time.process_time() - begin) / seeds, 1),
        "lines": [combine([table[n] for table in tables]) for n in range(len(tables[0]))],
    }


def counts(line: Line) -> int:
    return line.true_positives + line.false_positives + line.true_negatives + line.false_negatives


def combine(lines: list[Line]) -> dict[str, Any]:
    """The first seed's line, with the mean and the spread of the balanced accuracy over the seeds."""
    found = [line.balanced_accuracy.value for line in lines]
    gains = [line.gain.value for line in lines]
    line = json.loads(json.dumps(asdict(lines[0])).replace("NaN", "null"))
    line["balanced_accuracy_of_seeds"] = {"mean": statistics.mean(found), "spread": statistics.pstdev(found)}
    if not math.isnan(gains[0]):
        line["gain_of_seeds"] = {"mean": statistics.mean(gains), "spread": statistics.pstdev(gains)}
    return line


def show(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: weeks {found['predicted_weeks']}, {found['asked']:,} predictions")
    for line in found["lines"]:
        shown = " ".join(
            f"{key} {line[key]['value']:.3f} ± {line[key]['weekly']:.3f}"
            for key in ("tpr", "tnr", "balanced_accuracy", "gain")
            if line[key]["value"] is not None
        )
        print(f"  {line['tier']:12} {line['model']:12} {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="weekly accesses: dataset, week, naccess")
    parser.add_argument("--settled", type=int, default=68, help="the models were chosen on weeks up to this one")
    parser.add_argument("--weeks", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    data = read_csv(args.csv, load_settings())
    question = Question()
    results: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": {"scikit-learn": sklearn.__version__, "xgboost": xgboost.__version__},
        "question": asdict(question),
        "errors": "weekly: jackknife over the predicted weeks; binomial: of independent datasets",
        "real_weeks_that_chose_the_models": judge(until(data, args.settled), args.weeks, 1),
        "real_weeks_after": judge(data, args.weeks, args.seeds),
        "five_tiers": {
            f"seed_{seed}": judge(make_weekly_accesses(seed=seed), args.weeks, 1) for seed in range(args.seeds)
        },
    }
    for name in ("real_weeks_that_chose_the_models", "real_weeks_after"):
        show(name, results[name])
    for name, found in results["five_tiers"].items():
        show(f"five tiers, {name}", found)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
