"""Friends: several trees with the same entries as one dataset."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.api import convert
from storagering.cache.messages import encode_reply, urls_of
from storagering.config import load_settings
from storagering.errors import NotFoundError, SchemaError, SourceChangedError, SpecError
from storagering.formats.readers import open_source
from storagering.formats.readers.friends import JoinedSource, with_friends
from storagering.formats.source import Location

ENTRIES = 900


def columns_of(seed: int, *names: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=ENTRIES).astype(np.float32) for n in names} | {"event": np.arange(ENTRIES)}


def write(path: Path, trees: dict[str, dict[str, Any]], step: dict[str, int]) -> str:
    with uproot.recreate(path) as file:
        for name, columns in trees.items():
            tree = file.mktree(name, {n: c.dtype for n, c in columns.items()}, title=name)
            for start in range(0, len(columns["event"]), step[name]):
                tree.extend({n: c[start : start + step[name]] for n, c in columns.items()})
    return str(path)


@pytest.fixture
def trees() -> dict[str, dict[str, Any]]:
    return {"Events": columns_of(1, "pt", "eta"), "scores/Tagger": columns_of(2, "score"), "Calib": columns_of(3, "pt")}


STEPS = {"Events": 100, "scores/Tagger": 60, "Calib": 300}


@pytest.fixture
def one_file(tmp_path: Path, trees: dict[str, dict[str, Any]]) -> str:
    return write(tmp_path / "all.root", trees, STEPS)


WANT = {"pt": ("Events", "pt"), "eta": ("Events", "eta"), "event": ("Events", "event")} | {
    "score": ("scores/Tagger", "score"),
    "Tagger.event": ("scores/Tagger", "event"),
    "Calib.pt": ("Calib", "pt"),
    "Calib.event": ("Calib", "event"),
}


def check(dataset: Any, trees: dict[str, dict[str, Any]], times: int = 1) -> None:
    arrays = dataset.arrays()
    assert arrays.fields == list(WANT)
    for name, (tree, column) in WANT.items():
        assert ak.array_equal(arrays[name], np.tile(trees[tree][column], times), dtype_exact=True), name


@pytest.mark.parametrize("workers", [1, 2])
def test_trees_of_the_same_file(one_file: str, trees: dict[str, dict[str, Any]], workers: int) -> None:
    options: dict[str, Any] = {"tree": "Events", "friends": ["scores/Tagger", "Calib"], "workers": workers}
    dataset = convert(one_file, name="joined", chunk_bytes=4096, **options)
    check(dataset, trees)
    assert dataset.manifest.spec.friends == ("scores/Tagger", "Calib")
    assert dataset.manifest.sources[0].nbytes == Path(one_file).stat().st_size


def test_expressions_use_friends(one_file: str, trees: dict[str, dict[str, Any]]) -> None:
    define = {"scaled": "pt * `Calib.pt`"}
    friends = ["Calib", "scores/Tagger"]
    dataset = convert(
        one_file, name="some", tree="Events", friends=friends, columns=["eta"], where="score > 1", define=define
    )
    keep = trees["scores/Tagger"]["score"] > 1
    arrays = dataset.arrays()
    assert np.array_equal(arrays.eta, trees["Events"]["eta"][keep])
    assert np.array_equal(arrays.scaled, (trees["Events"]["pt"] * trees["Calib"]["pt"])[keep])


def test_other_files_go_one_by_one(tmp_path: Path, trees: dict[str, dict[str, Any]]) -> None:
    main, extra, single = ([] for _ in range(3))  # type: tuple[list[str], list[str], list[str]]
    for number in range(2):
        main.append(write(tmp_path / f"main{number}.root", {"Events": trees["Events"]}, STEPS))
        extra.append(write(tmp_path / f"extra{number}.root", {"scores/Tagger": trees["scores/Tagger"]}, STEPS))
        single.append(write(tmp_path / f"single{number}.root", {"Calib": trees["Calib"]}, STEPS))
    friends = [f"{tmp_path}/extra*.root:scores/Tagger", f"{tmp_path}/single*.root:"]
    dataset = convert(main, name="joined", friends=friends, chunk_bytes=4096, workers=2)
    check(dataset, trees, times=2)
    assert dataset.manifest.spec.friends == (f"{extra[0]},{extra[1]}:scores/Tagger", f"{single[0]},{single[1]}:")
    sizes = [sum(Path(group[n]).stat().st_size for group in (main, extra, single)) for n in range(2)]
    assert [file.nbytes for file in dataset.manifest.sources] == sizes
    with pytest.raises(SpecError, match=r"1 file\(s\) for 2 source\(s\)"):
        convert(main, name="odd", friends=[f"{extra[0]}:scores/Tagger"])
    with pytest.raises(NotFoundError, match="no such file"):
        convert(main, name="odd", friends=[f"{tmp_path}/none*.root:Tagger"])


def test_a_friend_of_unknown_version_makes_that_of_all_unknown(one_file: str) -> None:
    with closing(open_source(one_file, "Events", load_settings())) as first:
        assert JoinedSource([first, first], same_file=[False]).version == f"{first.version}+{first.version}"
        with closing(open_source(one_file, "Calib", load_settings())) as other:
            other.version = ""
            assert JoinedSource([first, other], same_file=[False]).version == ""


def test_a_friend_that_changed_since_is_noticed(tmp_path: Path, trees: dict[str, dict[str, Any]]) -> None:
    main, extra = (write(tmp_path / f"{name}.root", {name: trees[name]}, STEPS) for name in ("Events", "Calib"))
    first = convert(main, name="x", friends=[f"{extra}:Calib"], workers=1)
    assert convert(main, name="x", friends=[f"{extra}:Calib"], workers=1).manifest == first.manifest
    os.utime(extra, ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"has changed since dataset 'x' was made"):
        convert(main, name="x", friends=[f"{extra}:Calib"], workers=1)


def test_no_token_of_a_friend_is_in_a_reply() -> None:
    location = Location(
        "https://h/a?token=s3cr3t1", ("https://r/a?token=s3cr3t2",), "", (("https://h/f?token=s3cr3t3", "f"),)
    )

    def fail() -> Any:
        raise RuntimeError(f"cannot parse {location}")

    reply = encode_reply(fail, urls_of([location]))
    assert b"cannot parse" in reply
    assert b"s3cr3t" not in reply


def test_urls_hold_colons_too() -> None:
    settings = load_settings()
    location = [Location("root://host:1094//a.root")]
    for friend, want in {
        "Calib": ("", "Calib"),
        "dir/Calib;2": ("", "dir/Calib;2"),
        "root://host:1094//f.root:dir/Calib": ("root://host:1094//f.root", "dir/Calib"),
        "root://host:1094//f.root": ("root://host:1094//f.root", None),
        "https://user:secret@host/f.root": ("https://user:secret@host/f.root", None),
    }.items():
        found, told = with_friends(location, [friend], settings)
        assert found[0].friends == (want,)
        assert "secret" not in told[0]


def test_other_numbers_of_entries_are_refused(tmp_path: Path) -> None:
    short = {"event": np.arange(10)}
    path = write(tmp_path / "short.root", {"Events": columns_of(1, "pt"), "Short": short}, {"Events": 100, "Short": 5})
    with pytest.raises(SchemaError, match=r"has 900 entries in 'Events'.*'Short' of .*short.root has 10"):
        convert(path, name="odd", tree="Events", friends=["Short"])
    with pytest.raises(NotFoundError, match=r"no tree 'Shorts'.*Short"):
        convert(path, name="odd", tree="Events", friends=["Shorts"])


def test_names_that_stay_ambiguous_are_refused(one_file: str) -> None:
    with pytest.raises(SchemaError, match=r"'pt' and 'Calib\.pt' are both taken"):
        convert(one_file, name="odd", tree="Events", friends=["Calib", "Calib"])


def test_blocks_and_columns_are_those_of_all(one_file: str) -> None:
    source = open_source(Location(one_file, friends=(("", "scores/Tagger"), ("", "Calib"))), "Events", load_settings())
    assert source.boundaries(["pt"]) == list(range(0, 901, 100))
    assert source.boundaries(["pt", "Tagger.event"]) == [0, 300, 600, 900]
    assert source.doc("Calib.pt") == ""
    assert list(source.read(["Calib.pt", "pt"], 0, 5)) == ["Calib.pt", "pt"]
    assert source.self_checked is False
    source.close()
