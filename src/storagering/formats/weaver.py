"""weaver-core's data configuration: what to select, compute, keep and feed, as its users have it in YAML.

`read_weaver` gives all of it in our words; `storagering.api.convert(weaver=...)` makes a dataset of it, and a
training finds groups of inputs, standardisation, padding and weights in the same object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from storagering.errors import MissingExtraError, NotFoundError, SpecError, nearest_names
from storagering.formats.weaver_expressions import names_in, translate, translate_selection

LABEL = "label"
WEIGHT = "weight"
_SECTIONS = (
    *("treename", "selection", "test_time_selection", "new_variables", "preprocess", "inputs", "labels"),
    *("observers", "monitor_variables", "weights", "bucketing"),
)


@dataclass(frozen=True, slots=True)
class InputVariable:
    """One variable of an input: ``clip((x - center) * scale, min, max)``, then padded.

    Attributes:
        center: what is subtracted; None for no transformation at all, ``"auto"`` for the median, which is
            still to be found (then ``scale`` is, too).
    """

    name: str
    center: float | Literal["auto"] | None = None
    scale: float = 1.0
    min: float = -5.0
    max: float = 5.0
    pad_value: float = 0.0


@dataclass(frozen=True, slots=True)
class InputGroup:
    """Variables that a network gets as one array, cut or padded to ``length`` (None: not padded).

    Attributes:
        pad_mode: ``constant``, or ``wrap`` to repeat what is there.
    """

    name: str
    length: int | None
    pad_mode: str
    variables: tuple[InputVariable, ...]


@dataclass(frozen=True, slots=True)
class Reweighting:
    """Weights that make the spectra of the classes alike, from a histogram of two variables for each class.

    Attributes:
        variables: names and edges of the two axes.
        classes: columns that are 1 for the entries of a class.
        class_weights: how large the classes shall be, one another compared; None for all alike.
        tables: class -> weights of all bins, row by row, where these were found before.
    """

    method: Literal["flat", "ref"]
    variables: tuple[tuple[str, tuple[float, ...]], tuple[str, tuple[float, ...]]]
    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None
    threshold: float
    discards_outside: bool
    tables: tuple[tuple[str, tuple[float, ...]], ...] | None


@dataclass(frozen=True, slots=True)
class WeaverConfig:
    """A data configuration; expressions are in our language, variables in the order in which they are computed.

    Attributes:
        columns: columns of the source that are kept: inputs, observers, monitor variables.
        define: (name, expression) of what is computed: all that inputs, labels and weights need.
        selection: None to keep every entry.
        classes: names of the classes that the column ``label`` counts; () for other labels.
        labels: names of the columns to learn.
        reweighting: how the column ``weight`` is found; None if it is defined or there is none.
    """

    tree: str | None
    columns: tuple[str, ...]
    define: tuple[tuple[str, str], ...]
    selection: str | None
    inputs: tuple[InputGroup, ...]
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    observers: tuple[str, ...]
    monitor_variables: tuple[str, ...]
    reweighting: Reweighting | None


def read_weaver(path: str | Path, *, test: bool = False) -> WeaverConfig:
    """The data configuration in a YAML file.

    Args:
        test: for testing rather than training: with ``test_time_selection``, if there is one, without weights, and
            with entries of no class or several, which count as the first that is largest.

    Raises:
        SpecError: it is not one, or an expression in it has no counterpart here (names the variable).
        NotFoundError: there is no such file.
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("weaver configurations need PyYAML: pip install 'storagering[weaver]'") from error
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(options, Mapping):
        raise SpecError(f"{path} is no data configuration: it has no sections such as 'inputs' and 'labels'")
    try:
        return _Reader({str(k): v for k, v in options.items() if v is not None}, test=test).config()
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SpecError(f"{path} is not a data configuration of weaver's: {type(error).__name__}: {error}") from error


class _Reader:
    """One configuration, section by section."""

    def __init__(self, options: dict[str, Any], *, test: bool) -> None:
        for name in options:
            if name not in _SECTIONS:
                near = nearest_names(name, _SECTIONS)
                advice = "; give classes with --label CLASS=SOURCE" if name == "file_magic" else near
                raise SpecError(f"section {name!r} has no counterpart here{advice}")
        self._options, self._test = options, test
        texts = dict(options.get("new_variables") or {})
        if options["labels"]["type"] == "custom":
            texts |= options["labels"]["value"]
        self._variables = {str(k): str(v) for k, v in texts.items() if str(k) != str(v)}
        self._define: dict[str, str] = {}
        self._columns: dict[str, None] = {}
        self._ours: dict[str, str] = {}  # names that we add; last, as they may hide columns of the source

    def config(self) -> WeaverConfig:
        options = self._options
        inputs = self._inputs()
        for group in inputs:
            self._keep(variable.name for variable in group.variables)
        observers, monitors = _texts(options.get("observers")), _texts(options.get("monitor_variables"))
        self._keep(observers + monitors + ((str(options["bucketing"]["var"]),) if "bucketing" in options else ()))
        key = "test_time_selection" if self._test and options.get("test_time_selection") else "selection"
        selection = str(options.get(key) or "")
        self._resolve(names_in(selection))
        classes, labels = self._labels()
        reweighting = None if self._test else self._weights()
        self._check_names({*names_in(selection), *_names_of(reweighting)})
        return WeaverConfig(
            tree=options.get("treename"),
            columns=tuple(self._columns),
            define=tuple((self._define | self._ours).items()),
            selection=translate_selection(key, selection) if selection else None,
            inputs=inputs,
            classes=classes,
            labels=labels,
            observers=observers,
            monitor_variables=monitors,
            reweighting=reweighting,
        )

    def _resolve(self, names: Sequence[str]) -> None:
        """Define the variables of those names after all that they need."""
        for name in names:
            text = self._variables.pop(name, None)  # popped first, as a variable may hide a column of its own name
            if text is not None:
                self._resolve(names_in(text))
                self._define[name] = translate(f"new variable {name!r}", text)

    def _keep(self, names: Any) -> None:
        for name in names:
            self._resolve([name])
            if name not in self._define:
                self._columns[name] = None

    def _inputs(self) -> tuple[InputGroup, ...]:
        preprocess = {"method": "manual"} | (self._options.get("preprocess") or {})
        automatic = str(preprocess["method"]).lower().startswith("auto")
        found = preprocess.get("params") or {}
        groups = []
        for name, group in (self._options.get("inputs") or {}).items():
            mode = str(group.get("pad_mode", "constant")).lower()
            if mode not in ("constant", "wrap") or (str(name).endswith("_mask") and mode != "constant"):
                raise SpecError(f"input {name!r}: pad_mode is 'constant', or 'wrap' but for masks")
            variables = tuple(_variable(v, found, automatic=automatic) for v in group["vars"])
            groups.append(InputGroup(str(name), group["length"], mode, variables))
        return tuple(groups)

    def _labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        labels = self._options["labels"]
        if labels["type"] == "simple":
            classes = _texts(labels["value"])
            if len(classes) < 2:
                raise SpecError(f"labels of type simple name two classes or more, not {list(classes)}")
            for name in classes:
                self._resolve(names_in(name))
            number = "largest_of" if self._test else "class_of"  # only training demands one class for each entry
            self._ours[LABEL] = f"{number}({', '.join(translate('labels', name) for name in classes)})"
            return classes, (LABEL,)
        if labels["type"] != "custom":
            raise SpecError(f"labels are of type simple or custom, not {labels['type']!r}")
        names = _texts(list(labels["value"]))
        self._keep(names)
        return (), names

    def _check_names(self, used: set[str]) -> None:
        """The names that we add must hide nothing that is used after them."""
        for name in self._ours:
            others = {n for other, text in self._ours.items() if other != name for n in names_in(text)}
            if name in self._define or name in self._columns or name in used | others:
                made = "number of the class" if name == LABEL else "weight"
                raise SpecError(f"{name!r} is a variable here, and in the dataset the {made}; give it another name")

    def _weights(self) -> Reweighting | None:
        weights = self._options.get("weights")
        if weights is None:
            return None
        if weights["use_precomputed_weights"]:
            branches = _texts(weights["weight_branches"])
            if branches == (WEIGHT,):
                self._keep(branches)
                return None
            for name in branches:
                self._resolve(names_in(name))
            self._ours[WEIGHT] = " * ".join(translate("weight_branches", name) for name in branches)
            return None
        if weights.get("reweight_basewgt"):
            raise SpecError("weights: reweight_basewgt has no counterpart here; use precomputed weights")
        if weights["reweight_method"] not in ("flat", "ref"):
            raise SpecError(f"weights: reweight_method is flat or ref, not {weights['reweight_method']!r}")
        variables = tuple((str(n), tuple(float(e) for e in edges)) for n, edges in weights["reweight_vars"].items())
        classes = _texts(weights["reweight_classes"])
        if len(variables) != 2 or not classes:
            raise SpecError("weights: reweight_vars are two, and reweight_classes one or more")
        self._resolve([*(name for name, _ in variables), *classes])
        tables = weights.get("reweight_hists")
        return Reweighting(
            method=weights["reweight_method"],
            variables=(variables[0], variables[1]),
            classes=classes,
            class_weights=_shares(weights.get("class_weights"), classes),
            threshold=float(weights.get("reweight_threshold", 10)),
            discards_outside=bool(weights.get("reweight_discard_under_overflow", True)),
            tables=None if tables is None else tuple((str(n), _flat(rows)) for n, rows in tables.items()),
        )


def _variable(given: Any, found: Mapping[str, Any], *, automatic: bool) -> InputVariable:
    items = list(given) if isinstance(given, list | tuple) else [given]
    name = str(items[0])
    if name in found:
        known = found[name]
        numbers = [known["scale"], known["min"], known["max"], known.get("pad_value", 0)]
        return InputVariable(name, _center(known["center"]), *(float(n) for n in numbers))
    center = items[1] if len(items) > 1 else ("auto" if automatic else None)
    numbers = [items[i] if len(items) > i else default for i, default in ((2, 1), (3, -5), (4, 5), (5, 0))]
    return InputVariable(name, _center(center), *(float(n) for n in numbers))


def _center(value: Any) -> float | Literal["auto"] | None:
    return value if value is None or value == "auto" else float(value)


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def _names_of(reweighting: Reweighting | None) -> tuple[str, ...]:
    return () if reweighting is None else (*(n for n, _ in reweighting.variables), *reweighting.classes)


def _shares(given: Any, classes: Sequence[str]) -> tuple[float, ...] | None:
    if given is not None and len(given) != len(classes):
        raise SpecError(f"weights: {len(given)} class_weights for {len(classes)} reweight_classes")
    return None if given is None else tuple(float(share) for share in given)


def _flat(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(number) for row in rows for number in row)


def define_weight(reweighting: Reweighting, tables: Mapping[str, Sequence[float]]) -> str:
    """The expression of the column ``weight``: that of its bin, 0 outside all bins and classes (float32).

    Args:
        tables: class -> weights of all bins, row by row.
    """
    (x, x_edges), (y, y_edges) = reweighting.variables
    place = f"bin_of({x}, {_listed(x_edges)}) * {len(y_edges) - 1} + bin_of({y}, {_listed(y_edges)})"
    inside = ""
    if reweighting.discards_outside:
        ranges = ((x, x_edges), (y, y_edges))
        inside = "".join(f" & ({n} >= {min(e)!r}) & ({n} <= {max(e)!r})" for n, e in ranges)
    text = "0.0"
    for name, values in tables.items():
        if len(values) != (len(x_edges) - 1) * (len(y_edges) - 1) or not all(map(math.isfinite, values)):
            raise SpecError(f"reweight_hists: {name!r} has {len(values)} weights, which are not those of the bins")
        text = f"where(({name} == 1){inside}, pick({place}, {_listed(values)}), {text})"
    return f"float32({text})"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(str(int(v)) if v == int(v) and abs(v) < 1e15 else repr(v) for v in values)
