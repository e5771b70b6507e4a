"""Datasets of weaver-core's data configurations, compared with what weaver does: run the expressions as Python."""

import builtins
import math
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml
from tests.formats.weaver_files import AK4, AK15, CONFIGS, JETCLASS, MASS, TOP, write_jets

from storagering.api import convert
from storagering.cache.weaver import with_weaver
from storagering.cli import main
from storagering.config import load_settings
from storagering.errors import CorruptDataError, SchemaError, SpecError
from storagering.formats.readers.ttree import TreeSource
from storagering.formats.source import Location
from storagering.formats.weaver import read_weaver
from storagering.types import ConversionSpec

JETS = 3000


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_jets(tmp_path_factory.mktemp("weaver") / "jets.root", JETS))


def weavers_way(text: str, root: str) -> tuple[dict[str, Any], ak.Array]:
    """The configuration, and the selected entries with all new variables that can be computed."""

    def clip(array: Any, low: float, high: float) -> Any:
        return ak.unflatten(np.clip(ak.to_numpy(ak.flatten(array)), low, high), ak.num(array))

    options = yaml.safe_load(text.replace("awkward.JaggedArray", "ak"))
    with uproot.open(root) as file:
        table = file["jets"].arrays()
    variables = dict(options["new_variables"])
    if options["labels"]["type"] == "custom":
        variables |= options["labels"]["value"]

    def evaluate(expression: str, table: Any) -> Any:
        columns = {name: table[name] for name in table.fields}
        return builtins.eval(expression, {"np": np, "ak": ak, "math": math, "_clip": clip, **columns})

    selection = options.get("selection")
    if selection:
        for name in [n for n in variables if n in selection]:
            table[name] = evaluate(variables[name], table)
        table = table[ak.values_astype(evaluate(selection, table), bool)]
    for name, expression in variables.items():
        if name != "unused":
            table[name] = evaluate(expression, table)
    return options, table


def histograms(options: dict[str, Any], table: ak.Array) -> tuple[dict[str, Any], list[Any]]:
    """Counts of each class, and the bin of every entry on both axes."""
    weights = options["weights"]
    axes = [(np.asarray(table[name]), edges) for name, edges in weights["reweight_vars"].items()]
    numbers = [np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2) for x, edges in axes]
    inside = np.all([(x >= edges[0]) & (x <= edges[-1]) for x, edges in axes], axis=0)
    if weights.get("reweight_discard_under_overflow", True):
        numbers = [np.where(inside, number, -1) for number in numbers]
    counts = {}
    for name in weights["reweight_classes"]:
        count = np.zeros([len(edges) - 1 for _, edges in axes], np.float32)
        own = (np.asarray(table[name]) == 1) & (numbers[0] >= 0)
        np.add.at(count, (numbers[0][own], numbers[1][own]), 1)
        counts[name] = count
    return counts, numbers


@pytest.mark.parametrize("name", CONFIGS)
def test_columns_equal_weavers(tmp_path: Path, jets: str, name: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(CONFIGS[name])
    options, table = weavers_way(CONFIGS[name], jets)
    dataset = convert(jets, name=name, weaver=path, chunk_bytes=50_000)
    arrays = dataset.arrays()
    assert 0 < len(arrays) == len(table)
    assert len(arrays) < JETS or not options.get("selection")
    wanted = {v if isinstance(v, str) else v[0] for group in options["inputs"].values() for v in group["vars"]}
    wanted |= {*(options.get("observers") or ()), *(options.get("monitor_variables") or ())}
    if options["labels"]["type"] == "custom":
        wanted |= set(options["labels"]["value"])
    for column in wanted:
        # Python's 0 for what is missing makes weaver's float32 a float64.
        exact = column != "lead"
        assert ak.array_equal(arrays[column], table[column], equal_nan=True, dtype_exact=exact), column
    if options["labels"]["type"] == "simple":
        classes = options["labels"]["value"]
        label = np.argmax(np.stack([ak.to_numpy(table[c]) for c in classes], axis=1), axis=1)
        assert ak.array_equal(arrays.label, label, dtype_exact=True)
        assert dataset.manifest.spec.classes == tuple(classes)


def test_precomputed_weights_are_multiplied(tmp_path: Path, jets: str) -> None:
    (tmp_path / "data.yaml").write_text(AK4)
    _, table = weavers_way(AK4, jets)
    dataset = convert(jets, name="ak4", weaver=tmp_path / "data.yaml")
    assert ak.array_equal(dataset.arrays().weight, table.weight * table.jet_class_weight, dtype_exact=True)


@pytest.mark.parametrize(("text", "sizes"), [(AK15, [1, 0.8, 2.5]), (MASS, [1, 1])])
def test_reweighting_makes_spectra_alike(tmp_path: Path, jets: str, text: str, sizes: list[float]) -> None:
    (tmp_path / "data.yaml").write_text(text)
    options, table = weavers_way(text, jets)
    weight = np.asarray(convert(jets, name="jets", weaver=tmp_path / "data.yaml").arrays().weight)
    assert weight.dtype == np.float32
    assert weight.max() <= 2.5
    counts, numbers = histograms(options, table)
    inside = numbers[0] >= 0
    classes = {name: np.asarray(table[name]) == 1 for name in counts}
    assert not weight[~inside | ~np.any(list(classes.values()), axis=0)].any()
    totals = {name: weight[own].sum() for name, own in classes.items()}
    for (name, total), size in zip(totals.items(), sizes, strict=True):
        assert total / totals["label_QCD"] == pytest.approx(size / sizes[0], rel=1e-4), name
    for name, own in classes.items():
        spectrum = np.zeros_like(counts[name], np.float64)
        np.add.at(spectrum, (numbers[0][own & inside], numbers[1][own & inside]), weight[own & inside])
        full = counts[name] > np.percentile(counts[name][counts[name] > 0], 15)
        if text is AK15:  # flat wherever there are entries enough
            assert np.ptp(spectrum[full]) < 1e-3 * spectrum.max()
        else:  # that of the first class, in proportion
            reference = counts["label_QCD"]
            ratio = spectrum[counts[name] > 0] / reference[counts[name] > 0]
            assert np.mean(np.isclose(ratio, np.median(ratio), rtol=1e-3)) >= 0.5


def test_tables_in_the_configuration_are_taken_as_they_are(tmp_path: Path, jets: str) -> None:
    options, table = weavers_way(AK15, jets)
    rng = np.random.default_rng(4)
    tables = {name: rng.random((7, 7)).round(3) for name in options["weights"]["reweight_classes"]}
    options["weights"]["reweight_hists"] = {name: array.tolist() for name, array in tables.items()}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(options))
    dataset = convert(jets, name="jets", weaver=tmp_path / "data.yaml")
    _, numbers = histograms(options, table)
    want = np.zeros(len(table), np.float32)
    for name, array in tables.items():
        own = (np.asarray(table[name]) == 1) & (numbers[0] >= 0)
        want[own] = array.astype(np.float32)[numbers[0][own], numbers[1][own]]
    assert np.array_equal(np.asarray(dataset.arrays().weight), want)


def test_the_same_weights_from_many_files_and_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(write_jets(tmp_path / f"jets{n}.root", 700, seed=n)) for n in range(3)]
    (tmp_path / "data.yaml").write_text(AK15)
    manifests = []
    for workers in (1, 2):
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / f"cache{workers}"))
        dataset = convert(paths, name="jets", weaver=tmp_path / "data.yaml", workers=workers, chunk_bytes=20_000)
        manifests.append(dataset.manifest)
    assert manifests[0] == manifests[1]
    assert convert(paths, name="jets", weaver=tmp_path / "data.yaml", chunk_bytes=20_000).manifest == manifests[1]


def test_bad_sources_are_left_out_of_the_weights(tmp_path: Path, jets: str) -> None:
    bad = tmp_path / "bad.root"
    bad.write_bytes(Path(jets).read_bytes()[:3000])
    (tmp_path / "data.yaml").write_text(AK15)
    good = convert(jets, name="good", weaver=tmp_path / "data.yaml").manifest
    with pytest.raises(CorruptDataError, match=r"bad\.root"):
        convert([str(bad), jets], name="x", weaver=tmp_path / "data.yaml")
    made = convert([str(bad), jets], name="x", weaver=tmp_path / "data.yaml", on_bad_source="skip").manifest
    assert [source.url for source in made.skipped_sources] == [str(bad)]
    assert made.spec.define == good.spec.define
    with pytest.raises(CorruptDataError, match=r"bad\.root"):
        convert(str(bad), name="y", weaver=tmp_path / "data.yaml", on_bad_source="skip")


def test_the_first_look_reads_only_what_it_needs(tmp_path: Path, jets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    read = TreeSource.read

    def note(self: TreeSource, names: Any, start: int, stop: int) -> dict[str, Any]:
        asked.update(names)
        return read(self, names, start, stop)

    monkeypatch.setattr(TreeSource, "read", note)
    (tmp_path / "data.yaml").write_text(MASS.replace("selection: jet_tightId", ""))
    spec = with_weaver(ConversionSpec(((jets, None),)), tmp_path / "data.yaml", [Location(jets)], load_settings())
    assert spec.define[-1][0] == "weight"
    assert asked == {"jet_pt", "jet_eta", "label_QCD", "label_Hbb"}


def test_only_training_demands_one_class_for_each_entry(tmp_path: Path, jets: str) -> None:
    (tmp_path / "data.yaml").write_text(TOP.replace("1-label", "(1-label) * (jet_pt>500)"))
    with pytest.raises(SpecError, match="no class"):
        convert(jets, name="train", weaver=tmp_path / "data.yaml")
    arrays = convert(jets, name="test", weaver=read_weaver(tmp_path / "data.yaml", test=True), columns=["label_Tbqq"])
    arrays = arrays.arrays()
    want = np.argmax([arrays.label_Tbqq, ~arrays.label_Tbqq & (arrays.jet_pt > 500)], axis=0)
    assert np.array_equal(arrays.label, want)


def test_what_is_given_beside_the_configuration_is_added(tmp_path: Path, jets: str) -> None:
    (tmp_path / "data.yaml").write_text(TOP)
    config = read_weaver(tmp_path / "data.yaml", test=True)
    more: dict[str, Any] = {"columns": ["event_no"], "define": {"half": "jet_pt / 2"}, "where": "jet_isTop == 1"}
    dataset = convert(jets, name="top", weaver=config, precision={"jet_pt": 8}, **more)
    arrays = dataset.arrays()
    assert set(arrays.label.tolist()) == {0}
    assert {"event_no", "half", "jet_isTop"} <= set(arrays.fields)
    assert dict(zip(dataset.schema.names, dataset.schema.columns, strict=True))["jet_pt"].mantissa_bits == 8
    with pytest.raises(SpecError, match="without --label"):
        convert({"a": jets}, name="odd", weaver=config)


def test_what_the_files_lack_is_told(tmp_path: Path, jets: str) -> None:
    path = tmp_path / "data.yaml"
    for change, error, message in [
        (("- jet_eta", "- jet_etaa"), SchemaError, "'jet_etaa' matches no column.*jet_eta"),
        (("np.hypot(part_px, part_py)", "np.hypot(part_px, part_pyy)"), SpecError, "no column 'part_pyy'.*part_py"),
        (("label_Tbqq]", "label_Hbb]"), SpecError, "belongs to (no|several) class"),
        (("[label_QCD, ", "[sample_isQCD, label_QCD, "), SpecError, "belongs to several classes"),
        (("label_Hbb, label_Tbqq]", "label_Hbb]"), SpecError, "belongs to no class"),
    ]:
        assert change[0] in JETCLASS
        path.write_text(JETCLASS.replace(*change))
        with pytest.raises(error, match=message):
            convert(jets, name="odd", weaver=path)
    path.write_text(AK15.replace("jet_sdmass: [30", "jet_sdmass: [5000, 6000] #"))
    with pytest.raises(SpecError, match="no selected entry of class 'label_QCD' lies in the bins"):
        convert(jets, name="odd", weaver=path)


def test_from_the_command_line(tmp_path: Path, jets: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.yaml").write_text(AK4)
    arguments = ["convert", jets, "--weaver", str(tmp_path / "data.yaml"), "--precision", "part_*=7"]
    assert main([*arguments, "--name", "train"]) == 0
    assert "label_b, 1 is label_c" in capsys.readouterr().out
    assert main([*arguments, "--name", "test", "--weaver-test"]) == 0
    assert main(["info", "test"]) == 0
    shown = capsys.readouterr().out
    assert "bits" in shown
    assert "weight" not in [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert main(["convert", jets, "--name", "odd", "--weaver-test"]) == 2
    assert "--weaver-test needs --weaver" in capsys.readouterr().err
    assert main(["convert", jets, "--name", "odd", "--precision", "part_*"]) == 2
    assert "write PATTERN=BITS" in capsys.readouterr().err
