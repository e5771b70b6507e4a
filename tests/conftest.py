"""Fixtures for every test: a cache of its own, and the sample files beside the checkout."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.corpus import report

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--corpus-report FILE``: where to write what became of the sample files."""
    parser.addoption("--corpus-report", metavar="FILE", help="write what became of the files of tests/corpus as JSON")


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """What became of the sample files of `tests/corpus`, where these were run."""
    properties = [dict(report.user_properties) for report in terminalreporter.getreports("passed")]
    results = [found["corpus"] for found in properties if "corpus" in found]
    if not results:
        return
    summary = report.summarise(results)
    terminalreporter.section("real ROOT files, every tree converted and compared with uproot")
    path = config.getoption("--corpus-report")
    for line in report.lines(summary) if path else report.lines(summary)[len(results) + 2 :]:
        terminalreporter.write_line(line)
    if exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line("some tests failed: their files are not counted here")
    elif path:
        report.write(summary, Path(path))
