"""What the adapters of all frameworks are compared with: the batches that PyTorch is given."""

from typing import Any

from storagering.loaders.torch import DataLoader
from storagering.types import Array

#: Every kind of column: stacked, of one number, of fixed shape, jagged and stacked, jagged.
COLUMNS = {
    "x": ["MET_pt", "nVtx", "weight"],
    "w": "weight",
    "image": "image",
    "passed": "passed",
    "run": "run",
    "jets": ["Jet_pt", "Jet_eta"],
    "ids": "Jet_id",
    "y": "label",
}

#: Options by name; batches of 100 entries of 1,033.
CASES: dict[str, dict[str, Any]] = {
    "flat": {"jagged": "flat"},
    "flat-full": {"jagged": "flat", "tail": "wrap"},
    "padded": {"jagged": "padded"},
    "cut": {"pad_to": 3, "lead": "Jet_pt", "tail": "drop", "seed": 3},
    "pad": {"pad_to": 12, "tail": "pad", "prefetch_batches": 0},
    "wrap": {"pad_to": 12, "tail": "wrap", "split": (0, 0.7)},
    "exact": {"shuffle": "exact"},
    "stored": {"shuffle": None, "threads": 1},
    "second-rank": {"rank": 1, "world_size": 2},
}


def arrays_of(loader: DataLoader) -> list[dict[str, Array]]:
    """An epoch's batches as NumPy arrays; those of nested tensors with their offsets."""
    found = []
    for batch in loader:
        arrays = {}
        for key, tensor in batch.items():
            if tensor.is_nested:
                arrays[f"{key}_offsets"], tensor = tensor.offsets().numpy(), tensor.values()
            arrays[key] = tensor.numpy().copy()
        found.append(arrays)
    return found


def assert_same(batches: list[dict[str, Array]], expected: list[dict[str, Array]]) -> None:
    """Every batch has the same keys, types, shapes and bytes."""
    assert len(batches) == len(expected) > 0
    for batch, other in zip(batches, expected, strict=True):
        assert set(batch) == set(other)
        for key, array in batch.items():
            assert (key, array.dtype, array.shape) == (key, other[key].dtype, other[key].shape)
            assert array.tobytes() == other[key].tobytes(), key
