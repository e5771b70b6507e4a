"""weaver-core's data configurations in our words, and what of them is refused."""

import builtins
import math
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from tests.formats.weaver_files import AK4, AK15, CONFIGS, JETCLASS, MASS, TOP

from storagering.errors import MissingExtraError, NotFoundError, SpecError
from storagering.formats.expressions import parse_expression
from storagering.formats.weaver import InputVariable, WeaverConfig, define_weight, read_weaver
from storagering.formats.weaver_expressions import names_in, translate, translate_selection

X = ak.values_astype(ak.Array([[50.0, -30.0, 20.0], [], [10.0]]), np.float32)
#: Where Awkward Array promotes for a constant.
PROMOTED = ("np.where(n, pt, -1)", "ak.fill_none(ak.max(x, axis=1), -1.)", "ak.firsts(ak.sort(x, ascending=False))")
COLUMNS: dict[str, Any] = {
    "x": X,
    "y": ak.Array([[1.5, 2.5, 0.25], [], [-3.0]]),
    "pt": ak.Array(np.array([5.0, 0.0, 25.0], np.float32)),
    "n": ak.Array(np.array([3, 0, 1], np.int32)),
    "good": X > 0,
    "flag": ak.Array(np.array([True, False, True])),
    "pi": ak.Array(np.array([1, 2, 3])),
}


def read(tmp_path: Path, text: str, **options: Any) -> WeaverConfig:
    (tmp_path / "data.yaml").write_text(text)
    return read_weaver(tmp_path / "data.yaml", **options)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "np.log(x / pt)",
            "np.hypot(x, y) + 1",
            "np.abs(x) ** 0.5",
            "-x // 3 % 7",
            "math.pi * pt",
            "np.pi - n",
            "pi + 1",
        ),
        *("ak.ones_like(x)", "ak.zeros_like(n)", "np.square(y)", "np.power(pt, 2)", "np.nan_to_num(np.log(y))"),
        *("np.where(flag, pt, n)", "np.where(n, pt, -1)", "ak.where((n > 0) & flag, x, y)", "np.where(pt > n, 1, 0)"),
        *("_clip(y, -1, 2)", "np.minimum(pt, 10)", "np.logical_and(n, flag)", "np.logical_not(n > 1) | flag"),
        *("ak.num(x)", "ak.sum(x, axis=1)", "np.sum(x, axis=-1)", "ak.any(x > 20, axis=1)", "ak.count(x, axis=1)"),
        *(
            "ak.fill_none(ak.max(x, axis=1), -1.)",
            "ak.firsts(ak.sort(x, ascending=False))",
            "ak.num(x[x > 0])",
            "ak.num(x[good])",
        ),
        *("x[:, :2]", "ak.values_astype(pt, 'float64')", "ak.to_numpy(pt) - np.float32(n)", "(n == 3) ^ flag", "1 - n"),
        *("np.nan_to_num(ak.mean(x, axis=1))", "ak.std(y, axis=1)", "~(ak.mean(x, axis=1) > 12)", "np.nan * pt"),
        *("np.asarray(n, dtype='float32') / 2", "np.array(n, np.float64) / 3", "np.asarray(pt)"),
        *("np.less(n, 2)", "np.arctan2(y, pt)", "math.e + pt", "np.exp(-y) * True", "(n << 2) | 1", "np.arcsinh(y)"),
    ],
)
def test_expressions_mean_the_same(text: str) -> None:
    """Weaver runs them as Python; so does this test, to compare."""
    helpers = {"_clip": lambda a, low, high: ak.where(a < low, low, ak.where(a > high, high, a))}
    with np.errstate(all="ignore"):
        want = builtins.eval(text, {"np": np, "ak": ak, "math": math, **helpers, **COLUMNS})
    ours = translate("new variable 'v'", text)
    got = parse_expression(ours, list(COLUMNS)).evaluate(COLUMNS)
    want = ak.Array(want)
    if "?" in str(want.type):
        want = ak.fill_none(want, np.nan)
    assert ak.array_equal(got, want, equal_nan=True, dtype_exact=text not in PROMOTED), ours


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "np.linalg.norm(x)",
            r"new variable 'v': 'np.linalg.norm\(x\)' has no counterpart; there are .*arctan2.*where",
        ),
        ("1 + ak.flatten(x)", r"'ak.flatten\(x\)' of '1 \+ ak.flatten\(x\)' has no counterpart"),
        ("_p4_from_pxpypze(x, x, x, x)", "has no counterpart"),
        ("ak.sum(x)", "combines entries: only axis=1"),
        ("ak.sum(x, axis=0)", "combines entries"),
        ("ak.max(x, axis=1, mask_identity=False)", "takes no mask_identity="),
        ("x if flag else y", "np.where for if"),
        ("flag and n", "no counterpart"),
        ("not flag", "write ~ for not"),
        ("0 < n < 3", r"write \(a < b\) & \(b < c\)"),
        ("x[0]", "index inside entries"),
        ("x[-1]", "index inside entries"),
        ("x[n > 1, 0]", "index inside entries"),
        ("n.astype('float32')", "no counterpart"),
        ("np.inf", "constants are pi, e"),
        ("__import__('os').system('true')", "no counterpart"),
        ("(lambda: 3)()", "no counterpart"),
        ("np.sqrt(x, out=x)", "takes no keywords"),
        ("np.asarray(n, 'float16')", "has no counterpart"),
        ("np.array(n, dtype='int8')", "takes no keywords"),
        ("ak.to_numpy(n, False)", "has no counterpart"),
        ("1j", "no constant"),
        ("a +", "is not an expression"),
        ("(" * 500 + "n" + ")" * 500, "is not an expression"),
    ],
)
def test_what_has_no_counterpart_is_named(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        translate("new variable 'v'", text)
    assert ("is not an expression" in str(caught.value)) == (message == "is not an expression")


def test_selections_are_true_or_false() -> None:
    assert translate_selection("selection", "n") == "(n != 0)"
    assert translate_selection("selection", "flag & (n > 1)") == "((flag & (n > 1)) != 0)"
    assert translate_selection("selection", "~(n > 1) & np.isfinite(pt)") == "((~(n > 1)) & isfinite(pt))"
    assert translate_selection("selection", "True") == "True"
    assert names_in("np.where(b, a, f(c)) + b") == ("b", "a", "c")


def test_what_a_configuration_says(tmp_path: Path) -> None:
    config = read(tmp_path, JETCLASS)
    assert config.selection is None
    assert config.classes == ("label_QCD", "label_Hbb", "label_Tbqq")
    assert dict(config.define)["part_logptrel"] == "log((part_pt / jet_pt))"
    assert config.define[-1] == ("label", "class_of(label_QCD, label_Hbb, label_Tbqq)")
    names = [name for name, _ in config.define]
    assert names.index("part_pt") < names.index("part_pt_log")
    assert set(config.columns).isdisjoint({"part_d0val", "label_QCD"})  # only needed to compute
    assert {"part_px", "part_deta", "jet_nparticles"} <= set(config.columns)
    points, features, _, mask = config.inputs
    assert (points.name, points.length, points.pad_mode) == ("pf_points", 128, "wrap")
    assert features.variables[0] == InputVariable("part_pt_log", 1.7, 0.7, -5.0, 5.0, 0.0)
    assert features.variables[5] == InputVariable("part_d0err", 0.0, 1.0, 0.0, 1.0, 0.0)
    assert mask.pad_mode == "constant"
    assert config.reweighting is None


def test_automatic_standardisation(tmp_path: Path) -> None:
    features = read(tmp_path, TOP).inputs[0].variables
    assert [v.center for v in features] == ["auto", -4.7, "auto"]
    params = "{part_deta: {length: 64, pad_mode: wrap, center: 0.5, scale: 2, min: -3, max: 3, pad_value: 1}}"
    found = read(tmp_path, TOP.replace("data_fraction: 0.5", f"params: {params}")).inputs[0].variables
    assert found[2] == InputVariable("part_deta", 0.5, 2.0, -3.0, 3.0, 1.0)


def test_labels_may_hide_a_column_that_they_are_made_of(tmp_path: Path) -> None:
    config = read(tmp_path, TOP)
    assert config.tree == "jets"
    assert config.define[-3:] == (
        ("jet_isTop", "label"),
        ("jet_isQCD", "(1 - label)"),
        ("label", "class_of(jet_isTop, jet_isQCD)"),
    )
    for odd in (TOP.replace("(jet_pt>400)", "(label==1)"), TOP.replace("observers: [jet_pt", "observers: [label")):
        with pytest.raises(SpecError, match="'label' is a variable here, and in the dataset the number of the class"):
            read(tmp_path, odd)


def test_testing_has_its_own_selection_and_no_weights(tmp_path: Path) -> None:
    train, test = read(tmp_path, AK4), read(tmp_path, AK4, test=True)
    assert train.selection is not None
    assert "event_no" in train.selection
    assert test.selection == "((abs(jet_eta) < 4.7) & (jet_pt > 10))"
    assert dict(train.define)["weight"] == "weight * jet_class_weight"
    assert "weight" not in dict(test.define)
    assert dict(test.define)["label"] == "largest_of(label_b, label_c, label_udsg, label_pu)"
    assert train.monitor_variables == ("jet_pt",)
    assert read(tmp_path, TOP, test=True).selection == read(tmp_path, TOP).selection


def test_custom_labels_and_weights(tmp_path: Path) -> None:
    config = read(tmp_path, MASS)
    assert config.classes == ()
    assert config.labels == ("target_mass", "is_signal")
    text = "maximum(1, where((label_Hbb != 0), jet_genmass, jet_sdmass))"
    assert dict(config.define)["target_mass"] == text
    reweighting = config.reweighting
    assert reweighting
    assert dict(reweighting.variables) == {"jet_pt": (0, 300, 500, 700, 900), "jet_eta": (-1, 0, 1)}
    assert not reweighting.class_weights
    weight = define_weight(reweighting, {"label_QCD": [0.5] * 8, "label_Hbb": [0.25] * 8})
    assert weight.startswith("float32(where((label_Hbb == 1), pick(bin_of(jet_pt, 0, 300, 500, 700, 900) * 2 + bin_of(")
    with pytest.raises(SpecError, match="'label_QCD' has 7 weights"):
        define_weight(reweighting, {"label_QCD": [0.5] * 7})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("observers:", "observer:"), r"section 'observer' has no counterpart here.*observers"),
        (("observers:", "file_magic:"), "--label CLASS=SOURCE"),
        (("type: simple", "type: other"), "simple or custom, not 'other'"),
        (("[label_QCD, label_Hbb, label_Tbqq]", "[label_QCD]"), "two classes or more"),
        (("pad_mode: wrap", "pad_mode: reflect"), "pad_mode is 'constant'"),
        (("pad_mode: constant", "pad_mode: wrap"), "wrap' but for masks"),
        (("np.tanh(part_d0val)", "np.sinc(part_d0val)"), r"new variable 'part_d0': 'np.sinc\(part_d0val\)' has no"),
        (("vars:", "variables:"), "not a data configuration of weaver's: KeyError"),
        (("[part_d0err, 0,", "[part_d0err, none,"), "not a data configuration of weaver's: ValueError"),
    ],
)
def test_other_configurations_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(tmp_path, JETCLASS.replace(*change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reweight_method: flat", "reweight_method: none"), "flat or ref, not 'none'"),
        (("reweight_threshold: 15", "reweight_basewgt: x"), "reweight_basewgt has no counterpart"),
        (("class_weights: [1, 0.8, 2.5]", "class_weights: [1, 2]"), "2 class_weights for 3 reweight_classes"),
        (("jet_sdmass: [30", "x: [1, 2]\n      jet_sdmass: [30"), "reweight_vars are two"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(tmp_path, AK15.replace(*change))


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="cannot read"):
        read_weaver(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="is not YAML"):
        read(tmp_path, "a: [")
    with pytest.raises(SpecError, match="is not YAML"):
        read(tmp_path, "a: !!python/object/apply:os.system ['true']")
    with pytest.raises(SpecError, match="no sections"):
        read(tmp_path, "- a")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"storagering\[weaver\]"):
        read_weaver(tmp_path / "data.yaml")


@pytest.mark.parametrize("name", CONFIGS)
def test_all_definitions_parse(tmp_path: Path, name: str) -> None:
    config = read(tmp_path, CONFIGS[name])
    known = {n for _, text in config.define for n in names_in(text.replace("`", ""))} | set(config.columns)
    for _, text in config.define:
        parse_expression(text, known)
