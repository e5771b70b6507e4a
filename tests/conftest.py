"""Fixtures for every test: a cache of its own, and the sample files beside the checkout."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.corpus import report
from tests.faults import scenarios

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
    """What a run of the tests is to do beyond telling which failed."""
    parser.addoption("--corpus-report", metavar="FILE", help="write what became of the files of tests/corpus as JSON")
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--scenario-report", action="store_true", help="list the scenarios of faults; fail if one has none"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests wait for ``--soak``; the scenarios of a test travel with its report."""
    long = [] if config.getoption("--soak") else [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]
    for item in items:
        if numbers := scenarios.numbers_of(item):
            item.user_properties.append(("scenarios", numbers))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A scenario that nothing shows is a failure of a run that is to show them."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    asked = session.config.getoption("--scenario-report") and not hasattr(session.config, "workerinput")
    if asked and not session.exitstatus and scenarios.unshown(scenarios.results(reporter)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """What became of the scenarios of faults, and of the sample files of `tests/corpus`, where these were run."""
    if config.getoption("--scenario-report"):
        terminalreporter.section("faults and bad input")
        for line in scenarios.lines(scenarios.results(terminalreporter)):
            terminalreporter.write_line(line)
    for line in scenarios.figures(terminalreporter) if config.getoption("--soak") else ():
        terminalreporter.write_line(line)
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
