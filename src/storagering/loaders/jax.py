"""The JAX adapter: ``from storagering.loaders.jax import batches``."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Unpack

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.view import View
from storagering.errors import MissingExtraError, ResumeMismatchError, SchemaError, SpecError
from storagering.loaders.batches import BatchArrays
from storagering.loaders.feed import ColumnRequest
from storagering.loaders.loader import Loader
from storagering.loaders.options import LoaderOptions, Options, make_options
from storagering.types import Array, sha256_hex

try:
    import jax
    from jax.experimental import multihost_utils
except ImportError as error:
    raise MissingExtraError("this loader needs JAX: pip install 'storagering[jax]'") from error


def batches(
    dataset: Dataset | View | FillingDataset | str,
    batch_size: int = 1024,
    columns: ColumnRequest = None,
    *,
    device: Any = None,
    **options: Unpack[LoaderOptions],
) -> Batches:
    """The batches of `storagering.loaders.torch.DataLoader`, in the same order, as dicts of ``jax.Array``.

    Each complete iteration moves to the next epoch.

    Without ``jax_enable_x64`` JAX has no 64-bit numbers: float64 becomes float32, rounded, and int64 becomes int32;
    values that are out of its range are an error. Every new shape compiles a jitted function anew: ``pad_to`` and a
    tail other than ``"short"`` make all batches alike. On a CPU arrays may be views of memory that is used again when
    nothing refers to it any more: a batch may be kept, but keeps its window (about 100 MB) in memory.

    Args:
        dataset, batch_size, columns: as for the torch loader.
        device: where the arrays go, as ``jax.device_put`` has it: a device, or a ``jax.sharding.Sharding``. One over
            the devices of several processes makes global arrays of the parts of all ranks.
        options: see `storagering.loaders.options.Options`; the rank and world size are the index and number of JAX's
            processes if none are given. ``jagged`` is ``"padded"`` or ``"flat"``.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become an array; while it iterates, values
            that do not fit.
        SpecError: an argument is out of range, or batches cannot be cut as the sharding says.
    """
    if options.get("rank") is None and options.get("world_size") is None:
        options["rank"], options["world_size"] = jax.process_index(), jax.process_count()
    return Batches(dataset, batch_size, columns, make_options(options), device)


class Batches(Loader):
    """What `batches` gives: iterate it, once for each epoch."""

    def __init__(
        self,
        dataset: Dataset | View | FillingDataset | str,
        batch_size: int,
        columns: ColumnRequest,
        options: Options,
        device: Any = None,
    ) -> None:
        if options.jagged == "nested":
            raise SpecError("JAX has no nested arrays: use jagged='padded' or jagged='flat'")
        super().__init__(dataset, batch_size, columns, options, agree=_check_ranks_agree)
        self._device = device
        sharded = isinstance(device, jax.sharding.Sharding) and device.num_devices > 1
        self._is_global = sharded and not device.is_fully_addressable
        if sharded and options.tail == "short" and self.num_entries % self._batch_size:
            raise SpecError("the last batch cannot be sharded: use tail='drop', 'pad' or 'wrap'")
        if sharded and options.jagged == "flat" and any(group.jagged for group in self.groups):
            raise SpecError("flat jagged arrays cannot be sharded: use jagged='padded'")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._put, super().__iter__())

    def _put(self, batch: BatchArrays) -> dict[str, Any]:
        arrays = {key: _fit(key, array) for key, array in batch.items()}
        try:
            if self._is_global:
                make = jax.make_array_from_process_local_data
                return {key: make(self._device, array) for key, array in arrays.items()}
            # An array that JAX does not copy it holds: its memory is not used again before.
            placed: dict[str, Any] = jax.device_put(arrays, self._device)
        except ValueError as error:
            raise SpecError(f"batches cannot be put on {self._device}: {error}") from error
        return placed

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fit(key: str, array: Array) -> Array:
    """The array in the type that JAX will make of it.

    Raises:
        SchemaError: it holds values that this type has not.
    """
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
    if dtype == array.dtype:
        return array
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        fits = not array.size or (limits.min <= array.min() and array.max() <= limits.max)
        fitting = array.astype(dtype)
    else:
        with np.errstate(over="ignore"):
            fitting = array.astype(dtype)
        fits = bool((np.isinf(fitting) == np.isinf(array)).all())
    if not fits:
        raise SchemaError(
            f"{key!r} has values that are not in the range of {dtype}, which JAX makes of {array.dtype}: "
            "jax.config.update('jax_enable_x64', True)"
        )
    return fitting


def _check_ranks_agree(identity: str) -> None:
    """Caches of several nodes may have recorded different first epochs: no entry must come twice, or not at all."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(bytes.fromhex(sha256_hex(identity.encode())), np.uint8)
    if (multihost_utils.process_allgather(digest) != digest).any():
        raise ResumeMismatchError(
            "the caches of the processes' nodes hold this dataset with different orders of the first epoch; open it by "
            "its name, with storagering.open_dataset, in all of them"
        )
