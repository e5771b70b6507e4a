"""The spec that a data configuration of weaver-core's asks for, with weights from a first look at the sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from storagering.cache.messages import is_bad_source
from storagering.cache.pruning import PrunedReader
from storagering.cache.selection import Selection, is_labelled
from storagering.config import Settings
from storagering.errors import SpecError, StorageringError
from storagering.formats.expressions import parse_expression
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source
from storagering.formats.weaver import WEIGHT, Reweighting, WeaverConfig, define_weight, read_weaver
from storagering.types import Array, ConversionSpec, Span

#: Entries read at a time in the first look; only a few columns are read.
_STEP = 1 << 18
#: As weaver has it: the most frequent entries of the rarest class are not always taken.
_MAX_WEIGHT = 0.9


def with_weaver(
    spec: ConversionSpec, config: WeaverConfig | str | Path, locations: Sequence[Location], settings: Settings
) -> ConversionSpec:
    """The spec with what the configuration selects, defines and keeps; what the spec has of its own is added.

    Weights that follow from histograms are found by reading the columns for these once, unless the
    configuration holds them; they become the table in the definition of ``weight``.

    Args:
        config: a configuration, or the YAML file of one, for training.

    Raises:
        SpecError: both name classes, or a class has no entries to be weighted.
        StorageringError: a source cannot be read, or the file, as `read_weaver`.
    """
    config = config if isinstance(config, WeaverConfig) else read_weaver(config)
    if config.classes and is_labelled(spec):
        raise SpecError("the configuration's labels tell the classes; give the sources without --label")
    wheres = [where for where in (config.selection, spec.where) if where is not None]
    spec = replace(
        spec,
        tree=spec.tree if spec.tree is not None else config.tree,
        columns=tuple(dict.fromkeys((*config.columns, *(spec.columns or ())))),
        define=(*config.define, *spec.define),
        where=" & ".join(f"({where})" for where in wheres) or None,
        classes=config.classes or spec.classes,
    )
    if config.reweighting is None:
        return spec
    tables = dict(config.reweighting.tables or ()) or _find_tables(config.reweighting, spec, locations, settings)
    return replace(spec, define=(*spec.define, (WEIGHT, define_weight(config.reweighting, tables))))


def _find_tables(
    reweighting: Reweighting, spec: ConversionSpec, locations: Sequence[Location], settings: Settings
) -> dict[str, tuple[float, ...]]:
    counts: list[dict[str, Array]] = []
    failure: StorageringError | None = None
    for location in locations:
        try:
            counts.append(_count(location, reweighting, spec, settings))
        except StorageringError as error:
            if spec.on_bad_source == "fail" or not is_bad_source(error):
                raise
            failure = failure or error
    if failure is not None and not counts:
        raise failure
    total = {name: sum(count[name] for count in counts) for name in reweighting.classes}
    weights = weigh(reweighting, {name: np.asarray(count, np.float32) for name, count in total.items()})
    # The shortest text that gives the same float32 again.
    return {name: tuple(float(str(number)) for number in table.reshape(-1)) for name, table in weights.items()}


def _count(location: Location, reweighting: Reweighting, spec: ConversionSpec, settings: Settings) -> dict[str, Array]:
    """The number of selected entries of each class in every bin."""
    (x, x_edges), (y, y_edges) = reweighting.variables
    counts = {name: np.zeros((len(x_edges) - 1, len(y_edges) - 1)) for name in reweighting.classes}
    names = list(dict.fromkeys((x, y, *reweighting.classes)))
    with closing(open_source(location, spec.tree, settings)) as source:
        for columns in _read(source, spec, names):
            values = [_inside(columns[name], edges, reweighting) for name, edges in reweighting.variables]
            for name, count in counts.items():
                own = columns[name] == 1
                count += np.histogram2d(values[0][own], values[1][own], bins=[x_edges, y_edges])[0]
    return counts


def _inside(values: Array, edges: Sequence[float], reweighting: Reweighting) -> Array:
    return values if reweighting.discards_outside else np.clip(values, min(edges), max(edges))


def _read(source: Source, spec: ConversionSpec, names: list[str]) -> Iterator[dict[str, Array]]:
    """The named columns of the selected entries, step by step."""
    available = list(source.columns)
    selection = Selection(replace(spec, define=_needed(spec, available, names)), available)
    needed = {*selection.source_names, *names}
    reader = PrunedReader(source, selection, [name for name in available if name in needed], names)
    bounds = np.asarray(source.boundaries(selection.source_names or names[:1]))
    start = 0
    while start < source.entries:
        further = bounds[(bounds > start) & (bounds <= start + _STEP)]
        stop = int(further[-1]) if len(further) else min(start + _STEP, source.entries)
        columns, entries, _ = reader.read(Span(0, start, stop), {})
        if entries:
            yield {name: np.asarray(columns[name]) for name in names}
        start = stop


def _needed(spec: ConversionSpec, available: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The definitions that the selection and the named columns need."""
    known = [*available, *(name for name, _ in spec.define)]
    wanted = {*names, *(parse_expression(spec.where, known).names if spec.where is not None else ())}
    needed = []
    for name, text in reversed(spec.define):
        if name in wanted:
            needed.append((name, text))
            wanted = (wanted - {name}) | set(parse_expression(text, known).names)
    return tuple(reversed(needed))


def weigh(reweighting: Reweighting, counts: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of all bins of each class, from the numbers of entries in them (float32).

    ``flat`` makes every class flat in both variables; ``ref`` gives it the spectrum of the first class. Full
    bins are thinned out to what the sparse ones hold, down to the percentile ``threshold`` of these; then
    classes are brought to the sizes of ``class_weights``.

    Raises:
        SpecError: a class has no entry in any bin.
    """
    tables: dict[str, Array] = {}
    events: dict[str, Any] = {}  # in the precision that weaver has them
    first = counts[reweighting.classes[0]]
    shares = np.ones(len(counts)) if reweighting.class_weights is None else reweighting.class_weights
    for name, share in zip(reweighting.classes, shares, strict=True):
        count = counts[name]
        if not count.any():
            raise SpecError(f"reweighting: no selected entry of class {name!r} lies in the bins")
        with np.errstate(divide="ignore", invalid="ignore"):
            if reweighting.method == "flat":
                filled = count[count > np.median(count[count > 0]) * 0.01]
                ratio = np.nan_to_num(np.percentile(filled, reweighting.threshold) / count, posinf=0)
            else:
                ratio = np.nan_to_num(first / count, posinf=0)
                if not (ratio > 0).any():
                    raise SpecError(f"reweighting: class {name!r} shares no bin with {reweighting.classes[0]!r}")
                ratio = ratio / np.percentile(ratio[ratio > 0], 100 - reweighting.threshold)
        tables[name] = np.clip(ratio, 0, 1)
        events[name] = np.sum(count * tables[name]) / share
    smallest = float(min(events.values()) * _MAX_WEIGHT)
    return {name: (table * (smallest / events[name])).astype(np.float32) for name, table in tables.items()}
