from __future__ import annotations

import pytest
from tests.catalog.report.small import DAY, NOW, SmallCatalog, bins

from storagering.catalog.report.facts import ColumnFacts


def test_an_empty_catalog(catalog: SmallCatalog) -> None:
    facts = catalog.facts()
    assert (facts.datasets, facts.details, facts.accesses, facts.tiers, facts.trainings) == ((), (), (), (), ())
    assert (facts.users, facts.hosts, facts.num_trainings) == (0, 0, 0)


def test_a_dataset_is_told_with_its_residents_and_reads(catalog: SmallCatalog) -> None:
    catalog.add_dataset("small", nbytes=500)
    catalog.add_dataset("jets", nbytes=1000)
    for chunk, tier in ((0, "disk"), (1, "disk"), (0, "ram")):
        catalog.add("residents", dataset="jets", chunk=chunk, tier=tier, nbytes=300, uses=4)
    catalog.add_access("jets", NOW - 2 * DAY, 700)
    catalog.add_access("jets", NOW - DAY, 800, user="bob")
    facts = catalog.facts()
    jets, small = facts.datasets
    assert (jets.name, jets.here_bytes, jets.here_chunks) == ("jets", 600, 2)
    assert (jets.reads, jets.read_bytes, jets.last_read) == (2, 1500, NOW - DAY)
    assert jets.created == NOW - DAY
    assert (small.name, small.here_bytes, small.reads, small.last_read) == ("small", None, 0, None)
    assert facts.tiers == (("disk", 2, 600, 8), ("ram", 1, 300, 4))
    assert (facts.users, facts.hosts) == (2, 1)


def test_what_is_told_of_a_column(catalog: SmallCatalog) -> None:
    quantiles = [0.1, 0.5, 2.0, 4.0, 6.0, 9.0, 9.9]
    catalog.add_dataset("jets")
    catalog.add_column("jets", "pt", 1, unit="GeV", quantiles=quantiles, histogram=bins(3, 5), mantissa_bits=10)
    catalog.add_column("jets", "name", 0, dtype="string", kind="string", unit=None, count=None, mean=None, min=None)
    (detail,) = catalog.facts().details
    name, pt = detail.columns
    assert (name.name, name.unit, name.mean, name.histogram, name.quantiles) == ("name", "", None, (), ())
    assert pt == ColumnFacts(
        "pt", "float32", "flat", "GeV", "", 10, 100, 0.0, 10.0, 4.0, 2.0, 0, 0, 0,
        tuple(quantiles), ((0.0, 1.0, 3), (1.0, 2.0, 5)),
    )  # fmt: skip


def test_details_go_to_what_is_read_most_and_to_the_largest(catalog: SmallCatalog) -> None:
    for number in range(10):
        catalog.add_dataset(f"d{number}", nbytes=1000 - number)
    for number in (7, 8, 9):
        catalog.add_access(f"d{number}", nbytes=10 * number)
    assert [d.dataset.name for d in catalog.facts(4).details] == ["d0", "d1", "d8", "d9"]
    assert [d.dataset.name for d in catalog.facts(1).details] == ["d0"]
    assert catalog.facts(0).details == ()
    assert len(catalog.facts(99).details) == 10


def test_only_the_first_of_many_are_read(catalog: SmallCatalog) -> None:
    catalog.add_dataset("wide", num_columns=230)
    for number in range(230):
        catalog.add_column("wide", f"c{number}", number)
        catalog.add("skipped_columns", dataset="wide", name=f"s{number:03d}", typename="T", reason="r")
    for number in range(50):
        catalog.add("source_files", dataset="wide", source=number, url=f"{number}.root", nbytes=2, verified=number < 7)
    (detail,) = catalog.facts().details
    assert [c.name for c in detail.columns] == [f"c{number}" for number in range(200)]
    assert (len(detail.skipped_columns), detail.num_skipped_columns) == (20, 230)
    assert [s[0] for s in detail.sources] == [f"{number}.root" for number in range(20)]
    assert detail.source_sums == (50, 7, 100)


@pytest.mark.parametrize(
    ("span", "width"), [(0, 3600), (4 * DAY, 3600), (30 * DAY, DAY), (500 * DAY, 7 * DAY), (9000 * DAY, 28 * DAY)]
)
def test_accesses_are_counted_in_intervals(catalog: SmallCatalog, span: float, width: int) -> None:
    catalog.add_dataset("jets")
    first, last = NOW - span, NOW
    catalog.add_access("jets", first, 5)
    catalog.add_access("jets", last, 7, tier="ram")
    catalog.add_access("jets", last, 2, tier="ram")
    facts = catalog.facts()
    assert facts.interval == width
    assert sum(nbytes for _, _, nbytes in facts.accesses) == 14
    for (begin, tier, _), (at, told) in zip(facts.accesses, ((first, "disk"), (last, "ram")), strict=True):
        assert begin <= at < begin + width
        assert tier == told
        assert (begin - 4 * DAY) % width == 0, "weeks begin on Mondays, days at midnight"
    assert facts.details[0].accesses == facts.accesses


def test_the_latest_trainings_with_their_metrics(catalog: SmallCatalog) -> None:
    for number in range(30):
        catalog.add(
            "trainings", time=NOW - number, recipe="jet-deepset", model=f"m{number}", dataset="jets", version=3,
            epochs=10, seconds=60.0, metrics={"auc": 0.9, "loss": 0.2},
        )  # fmt: skip
    facts = catalog.facts()
    assert facts.num_trainings == 30
    assert [t.model for t in facts.trainings] == [f"m{number}" for number in range(20)]
    assert facts.trainings[0].metrics == (("auc", 0.9), ("loss", 0.2))


def test_versions_the_newest_first(catalog: SmallCatalog) -> None:
    catalog.add_dataset("jets", version=2)
    for version in (1, 2):
        catalog.add(
            "versions", dataset="jets", version=version, digest=f"v{version}", current=version == 2, created=NOW
        )
    (detail,) = catalog.facts().details
    assert [(v[0], v[1], v[7]) for v in detail.versions] == [(2, "v2", True), (1, "v1", False)]
