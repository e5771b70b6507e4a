from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storagering.errors import SpecError
from storagering.simulation.plots import draw_hit_ratios
from storagering.simulation.predicting import DriftPredictor, predict_scores
from storagering.simulation.reading import load_traces
from storagering.simulation.study import OPTIMUM, compare_policies
from storagering.simulation.trace import Trace


@pytest.mark.parametrize(("kind", "exact"), [("drift", True), ("mixture", False)])
def test_policies_side_by_side(tmp_path: Path, kind: str, exact: bool) -> None:
    traces = load_traces(kind, seeds=3, accesses=2000, items=200)
    done: list[int] = []
    points = compare_policies(traces, policies=["lru", "predictive"], shares=[0.1, 0.3], progress=done.append)
    assert [(point.policy, point.share) for point in points] == [
        (policy, share) for share in (0.1, 0.3) for policy in ("lru", "predictive", OPTIMUM)
    ]
    assert done == [1, 2, 3, 4, 5, 6]
    by_policy = {(point.policy, point.share): point for point in points}
    for share in (0.1, 0.3):
        lru, optimum = by_policy["lru", share], by_policy[OPTIMUM, share]
        assert 0 < lru.hit_ratio.low <= lru.hit_ratio.mean <= lru.hit_ratio.high < optimum.hit_ratio.mean <= 1
        assert lru.hit_ratio.std > 0
        assert (optimum.exact, lru.exact, lru.traces) == (exact, True, 3)
    assert by_policy["lru", 0.1].hit_ratio.mean < by_policy["lru", 0.3].hit_ratio.mean
    pytest.importorskip("matplotlib")
    path = tmp_path / "hits.png"
    draw_hit_ratios(path, points, title=kind)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    traces = load_traces("drift", seeds=1, accesses=100, items=20)
    with pytest.raises(SpecError, match="nothing to replay"):
        compare_policies([])
    with pytest.raises(SpecError, match="give shares above 0"):
        compare_policies(traces, shares=[0.1, 0.0])
    points = compare_policies(traces, policies=["lru"], shares=[0.1])
    with pytest.raises(SpecError, match=r"the name of a \.png file"):
        draw_hit_ratios(tmp_path / "hits.pdf", points, title="")


def test_a_predictor_learns_how_fast_things_drift() -> None:
    random = np.random.default_rng(0)
    steady = DriftPredictor(50)
    rates = random.exponential(20, 50)
    for _ in range(40):
        steady.update(random.poisson(rates))
    assert np.abs(steady.predict() - rates).mean() < 2
    assert steady.half_life > 4
    drifting = DriftPredictor(50)
    for period in range(60):
        drifting.update(1000.0 * (np.arange(50) == period // 3))
    assert drifting.half_life < 4
    assert int(np.argmax(drifting.predict())) == 19


def test_scores_know_only_the_past() -> None:
    items = np.repeat([0, 1], 50)
    trace = Trace(np.arange(100), items, np.ones(2), np.arange(2), np.zeros(100))
    scores = predict_scores(trace, period_seconds=10)
    assert scores.times.tolist() == [10.0 * n for n in range(1, 10)]
    assert (scores.values[:5, 1] == 0).all()
    assert scores.values[0, 0] == 10
    assert scores.values[-1, 1] > scores.values[-1, 0]
    with pytest.raises(SpecError, match="period"):
        predict_scores(trace, period_seconds=0)
