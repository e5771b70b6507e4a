"""Memory of a conversion: bounded by the chunk size, whatever the size of the input."""

import subprocess
import sys
from pathlib import Path

import pytest

from storagering.testing.toys import write_toy_tree

SCRIPT = """
import resource, sys
import storagering as sr
sr.convert(sys.argv[1], name=sys.argv[2], workers=int(sys.argv[3]), chunk_bytes=8 << 20)
own = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) >> 10)  # RUSAGE_SELF would count our parent's
"""
LIMIT_MIB = 400


def peak_mib(path: Path, workers: int) -> int:
    run = [sys.executable, "-c", SCRIPT, str(path), f"{path.stem}{workers}", str(workers)]
    return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "small.root", entries=100_000, compression="lz4", basket_entries=50_000)
    write_toy_tree(tmp_path / "large.root", entries=400_000, compression="lz4", basket_entries=50_000)
    for workers in (1, 2):
        small, large = peak_mib(tmp_path / "small.root", workers), peak_mib(tmp_path / "large.root", workers)
        assert large < LIMIT_MIB, (workers, small, large)
        assert large < small * 1.25 + 20, (workers, small, large)


@pytest.mark.slow
def test_one_huge_block_is_cut(tmp_path: Path) -> None:
    """A block of a file that is many chunks long is read in parts."""
    write_toy_tree(tmp_path / "block.root", entries=200_000, compression="lz4", basket_entries=100_000)
    assert peak_mib(tmp_path / "block.root", 1) < LIMIT_MIB
