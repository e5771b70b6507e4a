"""Damaged ROOT files: the same data, an error of ours, or data that the manifest does not call verified."""

import random
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import pytest
from tests.faults.mutations import Trial, check_trials, mutated

from storagering.api import convert
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.errors import StorageringError
from storagering.testing.toys import write_toy_rntuple, write_toy_tree

ENTRIES = 60
COMPRESSIONS = ("zstd", "zlib", "lz4", "lzma", None)
WRITERS: dict[str, Callable[..., None]] = {"tree": write_toy_tree, "rntuple": write_toy_rntuple}


def damage_source(folder: Path) -> Trial:
    cache = open_cache(load_settings())
    sound: dict[str, bytes] = {}
    whole = {}
    for kind, write in WRITERS.items():
        for compression in COMPRESSIONS:
            name, path = f"{kind}-{compression}", folder / "sound.root"
            write(path, entries=ENTRIES, compression=compression)
            sound[name] = path.read_bytes()
            whole[name] = convert(str(path), name=name, workers=1).arrays()

    def trial(rng: random.Random) -> str:
        name = rng.choice(sorted(sound))
        path = folder / "damaged.root"
        path.write_bytes(mutated(rng, sound[name]))
        try:
            dataset = convert(str(path), name="damaged", workers=1)
        except StorageringError as error:
            return "refused" if "damaged.root" in str(error) else f"refused without a name: {error}"
        found, skipped = dataset.arrays(), dataset.manifest.skipped
        cache.remove("damaged")
        missing = {column.name for column in skipped}
        same = ak.fields(found) == [n for n in ak.fields(whole[name]) if n not in missing]
        if same and ak.array_equal(found, whole[name][ak.fields(found)], equal_nan=True):
            return "skipped" if skipped else "equal"
        assert not dataset.manifest.sources[0].verified, f"{name}: other data, called verified"
        return "unverified"

    return trial


@pytest.mark.scenario(41)
@pytest.mark.parametrize("count", [30, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_damaged_files(tmp_path: Path, count: int, record_property: Callable[[str, object], None]) -> None:
    found = check_trials(damage_source, count, tmp_path / "log", tmp_path)
    assert {"refused", "equal", "unverified"} <= set(found) <= {"refused", "equal", "unverified", "skipped"}
    assert found["refused"] > count / 5
    record_property("figure", f"{count:,} damaged ROOT files ({dict(found)}): 0 wrongly verified, 0 hangs, 0 crashes")
