"""ROOT's RDataLoader over an RDataFrame.

uproot records no cluster boundaries, and the loader would take a whole file for one cluster: ROOT itself writes the
files again, with clusters of a basket. Jagged columns are padded by the loader, one wide row a jet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import ROOT
import torch  # noqa: F401  (before ROOT: both bring an OpenMP)

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


def files(case: Case) -> list[Path]:
    """The ROOT files written again."""

    def write(folder: Path) -> None:
        folder.mkdir()
        for file in source_files(case):
            options = ROOT.RDF.RSnapshotOptions()
            options.fAutoFlush = STEP[case.data]
            options.fCompressionAlgorithm = ROOT.RCompressionSetting.EAlgorithm.kZSTD
            options.fCompressionLevel = 5
            ROOT.RDataFrame(TREE, str(file)).Snapshot(TREE, str(folder / file.name), "", options)

    return sorted(case.made("clusters", write).iterdir())


def _open(eager: bool) -> Callable[[Case], Epoch]:
    def epochs(case: Case) -> Epoch:
        jagged = case.data == "w2"
        columns = [*(PARTICLE_FEATURES + JET_FEATURES if jagged else FLAT_FEATURES), "label"]
        loader = ROOT.Experimental.ML.RDataLoader(
            ROOT.RDataFrame(TREE, [str(file) for file in files(case)]),
            batch_size=case.batch_size,
            batches_in_memory=case.buffer // case.batch_size,
            columns=columns,
            target="label",
            shuffle=True,
            drop_remainder=False,
            set_seed=1,
            load_eager=eager,
            **({"max_vec_sizes": dict.fromkeys(PARTICLE_FEATURES, MAX_PARTICLES)} if jagged else {}),
        )

        def epoch(_: int) -> Iterator[Batch]:
            wide = 8 * MAX_PARTICLES
            for rows, label in loader.as_torch():
                parts = (rows[:, :wide].reshape(-1, 8, MAX_PARTICLES), rows[:, wide:]) if jagged else (rows,)
                yield *parts, label.reshape(-1)

        return epoch

    return epochs


VARIANTS = {"lazy": Variant(files, _open(False)), "eager": Variant(files, _open(True))}
