"""Quantiles and histograms against NumPy, within the error that is promised."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storagering.api import append, convert
from storagering.cache.dataset import open_dataset
from storagering.cache.quantiles import Spread, column_sketch_rows, find_distributions
from storagering.cache.sketches import sketch_batch
from storagering.cache.statistics import describe_batch
from storagering.distributions import MOST_BINS, PROBABILITIES, Distribution
from storagering.errors import ChecksumError, SchemaError, SpecError
from storagering.testing.contracts import REAL, make_batch, sample_numbers
from storagering.testing.toys import write_toy_tree
from storagering.types import Array

ERROR = 2**-7


def look(numbers: Array) -> tuple[Spread, Distribution]:
    batch = make_batch({"x": numbers})
    (statistics,) = describe_batch(batch)
    assert statistics is not None
    assert statistics.min is not None
    assert statistics.max is not None
    sketches = sketch_batch(batch)
    (found,) = find_distributions(batch.schema, (statistics,), sketches)
    assert found is not None
    integral = numbers.dtype.kind in "biu"
    return Spread(sketches.of(0), statistics.min, statistics.max, integral=integral), found


def check_quantiles(numbers: Array, spread: Spread, probabilities: list[float]) -> None:
    """Each lies between the two order statistics beside its rank, or is off by no more than their errors."""
    wide = np.sort(numbers[np.isfinite(numbers)].astype("f8"))
    slack = float(np.finfo("f4" if numbers.dtype.itemsize < 8 else "f8").tiny) * ERROR
    for probability, found in zip(probabilities, spread.quantiles(probabilities), strict=True):
        rank = probability * (len(wide) - 1)
        low, high = float(wide[math.floor(rank)]), float(wide[math.ceil(rank)])
        assert low - abs(low) * ERROR - slack <= found <= high + abs(high) * ERROR + slack


def check_histogram(numbers: Array, found: Distribution) -> None:
    wide = np.sort(numbers[np.isfinite(numbers)].astype("f8"))
    bins = found.bins
    assert found.is_sound
    assert 1 <= len(bins) <= MOST_BINS
    assert sum(one.count for one in bins) == len(wide)
    assert all(one.count >= 0 for one in bins)
    assert all(one.high <= after.low or found.values for one, after in pairwise(bins))
    assert bins[0].low <= wide[0]
    assert bins[-1].high >= wide[-1]
    below = 0
    for one in () if found.values else bins[:-1]:
        below += one.count
        slack = abs(one.high) * ERROR + float(np.finfo("f4").tiny)
        assert np.searchsorted(wide, one.high - slack) <= below <= np.searchsorted(wide, one.high + slack, "right")


@given(
    st.one_of(
        arrays("f4", st.integers(1, 60), elements=st.floats(width=32, allow_nan=True)),
        arrays("f8", st.integers(1, 60), elements=st.floats()),
        arrays("f8", st.integers(1, 300), elements=st.floats(-10, 10)),
        arrays("i8", st.integers(1, 60)),
        arrays("i4", st.integers(1, 300), elements=st.integers(-500, 500)),
    ),
    st.lists(st.floats(0, 1), max_size=6),
)
@example(np.array([1.7e308, -1.7e308] * 40), [0.3])
@example(np.array([1.0, np.nextafter(1.0, 2)] * 40), [0.5])
@example(np.arange(200.0) * 5e-324, [0.5])
@settings(max_examples=150, deadline=None)
def test_any_numbers(numbers: Array, probabilities: list[float]) -> None:
    if not np.isfinite(numbers).any():
        return
    spread, found = look(numbers)
    check_quantiles(numbers, spread, [*probabilities, *PROBABILITIES])
    check_histogram(numbers, found)
    finite = numbers[np.isfinite(numbers)]
    assert spread.quantiles([0, 1]) == [float(finite.min()), float(finite.max())]


@pytest.mark.parametrize("dtype", REAL)
def test_numbers_of_all_types(dtype: str) -> None:
    numbers = sample_numbers(dtype, 5000)
    spread, found = look(numbers)
    check_quantiles(numbers, spread, list(PROBABILITIES))
    check_histogram(numbers, found)


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy", "uniform"])
def test_smooth_distributions_are_far_better_than_promised(draw: str) -> None:
    numbers = (20 + 30 * getattr(np.random.default_rng(0), draw)(size=100_000)).astype("f4")
    _, found = look(numbers)
    true = np.quantile(numbers.astype("f8"), PROBABILITIES)
    assert np.abs(np.array(found.quantiles) / true - 1).max() < 2e-3
    edges = np.array([one.low for one in found.bins] + [found.bins[-1].high])
    counts = np.histogram(numbers, edges)[0]
    assert np.abs(np.array([one.count for one in found.bins]) - counts).max() < 0.03 * counts.max()
    inside = found.counts[1:-1]
    assert max(inside) < 0.5 * len(numbers), "a picture of one bin shows nothing"


def test_small_integers_are_exact() -> None:
    numbers = np.random.default_rng(0).poisson(90, 9000)
    spread, found = look(numbers)
    assert len(np.unique(numbers)) > MOST_BINS
    probabilities = np.linspace(0, 1, 101).tolist()
    assert spread.quantiles(probabilities) == pytest.approx(np.quantile(numbers, probabilities).tolist())
    assert len({one.high - one.low for one in found.bins[1:-1]}) == 1
    for one in found.bins[:-1]:
        assert one.count == ((numbers >= one.low) & (numbers < one.high)).sum()


def test_few_values_are_counted() -> None:
    numbers = np.array([0.0, 1.0865, 2.173], "f4")[np.random.default_rng(0).integers(0, 3, 1000)]
    spread, found = look(numbers)
    values, counts = np.unique(numbers, return_counts=True)
    assert [(b.low, b.high, b.count) for b in found.bins] == [
        (v, v, n) for v, n in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    assert spread.quantiles([0.5]) == [float(np.median(numbers))]


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_impossible_probabilities(probability: float) -> None:
    with pytest.raises(SpecError, match="a quantile is taken at 0 to 1"):
        look(np.ones(3))[0].quantiles([0.5, probability])


@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_datasets_tell_them_also_after_appending(tmp_path: Path, store: str) -> None:
    files = [str(tmp_path / f"{n}.root") for n in range(3)]
    for seed, file in enumerate(files):
        write_toy_tree(Path(file), entries=300, seed=seed)
    options = {"format": store, "chunk_bytes": 8192}
    convert(files, name="whole", workers=1, **options)  # type: ignore[arg-type]
    convert(files[:1], name="grown", workers=1, **options)  # type: ignore[arg-type]
    first = open_dataset("grown").histogram("MET_pt")
    append("grown", files[1:], workers=2)
    whole, grown = open_dataset("whole"), open_dataset("grown")
    assert len(grown.manifest.chunks) > 2
    assert grown.manifest.distributions == whole.manifest.distributions
    assert open_dataset("grown", version=1).histogram("MET_pt") == first != grown.histogram("MET_pt")
    probabilities = np.linspace(0, 1, 31).tolist()
    arrays = whole.arrays()
    for name in ("MET_pt", "Jet_pt", "nJet"):
        flat = np.asarray(arrays[name]) if name != "Jet_pt" else np.concatenate([np.asarray(x) for x in arrays[name]])
        assert grown.quantiles(name, probabilities) == whole.quantiles(name, probabilities)
        assert whole.quantiles(name, probabilities) == pytest.approx(
            np.quantile(flat.astype("f8"), probabilities).tolist(), rel=0.02, abs=0.05
        )
        assert sum(one.count for one in whole.histogram(name)) == len(flat)
    rows = column_sketch_rows(whole.manifest)
    assert len(rows) == len(whole.schema.columns)
    assert rows[whole.schema.names.index("nJet")]["histogram"][0]["low"] == 0


def test_what_cannot_be_told(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=50)
    dataset = convert(str(tmp_path / "toy.root"), name="toy", workers=1, define={"none": "MET_pt / 0 * 0"})
    for ask in (dataset.histogram, lambda name: dataset.quantiles(name, [0.5])):
        with pytest.raises(SchemaError, match="no column 'MET_ptt'; nearest names: 'MET_pt'"):
            ask("MET_ptt")
        with pytest.raises(SchemaError, match="column 'none' of dataset 'toy' has no finite numbers"):
            ask("none")
    path = dataset.path / dataset.manifest.chunk_statistics[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ChecksumError, match="is damaged"):
        dataset.quantiles("MET_pt", [0.5])
