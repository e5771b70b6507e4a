"""What a GPU waits for its batches: training steps from the cache against steps on data that is in its memory.

    python benchmarks/device.py --output benchmarks/results/device.json      (a machine with one CUDA device)

stall = 1 - resident step / step with the loader. Steps are CUDA graphs (bf16 autocast, fused Adam) on buffers that
batches are copied into, so that nothing but the device and the loader takes time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import storagering as sr
from storagering.config import load_settings
from storagering.loaders.torch import DataLoader
from storagering.testing.workloads import MAX_PARTICLES, PARTICLE_FEATURES, make_workload

JETS, IMAGES = 200_000, 10_000
JET_BATCH, IMAGE_BATCH = 512, 128
SIDE = 25
Tensors = dict[str, torch.Tensor]


class JetTransformer(torch.nn.Module):
    """Four layers of 128 channels over up to 128 particles."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(len(PARTICLE_FEATURES), 128)
        layer = torch.nn.TransformerEncoderLayer(128, 8, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = torch.nn.Linear(128, 2)

    def forward(self, batch: Tensors) -> torch.Tensor:
        mask = batch["particles_mask"]  # (B, P)
        x = self.encoder(self.embed(batch["particles"]), src_key_padding_mask=~mask)  # (B, P, 128)
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class CaloNet(torch.nn.Module):
    """Three convolutions of 25 x 25 x 25 cells."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for before, after in ((1, 32), (32, 64), (64, 128)):
            layers += [torch.nn.Conv3d(before, after, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool3d(2)]
        self.body = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(128 * 27, 2))

    def forward(self, batch: Tensors) -> torch.Tensor:
        return self.body(batch["images"][:, None])


def make_step(model: torch.nn.Module, example: Tensors) -> Callable[[Tensors], None]:
    """One training step as a graph: copies a batch into its buffers and replays."""
    model = model.cuda()
    optimizer = torch.optim.Adam(model.parameters(), fused=True, capturable=True)
    static = {key: tensor.clone() for key, tensor in example.items()}

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(static), static["y"].long())
        loss.backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()

    def run(batch: Tensors) -> None:
        for key, tensor in static.items():
            tensor.copy_(batch[key], non_blocking=True)
        graph.replay()

    return run


def resident(everything: Tensors, size: int) -> Iterator[Tensors]:
    count = len(everything["y"])
    order = torch.randperm(count, device="cuda")
    for start in range(0, count - size + 1, size):
        rows = order[start : start + size]
        yield {key: tensor.index_select(0, rows) for key, tensor in everything.items()}


def for_ever(everything: Tensors, size: int) -> Iterator[Tensors]:
    while True:
        yield from resident(everything, size)


def step_seconds(batches: Iterator[Tensors], step: Callable[[Tensors], None], steps: int, epochs: int = 7) -> float:
    """Median over epochs of so many steps, after one to warm up, of the mean time of a step."""
    found = []
    for _ in range(epochs):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step(next(batches))
        torch.cuda.synchronize()
        found.append((time.perf_counter() - began) / steps)
    return statistics.median(found[1:])


def measure(name: str, model: torch.nn.Module, options: dict[str, Any], size: int) -> dict[str, Any]:
    with DataLoader(name, size, tail="drop", device="cuda", prefetch_batches=4, **options) as loader:
        parts = list(loader)
        everything = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        del parts
        step = make_step(model, next(iter(loader)))
        loader.set_epoch(1)
        alone = [time.perf_counter()]
        for _ in range(4):
            for _batch in loader:
                pass
            torch.cuda.synchronize()
            alone.append(time.perf_counter())
        steps = len(loader)
        rate = steps * size / statistics.median(np.diff(alone)[1:])
    on_device = step_seconds(for_ever(everything, size), step, steps)
    with DataLoader(name, size, tail="drop", device="cuda", prefetch_batches=4, num_epochs=None, **options) as loader:
        loaded = step_seconds(iter(loader), step, steps)
    again = step_seconds(for_ever(everything, size), step, steps)
    best = min(on_device, again)
    return {
        "batch": size,
        "resident_ms": round(1e3 * on_device, 3),
        "resident_again_ms": round(1e3 * again, 3),
        "loader_ms": round(1e3 * loaded, 3),
        "stall": round(1 - best / loaded, 4),
        "loader_alone_per_second": round(rate),
    }


def make_images(path: Path) -> Path:
    """Showers of which a tenth of the cells is lit, with 14 bits of mantissa."""
    rng = np.random.default_rng(300)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (IMAGES, SIDE, SIDE, SIDE), np.float32)
        for start in range(0, IMAGES, 500):
            cells = rng.gamma(0.6, 1.0, (500, SIDE, SIDE, SIDE)).astype(np.float32)
            cells[rng.random(cells.shape) > 0.1] = 0
            images[start : start + 500] = (cells.view(np.uint32) >> 9 << 9).view(np.float32)
        file["label"] = rng.integers(0, 2, IMAGES).astype(np.int32)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(cache=Path(folder) / "cache")
        jets = make_workload("jagged", Path(folder), JETS)
        images = make_images(Path(folder) / "images.h5")
        files = [str(file) for file in jets.files]
        names = {
            "jets": sr.convert(files, name="jets", profile="fast", mix=1, settings=settings),
            "images": sr.convert(
                str(images), name="images", sparse=("images",), profile="fast", mix=1, settings=settings
            ),
        }
        columns = {"particles": jets.columns["particles"], "y": "label"}
        options = {
            "jets": {"columns": columns, "pad_to": MAX_PARTICLES},
            "images": {"columns": {"images": "images", "y": "label"}},
        }
        figures: dict[str, Any] = {
            "benchmark": "device",
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "jet transformer": measure(names["jets"], JetTransformer(), options["jets"], JET_BATCH),
            "3D convolutions": measure(names["images"], CaloNet(), options["images"], IMAGE_BATCH),
        }
    text = json.dumps(figures, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
