"""The PyTorch adapter: ``from storagering.loaders.torch import DataLoader``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Unpack

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.errors import MissingExtraError, ResumeMismatchError
from storagering.loaders.feed import ColumnRequest
from storagering.loaders.loader import Loader
from storagering.loaders.options import LoaderOptions, make_options

try:
    import torch

    from storagering.loaders.device import DeviceCopier, pinned_pool
except ImportError as error:
    raise MissingExtraError("the torch loader needs PyTorch: pip install 'storagering[torch]'") from error


class DataLoader:
    """Batches of a dataset as dicts of tensors, in an order that depends on the seed and the epoch alone.

    Args:
        dataset: a dataset or its name; or what `storagering.fill` gives, or a path, pattern or URL of sources, which is
            the same with all its defaults: the first epoch reads them and fills the cache, the others read that.
        batch_size: entries of one batch on this rank.
        columns: names, each of which becomes a key; or {key: [names]}, where a group of flat columns is one
            (batch, features) tensor and a group of jagged columns one of items x features, while
            {key: name} is that column alone; all numeric columns without it.
        device: a CUDA device that batches are copied to ahead of time, from page-locked memory on a stream of their
            own; they are there when a step asks for them.
        options: by name, as `storagering.loaders.options.Options` describes them; the rank and world size are those of
            ``torch.distributed`` where it is initialised and none are given.

    While it iterates, the dataset is pinned in the cache; one that is larger than the cache's quota is fetched
    window by window. `close` lets go of it. Tensors are views of memory that is used again when nothing refers to it
    any more: a batch may be kept, and changed, but keeps its window (about 100 MB) in memory.

    Each complete iteration moves to the next epoch; `set_epoch` chooses one.

    Epoch 0 of a dataset that is filled counts in larger parts than chunks, which are permuted as they are made and
    mixed as many at a time as chunks would be; their order is recorded with the dataset. Other epochs, and ``"exact"``,
    wait until it is complete.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become a tensor.
        SpecError: an argument is out of range, or too much for an exact shuffle in memory.
    """

    def __init__(
        self,
        dataset: Dataset | FillingDataset | str,
        batch_size: int = 1024,
        columns: ColumnRequest = None,
        *,
        device: str | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        if options.get("rank") is None and options.get("world_size") is None and _is_distributed():
            options["rank"], options["world_size"] = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._copier = None if device in (None, "cpu") else DeviceCopier(str(device))
        pool, finish = None, None
        if self._copier is not None:
            pool, finish = pinned_pool(), self._copier.begin
        self._loader = Loader(
            dataset, batch_size, columns, make_options(options), agree=_check_ranks_agree, pool=pool, finish=finish
        )

    @property
    def dataset(self) -> Dataset:
        """The dataset; waits until it is complete."""
        return self._loader.dataset

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return len(self._loader)

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated, or comes next."""
        return self._loader.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs.

        After `load_state_dict`, choosing the restored epoch keeps its step.
        """
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._to_tensors, iter(self._loader))

    def _to_tensors(self, batch: Any) -> dict[str, Any]:
        if self._copier is not None:
            tensors = self._copier.deliver(batch)
        else:
            tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        if self._loader.options.jagged == "nested":
            for group in self._loader.groups:
                if group.jagged:
                    offsets = tensors.pop(f"{group.key}_offsets")
                    tensors[group.key] = torch.nested.nested_tensor_from_jagged(tensors[group.key], offsets)
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as a few JSON-able values; taken between batches it is exact."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, also with another world size if the global batch is the same.

        Raises:
            ResumeMismatchError: it belongs to another dataset, order or batch size (lists what differs).
        """
        self._loader.load_state_dict(state)

    def close(self) -> None:
        """End the threads of a running iteration, unpin the dataset, and end a conversion that is this loader's own.

        What is converted stays, and the loader can be iterated again.
        """
        self._loader.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _check_ranks_agree(identity: str) -> None:
    """Caches of several nodes may have recorded different first epochs: no entry must come twice, or not at all."""
    if not _is_distributed():
        return
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, identity)
    if len(set(found)) > 1:
        raise ResumeMismatchError(
            "the caches of the ranks' nodes hold this dataset with different orders of the first epoch; open it by its "
            "name, with storagering.open_dataset, on all of them"
        )
