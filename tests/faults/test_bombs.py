"""Small files that claim, or unpack to, absurd sizes: refused before the memory is taken."""

import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import uproot
import zarr
from tests.faults.processes import Child

from storagering.api import convert
from storagering.config import load_settings
from storagering.errors import CorruptDataError, LimitExceededError, StorageringError
from storagering.testing.toys import write_toy_tree

EXTRA_BYTES = 200 << 20
LIMIT_BYTES = 32 << 20
ZEROS = 9_000_000
MORE_ZEROS = 2 * EXTRA_BYTES // 8


def tree(path: Path) -> None:
    with uproot.recreate(path, compression=uproot.ZSTD(9)) as file:
        file.mktree("t", {"x": "f8"}).extend({"x": np.zeros(ZEROS)})


def ntuple(path: Path) -> None:
    with uproot.recreate(path, compression=uproot.ZSTD(9)) as file:
        file.mkrntuple("t", {"x": np.zeros(ZEROS)})


def zarr_chunk(path: Path) -> None:
    array = zarr.create_array(path, shape=(ZEROS,), chunks=(ZEROS,), dtype="f8", fill_value=1.0)
    array[:] = 0


def zarr_shape(path: Path) -> None:
    zarr.create_array(path, shape=(500_000_000_000,), chunks=(1 << 20,), dtype="f8")


def hdf5_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(500_000_000_000,), chunks=(1 << 20,), dtype="f8", compression="gzip")


def parquet(path: Path) -> None:
    table = pa.table({"x": np.zeros(MORE_ZEROS)})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, row_group_size=MORE_ZEROS)


def feather(path: Path) -> None:
    pa.feather.write_feather(pa.table({"x": np.zeros(MORE_ZEROS)}), path, compression="zstd", chunksize=MORE_ZEROS)


BOMBS: dict[Callable[[Path], None], str] = {
    tree: "a basket of column 'x' claims to unpack from",
    ntuple: "a cluster of column 'x' claims to unpack from",
    zarr_chunk: "a chunk claims to unpack from",
    zarr_shape: "column '': the array claims to unpack from",
    hdf5_shape: "column 'x': the array claims to unpack from",
}


def convert_in_little_memory(path: Path) -> tuple[str, int]:
    """What becomes of it, and by how much this process grew."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        settings = load_settings(fill_absent_chunks=True, max_block_bytes=LIMIT_BYTES, workers=1)
        dataset = convert(str(path), name="bomb", settings=settings)
        told = f"{len(dataset)} entries"
    except LimitExceededError as error:
        told = str(error)
    return told, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


@pytest.mark.scenario(43)
@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "bomb")
    told, grown = Child(convert_in_little_memory, tmp_path / "bomb").result()
    assert told.startswith(f"{tmp_path}/bomb: ")
    assert BOMBS[make] in told
    assert "set STORAGERING_MAX_BLOCK_BYTES to more" in told
    assert grown < LIMIT_BYTES


@pytest.mark.scenario(43)
@pytest.mark.parametrize("make", [parquet, feather], ids=lambda make: make.__name__)
def test_a_bomb_that_tells_no_sizes_takes_no_more_memory_than_there_is(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "bomb")
    assert (tmp_path / "bomb").stat().st_size < 1 << 20
    told, grown = Child(convert_in_little_memory, tmp_path / "bomb").result()
    assert told.startswith(f"{tmp_path}/bomb: ")
    assert told.endswith(" asks for more memory than there is")
    assert grown < EXTRA_BYTES


@pytest.mark.scenario(43)
def test_the_limits_are_settings(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "x.root", compression=uproot.ZSTD(9)) as file:
        file.mktree("t", {"x": "f8"}).extend({"x": np.zeros(1_000_000)})

    def build(**settings: Any) -> int:
        return len(convert(str(tmp_path / "x.root"), name="x", settings=load_settings(workers=1, **settings)))

    with pytest.raises(LimitExceededError, match="to 8,000,000 bytes"):
        build(max_block_bytes=1 << 20)
    assert build(max_block_bytes=1 << 20, max_unpack_ratio=1 << 20) == 1_000_000


ABSURD = (1 << 62, -1, -(1 << 62), (1 << 63) - 1, 1 << 31)


@pytest.mark.scenario(42)
def test_absurd_numbers_of_a_tree(tmp_path: Path) -> None:
    """Its number of entries, and each number that says where baskets begin, lie or end."""
    entries, path = 7919, tmp_path / "tree.root"
    write_toy_tree(path, entries=entries, basket_entries=3001, compression=None)
    sound = path.read_bytes()
    whole = convert(str(path), name="sound", workers=1).arrays()
    places = [at for at in range(len(sound)) if sound.startswith(struct.pack(">q", entries), at)]
    assert len(places) > 10
    for at in places[:: len(places) // 4]:
        for number in ABSURD:
            path.write_bytes(sound[:at] + struct.pack(">q", number) + sound[at + 8 :])
            try:
                found = convert(str(path), name=f"x{at}-{number & 0xFF}", workers=1, on_bad_column="fail")
            except StorageringError as error:
                assert "tree.root" in str(error) or isinstance(error, CorruptDataError)  # noqa: PT017
            else:
                assert found.arrays().tolist() == whole.tolist()
