"""Making the plan of new sources fit a dataset that they are to be appended to."""

from __future__ import annotations

from dataclasses import replace

from storagering.cache.finished import key_tasks
from storagering.cache.inspection import Inspection
from storagering.cache.selection import made_names
from storagering.cache.tasks import BuildPlan
from storagering.errors import SchemaError, nearest_names
from storagering.types import Column, Manifest, SkippedColumn


def fit_inspection(inspection: Inspection, dataset: Manifest) -> Inspection:
    """The inspection with the dataset's columns only, in their order; what else there is counts as skipped.

    Raises:
        SchemaError: the sources lack a column of the dataset.
    """
    url = inspection.files[0].url
    made = {*(name for name, _ in dataset.spec.define), *made_names(dataset.spec)}
    wanted = [name for name in dataset.schema.names if name not in made]
    for name in wanted:
        if name not in inspection.names:
            near = nearest_names(name, inspection.names)
            raise SchemaError(f"{url} has no column {name!r}, dataset {dataset.name!r} has{near}")
    further = [name for name in inspection.names if name not in wanted]
    reason = "it is not in the dataset that this was appended to"
    skipped = tuple(SkippedColumn(name, inspection.typenames[name], reason, url) for name in further)
    return replace(inspection, names=tuple(wanted), skipped=inspection.skipped + skipped)


def fit_plan(plan: BuildPlan, dataset: Manifest) -> BuildPlan:
    """The plan with the dataset's own schema, if the sources' is equal to it.

    Raises:
        SchemaError: a column is of another type, naming file and column.
    """
    url = next(file.url for file in plan.context.sources if file.entries)
    found = {column.name: column for column in plan.context.schema.columns}
    for column in dataset.schema.columns:
        other = found.get(column.name)
        if other is None or _type_of(other) != _type_of(column):
            kind = f"{other.kind} {other.dtype}" if other else "absent"
            raise SchemaError(
                f"column {column.name!r} is {kind} in {url} and {column.kind} {column.dtype} in dataset "
                f"{dataset.name!r}: make another dataset of such files"
            )
    context = replace(plan.context, schema=dataset.schema)
    return replace(plan, context=context, tasks=key_tasks(context, plan.tasks))


def _type_of(column: Column) -> Column:
    return replace(column, doc="", unit="", key="")
