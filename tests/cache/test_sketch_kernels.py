"""Counting in machine code against NumPy."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storagering.cache.tallies import tally_codes
from storagering.types import Array


def check(words: Array, bits: int) -> None:
    codes, counts = tally_codes(words, lambda some: some, bits)
    wanted, numbers = np.unique(words >> np.uint32(32 - bits), return_counts=True)
    assert codes.tolist() == wanted.tolist()
    assert counts.tolist() == numbers.tolist()


@given(arrays("u4", st.integers(0, 300)), st.sampled_from([16, 19]), st.sampled_from([1, 2, 3]))
@settings(max_examples=60, deadline=None)
def test_any_words(words: Array, bits: int, step: int) -> None:
    check(words[::step], bits)
    check(np.repeat(words, 5)[::step] & np.uint32(0xF0000000), bits)


@pytest.mark.parametrize("bits", [16, 19])
def test_threads_count_each_for_itself(bits: int) -> None:
    words = [np.random.default_rng(n).integers(0, 1 << 32, 300_000, np.uint32) for n in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(check, some, bits) for some in words * 2]:
            future.result()


def test_what_fails_half_way_leaves_nothing_behind() -> None:
    def fail_later(some: Array) -> Array:
        if some[0]:
            raise MemoryError
        return some

    words = np.arange(1 << 19, dtype="u4")
    with pytest.raises(MemoryError):
        tally_codes(words, fail_later, 16)
    check(words, 16)


def test_workers_do_without_numba() -> None:
    code = (
        "import sys, numpy as np, storagering.cache.worker; from storagering.cache.moments import find_moments;"
        "find_moments(np.ones(9)); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
