"""The TensorFlow adapter: ``from storagering.loaders.tensorflow import make_dataset``."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.view import View
from storagering.errors import LoaderError, MissingExtraError, SpecError, nearest_names
from storagering.loaders.batches import BatchArrays
from storagering.loaders.feed import ColumnRequest
from storagering.loaders.loader import Loader
from storagering.loaders.options import LoaderOptions, make_options
from storagering.types import Array

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingExtraError("this loader needs TensorFlow: pip install 'storagering[tensorflow]'") from error

Keys = str | Sequence[str]


def make_dataset(
    dataset: Dataset | View | FillingDataset | str,
    batch_size: int = 1024,
    columns: ColumnRequest = None,
    *,
    inputs: Keys | None = None,
    targets: Keys | None = None,
    sample_weights: Keys | None = None,
    first_step: int = 0,
    **options: Unpack[LoaderOptions],
) -> tf.data.Dataset:
    """The batches of `storagering.loaders.torch.DataLoader`, in the same order, as a ``tf.data.Dataset``.

    Its elements are whole batches: Python is called once for each, never for an entry. Types and shapes are known
    before the first: the number of entries is fixed unless the tail is ``"short"``, P is with ``pad_to``.

    Every iteration is the next epoch, so ``fit(..., epochs=10)`` and ``.repeat()`` run different ones. One that is
    broken off begins anew with the next iteration (within ``prefetch_batches`` of its end it may count as complete),
    and ends when another begins: there is one at a time.

    To go on in another process, save how many batches were trained on, e.g. Keras's ``optimizer.iterations``, and give
    it as ``first_step``; all else that the order depends on must be the same, which is not checked.

    Under ``tf.distribute`` every input pipeline is a rank: ``strategy.distribute_datasets_from_function(lambda context:
    make_dataset(..., rank=context.input_pipeline_id, world_size=context.num_input_pipelines))``.

    Args:
        dataset, batch_size, columns: as for the torch loader.
        inputs: what a model is given: a key of the batch, or several, which make a dict. Elements are then
            ``(inputs, targets, sample_weights)``, as far as these are asked for, as Keras wants them; without it, dicts
            of the whole batch.
        targets, sample_weights: likewise.
        first_step: batches to leave out, counted over all epochs. The first iteration begins there; if that is within
            an epoch, it is shorter than the others, and the cardinality is not known.
        options: see `storagering.loaders.options.Options`. ``jagged="nested"`` gives a ``tf.RaggedTensor``, without
            ``KEY_offsets``; what ``transform`` gives must have the keys, types and shapes of what it is given.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become a tensor.
        SpecError: an argument is out of range, or no such key. While it iterates, TensorFlow wraps the loader's errors:
            a ``tf.errors.UnknownError`` has the message of the `CorruptDataError`.
    """
    loader = Loader(dataset, batch_size, columns, make_options(options))
    specs = _specs(loader, batch_size)
    parts = _parts(loader, specs, (inputs, targets, sample_weights))
    if parts:
        wanted = {name for part in parts for key in _listed(part) for name in (key, *_offsets(loader, key))}
        specs = {key: spec for key, spec in specs.items() if key in wanted}
    if first_step:
        _go_to(loader, first_step)
    iterations = _Iterations(loader, {key: np.dtype(spec.dtype.as_numpy_dtype) for key, spec in specs.items()})
    batches = tf.data.Dataset.from_generator(iterations, output_signature=specs)
    if parts or loader.options.jagged == "nested":
        batches = batches.map(lambda batch: _arrange(_with_ragged(loader, batch), parts))
    if loader.options.num_epochs is None:
        batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    elif first_step % max(1, loader.num_steps) == 0:
        batches = batches.apply(tf.data.experimental.assert_cardinality(len(loader)))
    return _prefetch(batches, loader.options.prefetch_batches)


def _prefetch(batches: tf.data.Dataset, ahead: int) -> tf.data.Dataset:
    if ahead:
        return batches.prefetch(ahead)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # which TensorFlow does by itself
    return batches.with_options(options)


class _Iterations:
    """Starts an iteration of the loader whenever it is called; TensorFlow asks for batches from threads of its own.

    TensorFlow copies an array or holds it, so that its memory is not used again too early.
    """

    def __init__(self, loader: Loader, dtypes: Mapping[str, np.dtype[np.generic]]) -> None:
        self._loader, self._dtypes = loader, dtypes
        self._lock = threading.Lock()
        self._begun = 0

    def __call__(self) -> Iterator[BatchArrays]:
        with self._lock:
            self._begun += 1
            number, batches = self._begun, iter(self._loader)
        while True:
            with self._lock:
                if number != self._begun:
                    raise LoaderError("another iteration of this dataset has begun; make a dataset for each")
                batch = next(batches, None)
            if batch is None:
                return
            yield {key: _checked(batch, key, dtype) for key, dtype in self._dtypes.items()}


def _checked(batch: BatchArrays, key: str, dtype: np.dtype[np.generic]) -> Array:
    """An array of a batch; TensorFlow would cast what a transform made of another type, and lose what does not fit."""
    if key not in batch or batch[key].dtype != dtype:
        found = f"{key!r} as {batch[key].dtype}" if key in batch else f"no key {key!r}"
        raise SpecError(f"the transform gives {found}, not {dtype}: it must keep the keys and types of batches")
    return batch[key]


def _specs(loader: Loader, batch_size: int) -> dict[str, tf.TensorSpec]:
    """Types and shapes of a batch, key by key."""
    options = loader.options
    entries = None if options.tail == "short" else batch_size
    specs = {}
    for group in loader.groups:
        shape: tuple[int | None, ...] = (entries,)
        if group.jagged and options.jagged == "padded":
            shape = entries, options.pad_to
            specs[f"{group.key}_mask"] = tf.TensorSpec(shape, tf.bool)
        elif group.jagged:
            shape = (None,)
            specs[f"{group.key}_offsets"] = tf.TensorSpec((entries and entries + 1,), tf.int64)
        specs[group.key] = tf.TensorSpec((*shape, *group.row_shape), tf.as_dtype(group.dtype))
    if options.tail == "pad":
        specs["mask"] = tf.TensorSpec((entries,), tf.bool)
    return specs


def _parts(loader: Loader, specs: Iterable[str], asked: Sequence[Keys | None]) -> tuple[Keys, ...]:
    """The parts of an element that were asked for.

    Raises:
        SpecError: one of them is no key of a batch, or comes without those before it.
    """
    parts = tuple(part for part in asked if part is not None)
    if parts != tuple(asked[: len(parts)]):
        raise SpecError("sample_weights needs targets, and targets needs inputs")
    hidden = {name for group in loader.groups for name in _offsets(loader, group.key)}
    known = [key for key in specs if key not in hidden]
    for key in (key for part in parts for key in _listed(part)):
        if key not in known:
            raise SpecError(f"batches have no key {key!r}{nearest_names(key, known)}")
    return parts


def _offsets(loader: Loader, key: str) -> tuple[str, ...]:
    """The key of the offsets that a ragged tensor is made with, if ``key`` becomes one."""
    ragged = loader.options.jagged == "nested" and any(group.jagged and group.key == key for group in loader.groups)
    return (f"{key}_offsets",) if ragged else ()


def _with_ragged(loader: Loader, batch: dict[str, Any]) -> dict[str, Any]:
    for key in list(batch):
        for offsets in _offsets(loader, key):
            batch[key] = tf.RaggedTensor.from_row_splits(batch[key], batch.pop(offsets), validate=False)
    return batch


def _arrange(batch: dict[str, Any], parts: Sequence[Keys]) -> Any:
    if not parts:
        return batch
    arranged = tuple(batch[part] if isinstance(part, str) else {key: batch[key] for key in part} for part in parts)
    return arranged if len(arranged) > 1 else arranged[0]


def _listed(part: Keys) -> Sequence[str]:
    return [part] if isinstance(part, str) else part


def _go_to(loader: Loader, first_step: int) -> None:
    if first_step < 0:
        raise SpecError(f"first_step={first_step}: at least 0")
    epoch, step = divmod(first_step, max(1, loader.num_steps))
    loader.set_epoch(epoch)
    loader.load_state_dict({**loader.state_dict(), "step": step})
