"""Which requests bring the wanted ranges: all of them, within the server's limits, and little else."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagering.formats.remote.ranges import Limits, Range, merge_ranges, pick_ranges, plan_requests

SIZE = 1 << 16
CONTENT = bytes(i * i % 251 for i in range(SIZE))

positions = st.integers(0, SIZE)
some_ranges = st.lists(st.tuples(positions, st.integers(0, 3000)).map(lambda r: (r[0], min(SIZE, r[0] + r[1]))))
some_limits = st.builds(
    Limits,
    elements=st.integers(1, 20),
    element_bytes=st.integers(1, 1000),
    vector_bytes=st.integers(1000, 5000),
    block_bytes=st.integers(1000, 4000),
    run_bytes=st.integers(500, 4000),
    gap_bytes=st.integers(0, 300),
)


@given(some_ranges, some_limits)
def test_every_plan_brings_the_bytes_within_the_limits(ranges: list[Range], limits: Limits) -> None:
    requests = plan_requests(ranges, limits)
    pieces = {r: memoryview(CONTENT)[slice(*r)] for request in requests for r in request}
    assert [bytes(data) for data in pick_ranges(ranges, pieces)] == [CONTENT[a:b] for a, b in ranges]
    assert sum(len(request) for request in requests) == len(pieces)
    assert all(a[1] <= b[0] for a, b in pairwise(sorted(pieces)))
    for request in requests:
        assert len(request) <= limits.elements
        longest = max(b - a for a, b in request)
        assert 0 < longest <= (limits.block_bytes if len(request) == 1 else limits.element_bytes)
        assert len(request) == 1 or sum(b - a for a, b in request) <= limits.vector_bytes
    wanted = sum(b - a for a, b in merge_ranges(ranges))
    read = sum(b - a for a, b in pieces)
    assert read <= 1.25 * wanted + limits.gap_bytes * len(ranges)


@given(some_ranges, st.integers(0, 1000))
def test_merged_ranges_are_sorted_and_apart(ranges: list[Range], gap: int) -> None:
    merged = merge_ranges(ranges, gap)
    assert all(b[0] - a[1] > gap for a, b in pairwise(merged))
    assert all(any(a <= start and stop <= b for a, b in merged) for start, stop in ranges if stop > start)


def test_a_whole_file_is_read_in_blocks_of_8_mib() -> None:
    baskets = [(start, start + 30_000) for start in range(0, 30_000_000, 30_010)]
    requests = plan_requests(baskets, Limits())
    assert [len(request) for request in requests] == [1] * 4
    assert [r[0][1] - r[0][0] for r in requests[:-1]] == [8 << 20] * 3


def test_few_columns_are_read_by_vectors_of_1024() -> None:
    baskets = [(start, start + 3000) for start in range(0, 300_000_000, 100_000)]
    requests = plan_requests(baskets, Limits())
    assert [len(request) for request in requests] == [1024, 1024, 952]
    assert sum(b - a for request in requests for a, b in request) == 9_000_000


@pytest.mark.parametrize(("elements", "element_bytes"), [(16, 2_097_136), (1024, 1000)])
def test_limits_of_a_server_count(elements: int, element_bytes: int) -> None:
    requests = plan_requests(
        [(start, start + 5000) for start in range(0, 10**7, 10**5)], Limits(elements, element_bytes)
    )
    assert max(map(len, requests)) <= elements
    assert max(b - a for request in requests for a, b in request) <= element_bytes
