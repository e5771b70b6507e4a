import numpy as np
import pytest

from storagering.testing.loading.noise import class_noise, find_places, spread


def sizes_of(entries: int, batch: int) -> np.ndarray:
    return np.array([min(batch, entries - start) for start in range(0, entries, batch)])


@pytest.mark.parametrize("batch", [256, 1000])
def test_a_random_order_has_no_noise(batch: int) -> None:
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([0, 1, 2], [50_000, 30_000, 120_000]))
    assert class_noise(labels, sizes_of(len(labels), batch)) == pytest.approx(1, abs=0.1)


def test_few_large_batches_are_held_against_drawing_without_return() -> None:
    rng = np.random.default_rng(2)
    found = [class_noise(rng.permutation(np.repeat([0, 1], 500)), np.array([500, 500])) for _ in range(300)]
    squares = [value**2 for value in found if value is not None]
    assert np.mean(squares) == pytest.approx(1, abs=0.25)  # the binomial one would make it 0.5


def test_batches_of_one_class_are_the_root_of_their_size() -> None:
    labels = np.repeat([0, 1], 64_000)
    assert class_noise(labels, sizes_of(128_000, 1000)) == pytest.approx(np.sqrt(1000), rel=0.02)


def test_equal_shares_are_less_than_random() -> None:
    assert class_noise(np.tile([0, 1], 4_000), sizes_of(8_000, 100)) == 0


def test_the_incomplete_batch_does_not_count() -> None:
    rng = np.random.default_rng(3)
    mixed = rng.permutation(np.repeat([0, 1], 50_000))
    labels, sizes = np.concatenate([mixed, [1] * 10]), np.array([1000] * 100 + [10])
    assert class_noise(labels, sizes) == pytest.approx(class_noise(mixed, sizes[:-1]) or 0, rel=0.01)


@pytest.mark.parametrize(("labels", "sizes"), [([1] * 10, [5, 5]), ([0, 1, 0, 1], [4]), ([0, 1, 1], [2, 1])])
def test_nothing_is_said_of_one_class_or_one_batch(labels: list[int], sizes: list[int]) -> None:
    assert class_noise(np.array(labels), np.array(sizes)) is None


def test_spread() -> None:
    rng = np.random.default_rng(4)
    sizes = sizes_of(20_480, 1024)
    assert spread(rng.permutation(20_480), sizes) == pytest.approx(1, abs=0.02)
    assert spread(np.arange(20_480), sizes) == pytest.approx(0.05, abs=0.001)
    assert spread(np.arange(20_481), np.append(sizes, 1)) == pytest.approx(0.05, abs=0.001)


def test_places() -> None:
    source = np.array([7, 3, 9, 1], np.uint64)
    keys = np.array([1, 7, 8, 10, 3], np.uint64)
    assert find_places(source, keys).tolist() == [3, 0, -1, -1, 1]
