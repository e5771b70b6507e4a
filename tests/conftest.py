"""Fixtures for every test: a cache of its own, and the sample files beside the checkout."""

import os
from pathlib import Path

import pytest

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root of a cache that only this test sees; no other setting reaches it from outside."""
    for name in [name for name in os.environ if name.startswith("STORAGERING_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "cache"
    monkeypatch.setenv("STORAGERING_CACHE", str(root))
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of sample files of experiments, found beside the checkout.

    Without it the test is skipped on a developer's machine and fails in continuous integration.
    """
    if _DATA.is_dir():
        return _DATA
    reason = f"the folder of sample files {_DATA} is absent"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
