"""The tf.data.Dataset against the batches of the torch adapter, and trained on with Keras."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loaders.adapters import CASES, COLUMNS, arrays_of, assert_same

import storagering as sr
from storagering.errors import SchemaError, SpecError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.torch import DataLoader
from storagering.types import Array


@pytest.fixture(scope="module")
def tf() -> Any:
    """TensorFlow, imported where it is used first: that takes seconds, in every process that collects tests."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not os.environ.get("CI"):
        pytest.importorskip("tensorflow")
    import tensorflow as tf

    return tf


@pytest.fixture(scope="module")
def make_dataset(tf: Any) -> Any:
    from storagering.loaders.tensorflow import make_dataset

    return make_dataset


def as_arrays(batches: Any) -> list[dict[str, Array]]:
    """All batches of an iteration, looked at when the last has come: none may have changed meanwhile."""
    kept = list(batches)
    return [{key: tensor.numpy() for key, tensor in batch.items()} for batch in kept]


@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_torch(toys: sr.Dataset, make_dataset: Any, case: str) -> None:
    batches = make_dataset(toys, 100, COLUMNS, **CASES[case])
    loader = DataLoader(toys, 100, COLUMNS, **CASES[case])
    expected = arrays_of(loader)
    assert_same(as_arrays(batches), expected)
    assert int(batches.cardinality()) == len(loader)
    assert_same(as_arrays(batches), arrays_of(loader))  # of the second epoch
    for key, spec in batches.element_spec.items():
        assert spec.dtype.as_numpy_dtype == expected[0][key].dtype
        assert all(spec.shape.is_compatible_with(batch[key].shape) for batch in expected)
        if case in ("cut", "pad", "wrap"):
            assert spec.shape == expected[0][key].shape


def test_nested_is_ragged(tf: Any, toys: sr.Dataset, make_dataset: Any) -> None:
    batches = make_dataset(toys, 100, COLUMNS, jagged="nested")
    assert isinstance(batches.element_spec["jets"], tf.RaggedTensorSpec)
    assert batches.element_spec["jets"].shape == (None, None, 2)
    found = []
    for batch in batches:
        jets, ids = batch.pop("jets"), batch.pop("ids")
        parts = {"jets": jets.values, "jets_offsets": jets.row_splits, "ids": ids.values, "ids_offsets": ids.row_splits}
        found.append({key: tensor.numpy() for key, tensor in (batch | parts).items()})
    assert_same(found, arrays_of(DataLoader(toys, 100, COLUMNS, jagged="nested")))


@pytest.mark.parametrize("steps", [0, 4, 11, 15])
def test_first_step(toys: sr.Dataset, make_dataset: Any, steps: int) -> None:
    loader = DataLoader(toys, 100, COLUMNS)
    expected = arrays_of(loader) + arrays_of(loader)
    batches = make_dataset(toys, 100, COLUMNS, first_step=steps)
    rest = as_arrays(batches) if steps >= len(loader) else as_arrays(batches) + as_arrays(batches)
    assert_same(rest, expected[steps:])


def test_epochs_and_broken_iterations(toys: sr.Dataset, make_dataset: Any) -> None:
    loader = DataLoader(toys, 100, ["MET_pt"])
    epochs = [arrays_of(loader) for _ in range(3)]
    batches = make_dataset(toys, 100, ["MET_pt"])
    for _ in batches.take(3):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("storagering")]
    assert_same(as_arrays(batches.repeat(2)), epochs[0] + epochs[1])
    assert_same(as_arrays(batches), epochs[2])


def test_one_iteration_at_a_time(tf: Any, toys: sr.Dataset, make_dataset: Any) -> None:
    batches = make_dataset(toys, 10, ["MET_pt"], prefetch_batches=0)
    first, second = iter(batches), iter(batches)
    next(first)
    next(second)
    with pytest.raises(tf.errors.UnknownError, match="another iteration"):
        next(first)
    assert len(list(second)) == len(batches) - 1


def test_keras_trains(tf: Any, toys: sr.Dataset, make_dataset: Any) -> None:
    """On what tells the classes apart; two inputs by name, and weights."""
    columns = {"x": ["nVtx", "label"], "jets": ["Jet_pt", "Jet_eta"], "y": "label", "w": "weight"}
    options: dict[str, Any] = {"pad_to": 4, "sample_weights": "w", "targets": "y"}
    batches = make_dataset(toys, 64, columns, inputs=["x", "jets"], **options)
    assert [set(batches.element_spec[0]), batches.element_spec[1].shape.rank] == [{"x", "jets"}, 1]
    x, jets = tf.keras.Input((2,), name="x"), tf.keras.Input((4, 2), name="jets")
    joined = tf.keras.layers.Concatenate()([tf.keras.layers.BatchNormalization()(x), tf.keras.layers.Flatten()(jets)])
    model = tf.keras.Model({"x": x, "jets": jets}, tf.keras.layers.Dense(2)(joined))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.05), loss, metrics=[])
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert history[1] < history[0]
    assert int(model.optimizer.iterations) == 2 * len(batches)


def test_memory_is_not_used_again_before_tensorflow_lets_go(tf: Any) -> None:
    pool = BufferPool()

    def numbers() -> Iterator[Array]:
        for number in range(6):
            memory = pool.lend(1 << 16)
            start = -memory.__array_interface__["data"][0] % 64  # where TensorFlow need not copy
            array = memory[start:][: 1 << 15]
            array[:] = number
            yield array
            del memory, array

    kept = list(tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((None,), tf.uint8)))
    assert [set(tensor.numpy().tolist()) for tensor in kept] == [{number} for number in range(6)]


@pytest.mark.parametrize("ahead", [0, 2])
def test_damage_reaches_the_consumer(tf: Any, make_dataset: Any, toy_files: list[Path], ahead: int) -> None:
    made = sr.convert(str(toy_files[0]), name="damaged", chunk_bytes=8192, workers=1)
    path = made.path / made.manifest.chunks[3].file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(tf.errors.UnknownError, match=f"ChecksumError.*{path.name}"):
        list(make_dataset(made, 32, prefetch_batches=ahead))


def test_refusals(tf: Any, toys: sr.Dataset, make_dataset: Any) -> None:
    with pytest.raises(SpecError, match="no key 'z'; "):
        make_dataset(toys, columns=COLUMNS, inputs=["x", "z"])
    with pytest.raises(SpecError, match="no key 'jets_offsets'"):
        make_dataset(toys, columns=COLUMNS, inputs="jets_offsets", jagged="nested")
    with pytest.raises(SpecError, match="targets needs inputs"):
        make_dataset(toys, columns=COLUMNS, targets="y")
    with pytest.raises(SpecError, match="first_step=-1"):
        make_dataset(toys, first_step=-1)
    with pytest.raises(SpecError, match="no option 'shufle'; nearest names: 'shuffle'"):
        make_dataset(toys, shufle=None)
    with pytest.raises(SchemaError, match="nearest names"):
        make_dataset(toys, columns=["Jet_p"])


def test_a_transform_keeps_the_types(tf: Any, toys: sr.Dataset, make_dataset: Any) -> None:
    def double(batch: dict[str, Array]) -> dict[str, Array]:
        return {"MET_pt": batch["MET_pt"] * np.float32(2)}

    doubled = as_arrays(make_dataset(toys, 100, ["MET_pt"], transform=double))
    assert_same(doubled, [double(batch) for batch in arrays_of(DataLoader(toys, 100, ["MET_pt"]))])
    wrong = {
        "float64": lambda batch: {"MET_pt": batch["MET_pt"].astype(np.float64)},
        "no key 'MET_pt'": lambda _batch: {},
        "shape": lambda batch: {"MET_pt": batch["MET_pt"][:, None]},
    }
    for message, transform in wrong.items():
        with pytest.raises(tf.errors.OpError, match=message):
            list(make_dataset(toys, 100, ["MET_pt"], transform=transform))
