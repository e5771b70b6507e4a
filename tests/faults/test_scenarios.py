"""What a run of the scenarios of faults and bad input tells about them."""

from types import SimpleNamespace

from tests.faults.scenarios import TITLES, lines, results, unshown


def test_one_without_a_passing_test_is_told() -> None:
    def report(*numbers: int) -> SimpleNamespace:
        return SimpleNamespace(user_properties=[("scenarios", list(numbers))])

    stats = {"passed": [report(17), report(17, 18), report(3)], "failed": [report(18)], "error": [report(3)]}
    found = results(SimpleNamespace(stats=stats))
    assert found[17] == {"passed": 2}
    assert set(TITLES) - set(unshown(found)) == {17}
    *rows, last = lines(found)
    assert next(row for row in rows if row.startswith("  18")).split()[1:3] == ["1", "1"]
    assert last.startswith(f"1 of {len(TITLES)} scenarios hold; not: [1, 2, 3")
