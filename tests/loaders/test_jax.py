"""The arrays of the JAX adapter against the batches of the torch adapter, trained on, and shared by processes."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.loaders.adapters import CASES, COLUMNS, arrays_of, assert_same

import storagering as sr
from storagering.errors import ResumeMismatchError, SchemaError, SpecError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.torch import DataLoader
from storagering.types import Array, sha256_hex

IDS = {**COLUMNS, "id": "event"}


@pytest.fixture(scope="module")
def jax() -> Any:
    """JAX, imported where it is used first."""
    if not os.environ.get("CI"):
        pytest.importorskip("jax")
    import jax

    return jax


@pytest.fixture
def x64(jax: Any) -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def batches(jax: Any) -> Any:
    from storagering.loaders.jax import batches

    return batches


def as_arrays(found: Any) -> list[dict[str, Array]]:
    """All batches of an iteration, looked at when the last has come: none may have changed meanwhile."""
    kept = list(found)
    return [{key: np.asarray(array) for key, array in batch.items()} for batch in kept]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_torch(toys: sr.Dataset, batches: Any, case: str) -> None:
    loader = DataLoader(toys, 100, IDS, **CASES[case])
    with batches(toys, 100, IDS, **CASES[case]) as found:
        assert len(found) == len(loader)
        assert_same(as_arrays(found), arrays_of(loader))
        assert_same(as_arrays(found), arrays_of(loader))  # of the second epoch


def test_without_64_bits(toys: sr.Dataset, batches: Any) -> None:
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    expected = [
        {key: array.astype(narrow.get(array.dtype, array.dtype)) for key, array in batch.items()}
        for batch in arrays_of(DataLoader(toys, 100, COLUMNS, jagged="flat"))
    ]
    assert expected[0]["w"].dtype == np.float32
    assert expected[0]["run"].dtype == np.int32
    assert_same(as_arrays(batches(toys, 100, COLUMNS, jagged="flat")), expected)
    with pytest.raises(SchemaError, match=r"'id' has values .* int32.*jax_enable_x64"):
        list(batches(toys, 100, {"id": "event"}))

    def enlarge(batch: dict[str, Array]) -> dict[str, Array]:
        return {"w": batch["w"] * 1e300}

    with pytest.raises(SchemaError, match=r"'w' has values .* float32"):
        list(batches(toys, 100, {"w": "weight"}, transform=enlarge))
    infinite = batches(toys, 100, {"w": "weight"}, transform=lambda batch: {"w": batch["w"] * np.inf})
    assert np.isinf(next(iter(infinite))["w"]).all()


def test_memory_is_not_used_again_before_jax_lets_go(jax: Any) -> None:
    pool = BufferPool()
    memory = pool.lend(1 << 16)
    start = -memory.__array_interface__["data"][0] % 64  # where JAX need not copy
    placed = jax.device_put(memory[start:][: 1 << 15])
    address, wanted = placed.unsafe_buffer_pointer(), memory.__array_interface__["data"][0] + start
    del memory
    gc.collect()
    again = pool.lend(1 << 16)
    is_shared = address == wanted
    assert is_shared != (again.__array_interface__["data"][0] == wanted - start)


def test_resume(toys: sr.Dataset, batches: Any) -> None:
    expected = arrays_of(DataLoader(toys, 100, ["MET_pt", "Jet_pt"]))
    first = batches(toys, 100, ["MET_pt", "Jet_pt"])
    for step, _ in enumerate(first, 1):
        if step == 4:
            break
    state = json.loads(json.dumps(first.state_dict()))
    again = batches(toys, 100, ["MET_pt", "Jet_pt"])
    again.load_state_dict(state)
    again.set_epoch(0)
    assert_same(as_arrays(again), expected[4:])
    with pytest.raises(ResumeMismatchError, match="global_batch_size"):
        batches(toys, 50, ["MET_pt", "Jet_pt"]).load_state_dict(state)


def test_a_training_learns(jax: Any, toys: sr.Dataset, batches: Any) -> None:
    """Logistic regression on what tells the classes apart."""
    numpy = jax.numpy

    def loss(weights: Any, batch: dict[str, Any]) -> Any:
        momenta = (batch["jets"][:, :, 0] * batch["jets_mask"]).sum(1, keepdims=True) / 100
        logits = numpy.concatenate([batch["x"], momenta], axis=1) @ weights
        return numpy.logaddexp(0, numpy.where(batch["y"] == 1, -logits, logits)).mean()

    step = jax.jit(jax.value_and_grad(loss))
    weights, losses = numpy.zeros(3), []
    columns = {"x": ["label", "MET_pt"], "jets": ["Jet_pt"], "y": "label"}

    def scale(batch: dict[str, Array]) -> dict[str, Array]:
        return batch | {"x": batch["x"] / np.array([1, 100], np.float32)}

    with batches(toys, 64, columns, pad_to=4, tail="drop", transform=scale) as loader:
        for _ in range(2):
            for batch in loader:
                value, slope = step(weights, batch)
                weights -= 0.5 * slope
                losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]
    assert step._cache_size() == 1  # all batches have one shape


def test_refusals(toys: sr.Dataset, batches: Any) -> None:
    with pytest.raises(SpecError, match="no nested arrays"):
        batches(toys, jagged="nested")
    with pytest.raises(SpecError, match="no option 'shufle'"):
        batches(toys, shufle=None)
    with pytest.raises(SchemaError, match="nearest names"):
        batches(toys, columns=["Jet_p"])


_PROCESS = """
import json, sys
from pathlib import Path
import jax
rank, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
import hashlib, numpy
from storagering.errors import ResumeMismatchError, SpecError
from storagering.loaders.jax import batches, _check_ranks_agree

columns = {"x": ["MET_pt", "nVtx"], "jets": ["Jet_pt"]}
rows = jax.sharding.NamedSharding(jax.make_mesh((4,), ("data",)), jax.sharding.PartitionSpec("data"))
total = jax.jit(lambda x: x[:, 1].sum())
found = {"local": [], "totals": [], "told": []}
for batch in batches("toys", 50, columns, pad_to=4):
    found["local"].append([hashlib.sha256(numpy.asarray(batch[key])).hexdigest() for key in sorted(batch)])
for batch in batches("toys", 50, columns, pad_to=4, tail="drop", device=rows):
    assert batch["jets"].shape == (100, 4, 1) and len(batch["jets"].addressable_shards) == 2
    found["totals"].append(int(total(batch["x"])))
for size, options in (50, {}), (50, {"tail": "drop", "jagged": "flat"}), (51, {"tail": "drop"}):
    try:
        next(iter(batches("toys", size, columns, device=rows, **options)))
    except SpecError as error:
        found["told"].append(str(error))
_check_ranks_agree("the same")
try:
    _check_ranks_agree(f"order {rank}")
except ResumeMismatchError as error:
    found["told"].append(str(error))
Path(sys.argv[3]).write_text(json.dumps(found))
"""


def test_processes_are_ranks(toys: sr.Dataset, tmp_path: Path) -> None:
    """Two processes of two devices each, of one training."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {"STORAGERING_CACHE": str(toys.path.parents[1]), "JAX_PLATFORMS": "cpu"}
    commands = [[sys.executable, "-c", _PROCESS, str(rank), str(port), str(tmp_path / f"{rank}")] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    columns = {"x": ["MET_pt", "nVtx"], "jets": ["Jet_pt"]}
    whole = arrays_of(DataLoader(toys, 100, columns, tail="drop"))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}").read_text())
        own = arrays_of(DataLoader(toys, 50, columns, pad_to=4, rank=rank, world_size=2))
        assert found["local"] == [[sha256_hex(batch[key].tobytes()) for key in sorted(batch)] for batch in own]
        assert found["totals"] == [int(batch["x"][:, 1].sum()) for batch in whole]
        assert [text.split(" ", 2)[:2] for text in found["told"]] == [
            ["the", "last"], ["flat", "jagged"], ["batches", "cannot"], ["the", "caches"],
        ]  # fmt: skip


def test_the_missing_package_is_named() -> None:
    code = (
        "import sys; sys.modules['jax'] = sys.modules['tensorflow'] = None\n"
        "import importlib\n"
        "from storagering.errors import MissingExtraError\n"
        "for name in ('jax', 'tensorflow'):\n"
        "    try: importlib.import_module(f'storagering.loaders.{name}')\n"
        "    except MissingExtraError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'storagering[jax]'" in told
    assert "pip install 'storagering[tensorflow]'" in told
