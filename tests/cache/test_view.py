"""Views: the entries that a selection keeps, found lazily, and taken by loaders."""

import pickle
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.odd import ENTRIES, odd_columns, odd_dataset

import storagering as sr
from storagering.cache.access import ChunkAccess
from storagering.cache.indexing import index_columns
from storagering.cache.view import View
from storagering.config import load_settings
from storagering.errors import SchemaError, SpecError
from storagering.loaders.mixture import Mix
from storagering.loaders.torch import DataLoader

COLUMNS = odd_columns()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    folder = tmp_path_factory.mktemp("odd")
    made = odd_dataset(folder, settings=load_settings(cache=folder / "cache", workers=1, threads=1))
    index_columns(made, ["run"])
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files of chunks that are opened, as often as they are."""
    found: list[str] = []
    plain = ChunkAccess.open

    def record(self: ChunkAccess, chunk: Any) -> Any:
        found.append(chunk.file)
        return plain(self, chunk)

    monkeypatch.setattr(ChunkAccess, "open", record)
    return found


def test_nothing_is_read_before_it_is_asked_for(odd: sr.Dataset, opened: list[str]) -> None:
    view = odd.where("(number >= 1003) & (number < 1027)")
    few = view.chunks
    assert not opened
    assert 1 <= len(few) <= 2
    assert len(view) == 24
    assert view.entries().tolist() == list(range(1003, 1027))
    assert set(opened) <= {chunk.file for chunk in few}
    opened.clear()
    arrays = view.arrays(["number", "trigger", "f"])
    assert set(opened) == {chunk.file for chunk in few}
    assert arrays.fields == ["number", "trigger", "f"]
    assert arrays.number.to_list() == list(range(1003, 1027))
    assert arrays.trigger.to_list() == COLUMNS["trigger"][1003:1027].tolist()
    assert ak.to_numpy(arrays.f).tobytes() == COLUMNS["f"][1003:1027].tobytes()


def test_views_are_composed(odd: sr.Dataset) -> None:
    view = odd.where("flag").where("d > 0.5").where("run == 5")
    want = np.flatnonzero(COLUMNS["flag"] & (COLUMNS["d"] > 0.5) & (COLUMNS["run"] == 5))
    assert view.entries().tolist() == want.tolist()
    assert len(view.chunks) < len(odd.where("flag").chunks)
    assert repr(view) == "<View of 'odd' where (flag) & (d > 0.5) & (run == 5)>"
    deep = odd.where("number < 100")
    for _ in range(110):
        deep = deep.where("1 < 2")
    assert len(deep) == 100


@pytest.mark.parametrize(
    ("where", "count"), [("number < 0", 0), ("number >= 0", ENTRIES), ("1 > 2", 0), ("1 < 2", ENTRIES)]
)
def test_none_and_all(odd: sr.Dataset, where: str, count: int) -> None:
    view = odd.where(where)
    assert len(view) == len(view.entries()) == len(view.arrays(["number", "trigger"])) == count
    assert view.arrays(["number"]).type.content == odd.arrays(["number"]).type.content
    assert len(view.arrays()) == count


def test_what_is_wrong_is_told_at_once(odd: sr.Dataset) -> None:
    for text, message in {"nummber > 2": "nearest names: 'number'", "number": "must be true or false"}.items():
        with pytest.raises(SpecError, match=message):
            odd.where(text)
        with pytest.raises(SpecError, match=message):
            odd.where("flag").where(text)
    with pytest.raises(SchemaError, match="nearest names: 'number'"):
        odd.where("flag").arrays(["nummber"])


WHOLE = st.builds(
    "{} {} {}".format,
    st.sampled_from(["number", "run", "small"]),
    st.sampled_from(["<", ">=", "==", "!="]),
    st.integers(-13, 30),
)
REAL = st.builds(
    "{} {} {!r}".format,
    st.sampled_from(["d", "f", "half", "wild"]),
    st.sampled_from(["<=", ">", "=="]),
    st.sampled_from([0.1, 0.3, 1.05, 2.2]),
)
OTHER = st.sampled_from(["flag", "~flag", "rare == 'signal'", "(run == 2) | (run == 7)"])


@settings(max_examples=8, deadline=None)
@given(texts=st.lists(st.one_of(WHOLE, REAL, OTHER), min_size=1, max_size=3))
def test_entries_are_those_of_a_look_at_everything(odd: sr.Dataset, texts: list[str]) -> None:
    from storagering.formats.expressions import evaluate_mask, parse_expression

    view, mask = odd.where(texts[0]), np.ones(ENTRIES, np.bool_)
    for text in texts[1:]:
        view = view.where(text)
    for text in texts:
        mask &= evaluate_mask(parse_expression(text, odd.schema.names), COLUMNS)
    assert view.entries().tolist() == np.flatnonzero(mask).tolist()
    assert len(view) == mask.sum()


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
def test_a_loader_delivers_exactly_these(odd: sr.Dataset, shuffle: Any) -> None:
    view = odd.where("(d > 0.5) & (rare == 'other')").where("run != 4")
    with DataLoader(view, 64, ["number"], shuffle=shuffle) as loader:
        found = np.concatenate([batch["number"].numpy() for batch in loader])
        assert len(loader) == -(-len(view) // 64)
    assert sorted(found.tolist()) == view.entries().tolist()
    if shuffle is None:
        assert found.tolist() == view.entries().tolist()


def test_a_loader_narrows_a_view_and_reads_no_more_than_it_holds(odd: sr.Dataset, opened: list[str]) -> None:
    view = odd.where("number < 450")
    with DataLoader(view, 10, ["number"], where="run == 1", split=(0, 0.5)) as loader:
        found = sorted(n for batch in loader for n in batch["number"].tolist())
        state = loader.state_dict()
    assert set(found) < set(view.where("run == 1").entries().tolist())
    assert state["where"] == "(number < 450) & (run == 1)"
    assert set(opened) <= {chunk.file for chunk in view.chunks}


def test_views_are_mixed(odd: sr.Dataset) -> None:
    mix = Mix([(odd.where("number < 1200"), 0.75), (odd.where("number >= 1200"), 0.25)])
    with DataLoader(mix, 8, ["number"]) as loader:
        numbers = next(iter(loader))["number"].numpy()
    assert ((numbers < 1200) == (np.arange(8) < 6)).all()


def test_it_can_be_sent_to_another_process(odd: sr.Dataset) -> None:
    view = odd.where("rare == 'signal'")
    again: View = pickle.loads(pickle.dumps(view))
    assert again.entries().tolist() == view.entries().tolist() == np.flatnonzero(COLUMNS["rare"] == "signal").tolist()
