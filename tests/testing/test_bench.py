"""The benchmarks run on small data and say what they promise; how fast it was is not judged."""

from pathlib import Path

import numpy as np
import pytest
import uproot

from storagering.testing.bench import bench_convert
from storagering.testing.workloads import FLAT_FEATURES, MAX_PARTICLES, make_workload


@pytest.mark.parametrize("name", ["flat", "jagged"])
def test_workloads_hold_one_class_a_file(name: str, tmp_path: Path) -> None:
    workload = make_workload(name, tmp_path, 501)
    trees = [uproot.open({path: "events"}) for path in workload.files]
    assert [tree.num_entries for tree in trees] == [250, 251]
    assert [set(tree["label"].array().tolist()) for tree in trees] == [{0}, {1}]
    if name == "flat":
        assert {f"{tree[n].array().type.content}" for tree in trees for n in FLAT_FEATURES} == {"float32"}
    else:
        counts = np.concatenate([tree["npart"].array(library="np") for tree in trees])
        assert counts.min() >= 10
        assert counts.max() <= MAX_PARTICLES


@pytest.mark.slow
def test_conversion_benchmark() -> None:
    figures = bench_convert(entries=20_000)
    for work in figures["workloads"].values():
        assert all(rate > 0 for rate in work["mb_per_second"].values())
        assert work["mb_on_disk"]["storagering, small"] < work["mb_on_disk"]["ROOT, zstd"]
