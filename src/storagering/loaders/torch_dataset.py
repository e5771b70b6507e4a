"""Our loader as PyTorch's ``IterableDataset``, for programs that are built around ``torch.utils.data.DataLoader``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from storagering.errors import SpecError
from storagering.loaders.torch import DataLoader
from storagering.types import Position

_MAX_WORKERS = 1024


class TorchDataset(IterableDataset[dict[str, Any]]):
    """Batches as an ``IterableDataset``: ``torch.utils.data.DataLoader(TorchDataset("jets", 256), batch_size=None)``.

    Of n workers each gives every n-th batch, so that together they give the same batches in the same order as one
    process does. Each of them decodes all that its batches need: ``num_workers=0`` costs least, because the loader has
    threads of its own.

    Without workers it keeps count of epochs as the loader does. With workers every iteration begins the next epoch,
    also after one that was broken off; `set_epoch` chooses one.

    It has the protocol of ``torchdata.stateful_dataloader.StatefulDataLoader``, which resumes exactly.

    Args:
        arguments: of `storagering.loaders.torch.DataLoader`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self._arguments, self._options = arguments, options
        self._loader: tuple[int, DataLoader] | None = None
        self._restored: dict[str, Any] | None = None
        self._done = False
        self._begun = torch.zeros(_MAX_WORKERS, dtype=torch.int64)  # epochs, worker by worker
        self._begun.share_memory_()  # type: ignore[no-untyped-call]

    def open(self) -> DataLoader:
        """The loader of this process."""
        if self._loader is None or self._loader[0] != os.getpid():
            self._loader = os.getpid(), DataLoader(*self._arguments, **self._options)
        return self._loader[1]

    def __len__(self) -> int:
        return len(self.open())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs; choosing that of a state that was loaded keeps its step."""
        self._begun[:] = epoch
        if self._restored is None:
            self.open().set_epoch(epoch)
        elif self._restored["epoch"] != epoch:
            self._restored = None
            self.open().set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        core, worker = self.open().core, get_worker_info()
        restored, self._restored = self._restored, None
        if restored is not None:
            core.seek(Position(restored["epoch"], restored["step"]), restored.get("end"))
        if worker is None:
            return self._note(self.open().iterate())
        if worker.num_workers > _MAX_WORKERS:
            raise SpecError(f"{worker.num_workers} workers are more than {_MAX_WORKERS}")
        epochs, begun = core.options.num_epochs or 1, self._begun[worker.id]
        if restored is None:
            core.set_epoch(int(begun))
            begun += epochs
        else:
            begun.fill_(core.epoch if restored["done"] else restored.get("end") or core.epoch + epochs)
        return self._note(self.open().iterate(worker.id, worker.num_workers))

    def _note(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        self._done = False
        yield from batches
        self._done = True

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands."""
        if self._restored is not None:
            return self._restored
        core = self.open().core
        return {**core.state_dict(), "epoch": core.position.epoch, "step": core.position.step, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, by the same number of workers; raises as `DataLoader.load_state_dict`."""
        self.open().load_state_dict(state)
        self._restored = dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}
