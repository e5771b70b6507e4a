from pathlib import Path

import numpy as np
import pytest
from tests.extras import needs

from storagering.training.metrics import compute_roc

pytestmark = needs("matplotlib")


@pytest.mark.parametrize("separation", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("jets", [1, 500])
def test_a_png_appears_for_every_quality_of_separation(tmp_path: Path, separation: float, jets: int) -> None:
    from storagering.training.plots import draw_roc

    random = np.random.default_rng(0)
    truth = np.repeat([1, 0], jets)
    curves = {name: compute_roc(random.normal(separation * truth, 1), truth) for name in ("network", "baseline")}
    path = tmp_path / "roc.png"
    draw_roc(path, curves, title="toys", signal="top", background="qcd")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 10_000
    assert list(tmp_path.iterdir()) == [path]
