"""Lightning's trainer with our loader: every entry once an epoch, resumed within one, one part for each rank."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import storagering as sr
from storagering.errors import LoaderError
from storagering.loaders.torch import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice

SIZE = 300


def train(
    loader: DataLoader, folder: Path, epochs: int, steps: int = -1, resume: Path | None = None
) -> list[list[int]]:
    """The numbers of each training step; a checkpoint is written after step 19."""
    import lightning as pl

    class Model(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.seen: list[list[int]] = []

        def training_step(self, batch: dict[str, Any], _: int) -> Any:
            self.seen.append(batch["number"].tolist())
            return self.layer(batch["x"]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    class Save(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 19:
                trainer.save_checkpoint(folder / "last.ckpt")

    model = Model()
    trainer = pl.Trainer(
        max_epochs=epochs, max_steps=steps, accelerator="cpu", logger=False, default_root_dir=folder,
        callbacks=[Save()], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, train_dataloaders=loader, ckpt_path=resume)
    return model.seen


def made(events: sr.Dataset) -> DataLoader:
    return DataLoader(events, SIZE, {"number": "number", "x": ["pt", "eta"]}, seed=5)


def test_fit_runs_epochs_and_resumes_within_one(events: sr.Dataset, tmp_path: Path) -> None:
    with made(events) as plain:
        expected = [b["number"].tolist() for _ in range(2) for b in plain]
    with made(events) as loader:
        assert train(loader, tmp_path, epochs=2) == expected
    with made(events) as loader:
        assert train(loader, tmp_path, epochs=2, steps=19) == expected[:19]
    with made(events) as loader:
        assert train(loader, tmp_path, epochs=2, resume=tmp_path / "last.ckpt") == expected[19:]


def test_a_loader_made_for_one_rank_is_not_iterated_by_several(
    events: sr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, alone = made(events), DataLoader(events, SIZE, ["number"], rank=0, world_size=1)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        with pytest.raises(LoaderError, match=r"train_dataloader\(\)"):
            iter(early)
        assert sum(len(b["number"]) for b in alone) == len(events)  # as it was told to
    finally:
        dist.destroy_process_group()
