import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from storagering.formats.syntax import parse_python

TEXT = " + ".join(["((a + 1) * 2)"] * 50)


class Garbage:
    """Two objects that only the collector frees, which lets other threads run where it happens to."""

    def __init__(self) -> None:
        self.myself = self

    def __del__(self) -> None:
        time.sleep(0)


@pytest.fixture
def _busy_collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(5)
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_busy_collector")
def test_many_threads_at_once() -> None:
    """Sources are inspected by several threads, each of which parses the selection."""

    def parse(_: int) -> object:
        Garbage()
        return parse_python(TEXT)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(parse, range(200)))
