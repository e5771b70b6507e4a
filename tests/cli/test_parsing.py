from __future__ import annotations

import argparse

import pytest

from storagering.cli.parsing import parse_definitions, parse_labels, parse_size
from storagering.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("16MiB", 16 << 20),
        ("8MB", 8_000_000),
        ("1.5 KiB", 1536),
        ("2gib", 2 << 30),
        ("3GB", 3 * 10**9),
        ("100B", 100),
        ("64kB", 64_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "16M", "3QB", "1e6", "16 MiB x", "iB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="16MiB"):
        parse_size(text)


def test_labels_take_several_words_and_repeat() -> None:
    words = [["top=a.root", "b.root"], ["qcd=root://h//c.root?x=1"], ["top=d.root"]]
    assert parse_labels(words) == {"top": ["a.root", "b.root", "d.root"], "qcd": ["root://h//c.root?x=1"]}


@pytest.mark.parametrize("first", ["a.root", "=a.root", "top=", "root://h//c.root?x=1", "/data/x=1.root"])
def test_labels_that_are_none(first: str) -> None:
    with pytest.raises(InputError, match="CLASS=SOURCE"):
        parse_labels([[first]])


def test_definitions_are_cut_at_the_first_equals_sign() -> None:
    assert parse_definitions(["ht = sum(Jet_pt)", "same=nJet == 2"]) == {"ht": "sum(Jet_pt)", "same": "nJet == 2"}


@pytest.mark.parametrize("text", ["ht", "=3", "ht=", "ht==3"])
def test_definitions_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="NAME=EXPRESSION"):
        parse_definitions([text])


def test_a_name_is_defined_once() -> None:
    with pytest.raises(InputError, match="twice"):
        parse_definitions(["a=1", "a=2"])
