from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from storagering.cache.accesses import Taken, note_access
from storagering.cache.layout import open_cache
from storagering.catalog.gridlogs.importing import import_logs
from storagering.catalog.popularity import weeks
from storagering.catalog.popularity.weeks import (
    count_weeks,
    from_times,
    monday_of,
    read_accesses,
    read_csv,
    read_logs,
    week_of,
)
from storagering.config import load_settings
from storagering.errors import FormatError, NotFoundError, SpecError
from storagering.testing.gridlogs import write_grid_logs


def test_rows_add_up() -> None:
    data = count_weeks(["b", "a", "b"], np.array([4, 6, 4]), np.array([1.0, 2.0, 3.0]))
    assert (data.datasets, data.tiers, data.first_week, data.num_weeks) == (("a", "b"), ("all", "all"), 4, 3)
    assert data.counts.tolist() == [[0, 0, 2], [4, 0, 0]]
    with pytest.raises(SpecError, match="no accesses"):
        count_weeks([], np.array([]), np.array([]))


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "weekly.csv.gz"
    path.write_bytes(gzip.compress(b"dataset,dbs,span,week,naccess\n7,3,x,2,5.0\n7,4,x,3,1\n/P/E-v1/AOD,3,x,3,2\n"))
    data = read_csv(path, load_settings())
    assert data.datasets == ("/P/E-v1/AOD@3", "7@3", "7@4")
    assert data.counts.tolist() == [[0, 2], [5, 0], [0, 1]]
    path.write_bytes(b"dataset,tier,week,accesses\nx,USER,1,5\ny,,1,5\n")
    assert read_csv(path, load_settings()).tiers == ("USER", "all")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dataset,weeks,naccess\na,1,2\n", "no column 'week'; nearest names: 'weeks'"),
        ("dataset,week,n\na,1,2\n", "no column 'naccess'"),
        ("dataset,week,naccess\na,first,2\n", "are no numbers"),
        ("dataset,week,naccess\na,1\n", "is no CSV table"),
    ],
)
def test_what_is_no_such_table(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FormatError, match=problem):
        read_csv(tmp_path / "t.csv", load_settings())


def test_weeks_begin_on_mondays() -> None:
    assert week_of(datetime(1970, 1, 5, tzinfo=UTC)) == 0
    sunday, monday = datetime(2018, 1, 7, 23, 59, tzinfo=UTC), datetime(2018, 1, 8, tzinfo=UTC)
    assert week_of(monday) == week_of(sunday) + 1
    assert monday_of(week_of(sunday)) == date(2018, 1, 1)
    assert monday_of(week_of(datetime(1969, 12, 31, tzinfo=UTC))) == date(1969, 12, 29)


def test_what_loaders_noted_counts_when_its_week_is_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_cache(load_settings())
    for name in ("jets", "jets", "hits"):
        assert note_access(opened, name, "loader", ["x"], Taken(10, 20, 1, 0), seconds=0.5)
    with pytest.raises(SpecError, match="no accesses"):
        read_accesses(load_settings())

    class InAWeek(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(weeks=1)

    monkeypatch.setattr(weeks, "datetime", InAWeek)
    data = read_accesses(load_settings())
    assert (data.datasets, data.counts.tolist()) == (("hits", "jets"), [[1], [2]])


def test_a_week_that_goes_on_is_left_out() -> None:
    times = [datetime(2018, 1, day, tzinfo=UTC) for day in (1, 2, 9, 17)]
    data = from_times("abab", np.array([time.timestamp() for time in times]), times[-1])
    assert data.counts.tolist() == [[1, 1], [1, 0]]
    assert data.first_week == week_of(times[0])
    assert from_times("abab", np.array([time.timestamp() for time in times])).num_weeks == 2


def test_imported_logs(cache: Path, tmp_path: Path) -> None:
    settings = load_settings()
    with pytest.raises(NotFoundError, match="import-logs"):
        read_logs(open_cache(settings))
    grid = write_grid_logs(tmp_path / "logs", num_jobs=50)
    import_logs("cmssw", grid.files["cmssw"])
    import_logs("eos", grid.files["eos"])
    data = read_logs(open_cache(settings))
    assert data.datasets == read_logs(open_cache(settings), "cmssw").datasets
    assert set(data.tiers) <= {"AOD", "AODSIM", "MINIAOD", "MINIAODSIM", "USER"}
    last = max(week_of(datetime.fromtimestamp(job.start, UTC)) for job in grid.world.jobs)
    whole = [job for job in grid.world.jobs if week_of(datetime.fromtimestamp(job.start, UTC)) < last]
    assert data.counts.sum() == len(whole)
    with pytest.raises(NotFoundError, match="of kind 'xrootd'"):
        read_logs(open_cache(settings), "xrootd")
