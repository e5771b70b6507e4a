"""Every scenario of faults and bad input has a test, and a run of them tells which hold."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from tests.faults.scenarios import TITLES, figures, lines, results, unshown

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "src" / "storagering" / "testing").glob("*contract*.py")]


def marked(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.scenario":
            for argument in node.args:
                assert isinstance(argument, ast.Constant), f"{path}: {ast.unparse(node)}"
                assert isinstance(argument.value, int)
                yield argument.value


def test_every_scenario_has_a_test() -> None:
    found = {number for path in FILES for number in marked(path)}
    assert sorted(found) == sorted(TITLES)


def test_one_without_a_passing_test_is_told() -> None:
    def report(*numbers: int, figure: str = "") -> SimpleNamespace:
        properties: list[tuple[str, object]] = [("scenarios", list(numbers))]
        return SimpleNamespace(user_properties=properties + ([("figure", figure)] if figure else []))

    passed = [report(17), report(17, 18, figure="0 of 9 unseen"), report(3)]
    reporter = SimpleNamespace(stats={"passed": passed, "failed": [report(18)], "error": [report(3)]})
    found = results(reporter)
    assert found[17] == {"passed": 2}
    assert set(TITLES) - set(unshown(found)) == {17}
    *rows, last = lines(found)
    assert next(row for row in rows if row.startswith("  18")).split()[1:3] == ["1", "1"]
    assert last.startswith(f"1 of {len(TITLES)} scenarios hold; not: [1, 2, 3")
    assert list(figures(reporter)) == ["0 of 9 unseen"]
