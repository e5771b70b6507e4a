import resource

import numpy as np
import pytest

from storagering.formats.limits import bounded_memory


def test_growth_is_bounded_and_the_limit_goes_away() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounded_memory(256 << 20):
        assert np.ones(1 << 20).sum() == 1 << 20
        with pytest.raises(MemoryError):
            np.empty(1 << 30, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert np.empty(1 << 30, np.uint8).nbytes == 1 << 30


def test_the_limit_goes_away_after_an_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ValueError, match="inside"), bounded_memory():
        raise ValueError("inside")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
