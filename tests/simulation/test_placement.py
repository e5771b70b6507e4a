"""Moves that never break a limit, on the way neither."""

from __future__ import annotations

import random as shuffling
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.errors import ConfigError, NotFoundError, SpecError
from storagering.simulation.inventory import EXAMPLE, read_inventory, read_popularity
from storagering.simulation.placement import Data, Move, Node, propose_moves

NAMES = ("a", "b", "c")
PERIOD = 10.0


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Node], list[Data], dict[str, list[str]]]:
    nodes = [
        Node(
            name,
            draw(st.integers(1, 60)),
            draw(st.floats(0, 6)),
            draw(st.floats(0, 3)),
            draw(st.sampled_from([0.5, 0.8, 1.0])),
        )
        for name in NAMES[: draw(st.integers(1, 3))]
    ]
    names = [node.name for node in nodes]
    datasets, replicas = [], {}
    for number in range(draw(st.integers(0, 7))):
        uses_at = draw(st.dictionaries(st.sampled_from(names), st.floats(0, 20), max_size=2))
        datasets.append(Data(f"d{number}", draw(st.integers(1, 30)), draw(st.floats(0, 40)), uses_at))
        replicas[f"d{number}"] = draw(st.lists(st.sampled_from(names), unique=True))
    return nodes, datasets, replicas


def uses(data: Data, node: Node, nodes: list[Node]) -> float:
    whole = sum(one.demand for one in nodes)
    return data.uses_at.get(node.name, 0.0) if data.uses_at else data.uses * node.demand / whole if whole else 0.0


def saved(nodes: list[Node], datasets: list[Data], holders: dict[str, set[str]]) -> float:
    """Bytes that are read where they lie."""
    return sum(uses(d, n, nodes) * d.nbytes for d in datasets for n in nodes if n.name in holders[d.name])


@settings(max_examples=70, deadline=None)
@given(situation=situations())
def test_no_move_breaks_a_limit(situation: tuple[list[Node], list[Data], dict[str, list[str]]]) -> None:
    nodes, datasets, replicas = situation
    moves = propose_moves(nodes, datasets, replicas, period_seconds=PERIOD)
    size = {data.name: data.nbytes for data in datasets}
    holders = {name: set(at) for name, at in replicas.items()}
    carried = dict.fromkeys(NAMES, 0)
    before = saved(nodes, datasets, holders)
    for move in moves:
        if move.action == "drop":
            assert len(holders[move.dataset]) > 1
            holders[move.dataset].remove(move.node)
            continue
        assert move.node not in holders[move.dataset]
        assert move.source in holders[move.dataset] or (not move.source and not holders[move.dataset])
        holders[move.dataset].add(move.node)
        if move.action == "balance":
            holders[move.dataset].remove(move.source)
        carried[move.node] += size[move.dataset]
        node = next(node for node in nodes if node.name == move.node)
        assert sum(size[d] for d, at in holders.items() if move.node in at) <= node.capacity
        assert carried[move.node] <= node.bandwidth * PERIOD * (1 + 1e-9)
        assert move.nbytes == size[move.dataset]
        assert move.reason
    assert all(holders[name] for name, at in replicas.items() if at)
    copied = sum(move.nbytes for move in moves if move.action != "drop")
    gain = saved(nodes, datasets, holders) - before - copied
    assert sum(move.gain for move in moves) == pytest.approx(gain, abs=1e-6)
    over = {
        n.name for n in nodes if sum(size[d] for d, at in replicas.items() if n.name in at) > n.high_water * n.capacity
    }
    if not over:  # nobody had to be relieved: whatever is proposed pays
        assert not moves or gain > 0
        assert all(move.action != "balance" for move in moves)


@settings(max_examples=30, deadline=None)
@given(situation=situations(), seed=st.integers(0, 9))
def test_the_order_of_what_is_given_does_not_matter(
    situation: tuple[list[Node], list[Data], dict[str, list[str]]], seed: int
) -> None:
    nodes, datasets, replicas = situation
    random = shuffling.Random(seed)
    shuffled = random.sample(nodes, len(nodes)), random.sample(datasets, len(datasets))
    turned = {name: replicas[name][::-1] for name in random.sample(list(replicas), len(replicas))}
    assert propose_moves(*shuffled, turned) == propose_moves(nodes, datasets, replicas)


def test_what_is_used_most_comes_first_and_pushes_out_what_is_used_less() -> None:
    nodes = [Node("big", 100, 100, demand=0), Node("small", 20, 100, high_water=1.0)]
    datasets = [Data("hot", 15, 9), Data("warm", 10, 3), Data("cold", 12, 0.1)]
    moves = propose_moves(nodes, datasets, {"hot": ["big"], "warm": ["big"], "cold": ["big", "small"]})
    assert [(move.action, move.dataset, move.node) for move in moves] == [
        ("drop", "cold", "small"),
        ("add", "hot", "small"),
    ]
    assert moves[1].source == "big"
    assert moves[1].gain == pytest.approx(15 * (9 - 1))


def test_a_full_node_is_relieved_by_moving_what_lies_nowhere_else() -> None:
    nodes = [Node("full", 100, 10, demand=0), Node("empty", 100, 10, demand=0)]
    moves = propose_moves(nodes, [Data("one", 60), Data("two", 39)], {"one": ["full"], "two": ["full"]})
    assert [(move.action, move.dataset, move.source, move.node) for move in moves] == [
        ("balance", "one", "full", "empty")
    ]
    assert "full is 99 % full" in moves[0].reason


def test_what_the_network_cannot_bring_is_not_proposed() -> None:
    data, replicas = [Data("hot", 50, 100)], {"hot": ["far"]}
    slow = [Node("far", 100, 1, demand=0), Node("here", 100, 4)]
    assert not propose_moves(slow, data, replicas, period_seconds=10)
    assert len(propose_moves(slow, data, replicas, period_seconds=13)) == 1


def test_ten_thousand_datasets_are_no_trouble() -> None:
    random = shuffling.Random(1)
    nodes = [Node(f"n{n}", 900_000, 1.0) for n in range(5)]
    datasets = [Data(f"d{n}", random.randint(1, 1000), random.expovariate(0.05)) for n in range(10_000)]
    replicas = {data.name: random.sample([f"n{n}" for n in range(5)], random.choice([0, 1, 1])) for data in datasets}
    moves = propose_moves(nodes, datasets, replicas)
    assert len(moves) > 1000


@pytest.mark.parametrize(
    ("nodes", "datasets", "replicas", "told"),
    [
        ([], [], {}, "at least one node"),
        ([Node("a", 1, 1)] * 2, [], {}, "each node and dataset once"),
        ([Node("a", 0, 1)], [], {}, "capacity=0"),
        ([Node("a", 1, float("nan"))], [], {}, "bandwidth=nan"),
        ([Node("a", 1, 1)], [Data("d", 0)], {}, "dataset 'd': 0 bytes"),
        ([Node("a", 1, 1)], [Data("d", 1, -1)], {}, "dataset 'd'"),
        ([Node("aa", 1, 1)], [Data("d", 1, 1, {"ab": 1})], {}, "nearest names: 'aa'"),
        ([Node("a", 1, 1)], [Data("d", 1)], {"e": []}, "unknown dataset 'e'"),
        ([Node("a", 1, 1)], [Data("d", 1)], {"d": ["b"]}, "unknown node 'b'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    nodes: list[Node], datasets: list[Data], replicas: dict[str, list[str]], told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        propose_moves(nodes, datasets, replicas)
    with pytest.raises(SpecError, match="period"):
        propose_moves([Node("a", 1, 1)], [], {}, period_seconds=0)


def test_the_example_is_a_sensible_file(tmp_path: Path) -> None:
    path = tmp_path / "nodes.toml"
    path.write_text(EXAMPLE)
    known = read_inventory(path)
    assert known.period_seconds == 7 * 86_400
    assert known.nodes[0] == Node("t1-kit", 40 * 10**12, 5e8, 3)
    moves = propose_moves(known.nodes, known.datasets, known.replicas, period_seconds=known.period_seconds)
    assert {move.action for move in moves} == {"add", "drop"}
    assert isinstance(moves[0], Move)


def test_expected_uses_come_from_a_file(tmp_path: Path) -> None:
    path, scores = tmp_path / "nodes.toml", tmp_path / "scores.csv"
    path.write_text(EXAMPLE)
    scores.write_text("dataset,node,score\nAOD-2016,t2-desy,70\nAOD-2016,,1\nelse,,3\n")
    assert read_popularity(scores)["AOD-2016"] == {"t2-desy": 70.0, "": 1.0}
    known = read_inventory(path, popularity=scores)
    assert {data.name: (data.uses, dict(data.uses_at)) for data in known.datasets} == {
        "NANOAOD-2025": (0.0, {}),
        "MINIAOD-2025": (0.0, {}),
        "NANOAOD-2018": (0.0, {}),
        "AOD-2016": (0.0, {"t2-desy": 70.0}),
    }
    scores.write_text("dataset,score\nMINIAOD-2025,5\n")
    assert [data.uses for data in read_inventory(path, popularity=scores).datasets] == [0, 5, 0, 0]
    scores.write_text("name,score\n")
    with pytest.raises(SpecError, match="columns dataset and score"):
        read_popularity(scores)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[[nodes]]", "[[node]]", "unknown key 'node'"),
        ("demand = 3", "demnd = 3", "unknown key 'demnd' in .*nearest names: 'demand'"),
        ('capacity = "40TB"', "", "one of .*nodes.* has no capacity"),
        ('"40TB"', '"40 boxes"', "'40 boxes' is not a size"),
        ('"40TB"', '"40%"', "'40%' is not a size"),
        ("demand = 3", 'demand = "much"', "demand: 'much' is not a number"),
        ('replicas = ["t1-kit"]', "replicas = 3", "not a list of nodes"),
        ("uses_at = {", "uses_at = 3 # {", "not a table"),
        ("period_days = 7", "period_days = ", "is not TOML"),
    ],
)
def test_a_bad_file_is_told_where_it_is_bad(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "nodes.toml"
    path.write_text(EXAMPLE.replace(old, new))
    with pytest.raises(ConfigError, match=told):
        read_inventory(path)
    with pytest.raises(NotFoundError, match="--example"):
        read_inventory(tmp_path / "none.toml")


def test_node_marks_can_be_changed() -> None:
    node = replace(Node("a", 100, 10), high_water=0.5)
    other = Node("b", 100, 10)
    moves = propose_moves([node, other], [Data("d", 60)], {"d": ["a"]})
    assert [move.action for move in moves] == ["balance"]
