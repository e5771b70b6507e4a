"""Fixtures for every test: a cache of its own, and the sample files beside the checkout."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What became of the sample files of `tests/corpus`, where these were run."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        counts.update(dict(report.user_properties).get("corpus", {}))
    if counts:
        terminalreporter.section("real ROOT files, every tree converted and compared with uproot")
        for name, number in sorted(counts.items(), key=lambda item: (item[0].partition(",")[0], -item[1])):
            terminalreporter.write_line(f"{number:8,}  {name}")
