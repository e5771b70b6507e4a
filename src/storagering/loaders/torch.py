"""The PyTorch adapter: ``from storagering.loaders.torch import DataLoader``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Unpack

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.view import View
from storagering.errors import LoaderError, MissingExtraError, ResumeMismatchError
from storagering.loaders.feed import ColumnRequest
from storagering.loaders.loader import Loader
from storagering.loaders.mixture import Mix, Mixture
from storagering.loaders.options import LoaderOptions, make_options
from storagering.loaders.scaling import Scaling

try:
    import torch

    from storagering.loaders.device import DeviceCopier, pinned_pool
except ImportError as error:
    raise MissingExtraError("the torch loader needs PyTorch: pip install 'storagering[torch]'") from error


class DataLoader:
    """Batches of a dataset as dicts of tensors, in an order that depends on the seed and the epoch alone.

    Args:
        dataset: a dataset, its name or a view of it (see `Dataset.where`); or what `storagering.fill` gives, or a path,
            pattern or URL of sources, which is the same with all its defaults: the first epoch reads them and fills the
            cache, the others read that; or a `storagering.loaders.mixture.Mix` of several datasets.
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
        dataset: Dataset | View | FillingDataset | Mix | str,
        batch_size: int = 1024,
        columns: ColumnRequest = None,
        *,
        device: str | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        self._finds_rank = options.get("rank") is None and options.get("world_size") is None
        if self._finds_rank and _is_distributed():
            options["rank"], options["world_size"] = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._copier = None if device in (None, "cpu") else DeviceCopier(str(device))
        pool, finish = None, None
        if self._copier is not None:
            pool, finish = pinned_pool(), self._copier.begin
        made = make_options(options)
        #: The loader that all frameworks share.
        self.core: Loader | Mixture
        if isinstance(dataset, Mix):
            self.core = Mixture(dataset, batch_size, columns, made, pool=pool, finish=finish)
        else:
            self.core = Loader(dataset, batch_size, columns, made, agree=_check_ranks_agree, pool=pool, finish=finish)

    @property
    def dataset(self) -> Dataset:
        """The dataset; waits until it is complete."""
        return self.core.dataset

    def __len__(self) -> int:
        """Batches of one iteration, the same on every rank.

        Raises:
            TypeError: it goes on for ever.
        """
        return len(self.core)

    @property
    def scaling(self) -> dict[str, Scaling]:
        """Means and standard deviations of the groups that are standardised, by their keys."""
        return self.core.scaling

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated, or comes next."""
        return self.core.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs.

        After `load_state_dict`, choosing the restored epoch keeps its step.
        """
        self.core.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.iterate()

    def iterate(self, offset: int = 0, stride: int = 1) -> Iterator[dict[str, Any]]:
        """The batches of one iteration from number ``offset`` on, or every so many of them.

        Raises:
            LoaderError: the loader was made before ``torch.distributed`` was initialised, for one rank only.
        """
        _, world_size = self.core.options.place
        if self._finds_rank and _is_distributed() and torch.distributed.get_world_size() != world_size:
            raise LoaderError(
                f"this loader was made for {world_size} rank(s), and torch.distributed has "
                f"{torch.distributed.get_world_size()}: make it after init_process_group (with Lightning, in "
                "train_dataloader()), or give rank and world_size"
            )
        return map(self._to_tensors, self.core.iterate(offset, stride))

    def _to_tensors(self, batch: Any) -> dict[str, Any]:
        if self._copier is not None:
            tensors = self._copier.deliver(batch)
        else:
            tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        if self.core.options.jagged == "nested":
            for group in self.core.groups:
                if group.jagged:
                    offsets = tensors.pop(f"{group.key}_offsets")
                    tensors[group.key] = torch.nested.nested_tensor_from_jagged(tensors[group.key], offsets)
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as a few JSON-able values; taken between batches it is exact."""
        return self.core.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, also with another world size if the global batch is the same.

        Raises:
            ResumeMismatchError: it belongs to another dataset, order or batch size (lists what differs).
        """
        self.core.load_state_dict(state)

    def close(self) -> None:
        """End the threads of a running iteration, unpin the dataset, and end a conversion that is this loader's own.

        What is converted stays, and the loader can be iterated again.
        """
        self.core.close()

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
