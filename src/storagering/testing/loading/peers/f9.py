"""f9columnar: ROOT files as partitions that every batch mixes, or HDF5 piles shuffled when they were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from f9columnar.ml.collate import CollateConfig
from f9columnar.pipeline.dataloader import PartitionedConfig, get_chunk_dataloader
from f9columnar.pipeline.readers import get_chunk_reader

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    MAX_PARTICLES,
    PARTICLE_FEATURES,
    TREE,
    Batch,
    Case,
    Epoch,
    Variant,
)
from storagering.testing.loading.source import STEP, source_files

_PILES = 8
_COLUMNS = {
    "w1": {"events": [*FLAT_FEATURES, "label"]},
    "w2": {"part": list(PARTICLE_FEATURES), "events": [*JET_FEATURES, "label"]},
}


def _fields(case: Case) -> list[str]:
    return [name for names in _COLUMNS[case.data].values() for name in names]


def _tensors(batch: Any) -> Batch:
    found = batch[0]
    events = found["events"][0]
    flat = torch.stack([events[name] for name in (JET_FEATURES if "part" in found else FLAT_FEATURES)], dim=1)
    if "part" not in found:
        return flat, events["label"]
    return torch.stack([found["part"][0][name] for name in PARTICLE_FEATURES], dim=2), flat, events["label"]


def _stream(case: Case, files: list[Path], reader: Any, **options: Any) -> Epoch:
    jagged = case.data == "w2"
    loader, _, _ = get_chunk_dataloader(
        "bench",
        [str(file) for file in files],
        reader,
        step_size=STEP[case.data],
        num_workers=case.workers,
        base_seed=1,
        dataloader_kwargs={"persistent_workers": True},
        collate_config=CollateConfig(
            modalities=_COLUMNS[case.data],
            layout="padding" if jagged else "varlen",
            max_lengths={"part": MAX_PARTICLES} if jagged else None,
        ),
        **options,
    )

    def epoch(_: int) -> Iterator[Batch]:
        return (_tensors(batch) for batch in loader)

    return epoch


def open_root(case: Case) -> Epoch:
    """The ROOT files."""
    files = source_files(case)
    reader = get_chunk_reader("root", key=TREE, fields=_fields(case))
    mixed = PartitionedConfig(
        partitions=len(files),
        partition_mode="max_size",
        partition_batch_size=case.batch_size,
        shuffle_batch_partitions=True,
    )
    return _stream(case, files, reader, step_size_split=True, partitioned_config=mixed)


def files(case: Case) -> list[Path]:
    """Piles of all files' entries, shuffled."""

    def write(folder: Path) -> None:
        import uproot
        from f9columnar.pipeline.pile_writer import PileWriterProcessor
        from f9columnar.utils.pile_shuffler import shuffle_pile

        jagged = case.data == "w2"
        columns = _COLUMNS[case.data]
        writer = PileWriterProcessor(
            str(folder),
            flat_column_names=columns["events"],
            jagged_column_names={"part": columns["part"]} if jagged else None,
            n_piles=_PILES,
            varlen=jagged,
            max_lengths=MAX_PARTICLES,
            max_workers=1,
            compression="lzf",
        )
        writer.reports = {"worker_id": 0, "file": ""}
        sources = [f"{file}:{TREE}" for file in source_files(case)]
        for arrays in uproot.iterate(sources, _fields(case), step_size=STEP[case.data]):
            writer.run(arrays)
        writer.close()
        for pile in sorted(folder.glob("*.hdf5")):
            shuffle_pile(str(pile), seed=1)

    return sorted(case.made("piles", write).glob("*.hdf5"))


def open_piles(case: Case) -> Epoch:
    """Chunks of the piles in random order, mixed inside a chunk."""
    reader = get_chunk_reader("piles", modalities=_COLUMNS[case.data], varlen=case.data == "w2")
    options = {"shuffle_chunks": True, "shuffle_batch": True, "batch_size": case.batch_size}
    return _stream(case, files(case), reader, **options)


VARIANTS = {"root": Variant(source_files, open_root), "piles": Variant(files, open_piles)}
