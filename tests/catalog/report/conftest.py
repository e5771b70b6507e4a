from collections.abc import Iterator

import pytest
from tests.catalog.report.small import SmallCatalog


@pytest.fixture
def catalog() -> Iterator[SmallCatalog]:
    """A catalog without datasets."""
    small = SmallCatalog()
    yield small
    small.close()
