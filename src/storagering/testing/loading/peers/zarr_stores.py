"""One Zarr v3 store (blosc zstd-3, byte shuffle), read by zarr-python, zarrs and tensorstore into a shuffle buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from storagering.testing.loading.case import Array, Block, Case, Epoch, Jagged, Variant
from storagering.testing.loading.mixing import buffered, spans

_CHUNK = {"w1": 16_384, "w2": 2_048, "w3": 32}
_ITEMS = 65_536


def files(case: Case) -> list[Path]:
    """One store for all readers."""

    def write(path: Path) -> None:
        group = zarr.create_group(store=path, zarr_format=3)
        first, *flat = case.arrays()
        parts = {"first": first.values, "offsets": first.offsets} if isinstance(first, Jagged) else {"first": first}
        parts |= {f"flat{k}": part for k, part in enumerate(flat)}  # type: ignore[misc]
        for name, array in parts.items():
            rows = _CHUNK[case.data] if name == "first" and case.data != "w2" else _ITEMS
            stored = group.create_array(
                name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=(min(rows, len(array)), *array.shape[1:]),
                compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
            )
            for start, stop in spans(len(array), 16 * rows):
                stored[start:stop] = array[start:stop]

    return [case.made("blosc.zarr", write)]


def _open(case: Case, small: dict[str, Array], begin: Callable[[int, int], Callable[[], Array]]) -> Epoch:
    """Blocks of entries; ``begin`` starts to read rows of the features, and all else is held in memory."""
    flat = [small[name] for name in sorted(small) if name != "offsets"]
    bounds = small.get("offsets", np.arange(len(flat[-1]) + 1))

    def ask(places: Sequence[tuple[int, int]]) -> Callable[[], list[Block]]:
        waiting = [begin(bounds[start], bounds[stop]) for start, stop in places]
        return lambda: [finish(place, wait()) for place, wait in zip(places, waiting, strict=True)]

    def finish(place: tuple[int, int], values: Array) -> Block:
        start, stop = place
        offsets = bounds[start : stop + 1]
        first = Jagged(values, offsets - offsets[0]) if case.data == "w2" else values
        return first, *(array[start:stop] for array in flat)

    return buffered(case, spans(len(flat[-1]), _CHUNK[case.data]), _CHUNK[case.data], ask)


def _open_zarr(pipeline: str | None) -> Callable[[Case], Epoch]:
    def epochs(case: Case) -> Epoch:
        if pipeline:
            zarr.config.set({"codec_pipeline.path": pipeline})
        zarr.config.set({"threading.max_workers": case.cores, "async.concurrency": 2 * case.cores})
        group: Any = zarr.open_group(files(case)[0], mode="r")
        first = group["first"]
        small = {name: group[name][:] for name in group.array_keys() if name != "first"}
        return _open(case, small, lambda a, b: lambda: first[a:b])

    return epochs


def _open_tensorstore(case: Case) -> Epoch:
    import tensorstore

    context = tensorstore.Context(
        {
            "data_copy_concurrency": {"limit": case.cores},
            "file_io_concurrency": {"limit": 2 * case.cores},
            "cache_pool": {"total_bytes_limit": 0},
        }
    )

    def array(path: Path) -> Any:
        specification = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        return tensorstore.open(specification, context=context, read=True).result()

    parts = {path.name: array(path) for path in files(case)[0].iterdir() if path.is_dir()}
    first = parts.pop("first")
    small = {name: part.read().result() for name, part in parts.items()}
    return _open(case, small, lambda a, b: first[a:b].read().result)


VARIANTS = {
    "python": Variant(files, _open_zarr(None)),
    "zarrs": Variant(files, _open_zarr("zarrs.ZarrsCodecPipeline")),
    "tensorstore": Variant(files, _open_tensorstore),
}
