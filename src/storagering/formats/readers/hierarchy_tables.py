"""Which tables a hierarchy of arrays holds, and the columns of one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import awkward as ak

from storagering.errors import CorruptDataError, FormatError, NotFoundError, nearest_names
from storagering.formats.forms import parts_of
from storagering.formats.readers.elements import type_name
from storagering.formats.readers.hierarchy import Hierarchy, HierarchyColumn, StoredArray, doc_of
from storagering.formats.readers.nested import NestedReader, Offsets
from storagering.formats.source import SeveralTablesError
from storagering.formats.writers.parts import FORM
from storagering.formats.writers.writer import NAME
from storagering.urls import redact_url

#: Attribute of a group that says that it is one column (``jagged``, ``string``), or of a table.
KIND_ATTRIBUTE = "storagering"
ORDER_ATTRIBUTE = "storagering_columns"
_KINDS = ("jagged", "string")


def find_table(hierarchy: Hierarchy, tree: str | None, url: str) -> tuple[str, list[HierarchyColumn]]:
    """The name and the columns of the table asked for; the only one there is for None or ''.

    A table is named by the path of a group or array, or by several such with commas between them.

    Raises:
        SeveralTablesError: arrays of different lengths lie there.
        NotFoundError: nothing is called that.
        FormatError: the file holds no arrays with entries.
    """
    shown = redact_url(url)
    units = list(_units(hierarchy))
    if not units:
        raise FormatError(f"{shown} holds no array with entries")
    if tree:
        bases = _bases(tree, hierarchy)
        if not bases:
            known = [*(path for path in hierarchy.groups if path), *(unit.path for unit in units)]
            raise NotFoundError(f"{shown} holds no group or array {tree!r}{nearest_names(tree, known)}")
    else:
        bases = [_descend(units)]
    chosen = [unit for base in bases for unit in units if _is_below(unit.path, base)]
    lengths = {unit.entries for unit in chosen} - {-1}
    if not lengths:
        raise NotFoundError(f"{shown} holds no array with entries in {tree!r}")
    if len(lengths) > 1:
        tables = [_name_of([unit for unit in chosen if unit.entries == n], chosen) for n in lengths]
        raise SeveralTablesError(tables, url, "tables of different lengths")
    base = bases[0] if len(bases) == 1 else ""
    name = ",".join(part.strip().strip("/") for part in (tree or base).split(","))
    return name, [column for unit in chosen for column in unit.columns(base)]


class _Unit:
    """An array, or a group of arrays that make up lists."""

    def __init__(
        self,
        path: str,
        arrays: list[StoredArray],
        attributes: Mapping[str, Any],
        nested: NestedReader | None,
        kind: str,
    ) -> None:
        self.path, self.attributes = path, attributes
        self._arrays, self._nested, self._kind = tuple(arrays), nested, kind
        self.entries = nested.entries if nested else arrays[0].shape[0]
        self.name = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a structured array."""
        return (self._arrays[0].dtype.names or ()) if self._nested is None else ()

    def columns(self, base: str) -> Iterator[HierarchyColumn]:
        """Its columns, named by the path below ``base``."""
        below = self.path.removeprefix(base).lstrip("/") if _is_below(self.path, base) else self.path
        for field in self.fields:
            name = f"{below}/{field}" if below else field
            kind = _in_words(self._arrays[0], field)
            yield HierarchyColumn(name, self.path, kind, self.entries, "", self._arrays, field)
        if not self.fields:
            name = self.name or below or self.path.rpartition("/")[2] or "values"
            doc = doc_of(self.attributes)
            yield HierarchyColumn(name, self.path, self._kind, self.entries, doc, self._arrays, nested=self._nested)


def _units(hierarchy: Hierarchy) -> Iterator[_Unit]:
    """All arrays and groups with entries, in order."""
    own = isinstance(hierarchy.groups.get("", {}).get(KIND_ATTRIBUTE), Mapping)  # a chunk of a dataset
    nested: dict[str, _Unit | None] = {}
    for path in sorted(hierarchy.groups, key=lambda p: p.count("/")):
        if path and not any(p in nested for p in _parents(path)) and (unit := _nested(hierarchy, path, own)):
            nested[path] = unit
    found: list[_Unit] = []
    for path, array in hierarchy.arrays.items():
        outer = next((p for p in _parents(path) if p in nested), None)
        if outer is not None:
            unit, nested[outer] = nested[outer], None  # given once
        else:
            unit = _Unit(path, [array], array.attributes, None, _in_words(array)) if array.shape else None
        if unit is not None:
            unit.name = str(unit.attributes.get("name" if own else NAME, ""))
            found.append(unit)
    order = hierarchy.groups.get("", {}).get(ORDER_ATTRIBUTE)
    return iter(_ordered(found, order) if isinstance(order, list) else found)


def _ordered(units: list[_Unit], order: list[str]) -> list[_Unit]:
    by_path = {unit.path: unit for unit in units}
    if missing := [path for path in order if path not in by_path]:
        raise CorruptDataError(f"column {missing[0]!r} is listed and not there")
    return [by_path.pop(path) for path in order] + list(by_path.values())


def _nested(hierarchy: Hierarchy, path: str, own: bool) -> _Unit | None:
    form = _form_of(hierarchy, path, own)
    unit = None if form is None else _assemble(hierarchy, path, form)
    kind = hierarchy.groups[path].get(KIND_ATTRIBUTE)
    if unit is None and (FORM in hierarchy.groups[path] or kind in _KINDS):
        raise CorruptDataError(f"{path!r} is marked as one column and lacks some of its arrays")
    return unit


def _assemble(hierarchy: Hierarchy, path: str, form: Any) -> _Unit | None:
    parts: dict[str, Any] = {}
    used: list[StoredArray] = []
    for part in parts_of(form):
        array = _part(hierarchy, f"{path}/{part.name}".rstrip("/"))
        lengths = array is not None
        if array is None and part.role == "counts":
            array = _part(hierarchy, f"{path}/{part.name.removesuffix('counts')}offsets")
        if array is None or array.shape[1:] != part.shape or not array.shape:
            return None
        used.append(array)
        parts[part.key] = Offsets(array, lengths=lengths) if part.role == "counts" else array
    return _Unit(path, used, hierarchy.groups[path], NestedReader(form, parts), str(form.type))


def _form_of(hierarchy: Hierarchy, path: str, own: bool) -> Any:
    """The form of the lists in a group: as it says itself, or as its arrays look."""
    said = hierarchy.groups[path].get(FORM)
    if said is not None:
        try:
            return ak.forms.from_json(said if isinstance(said, str) else json.dumps(said))
        except (ValueError, TypeError, KeyError):
            return None
    kind = hierarchy.groups[path].get(KIND_ATTRIBUTE)
    if not (own or kind in _KINDS or _holds_lists(hierarchy, path)):
        return None
    guessed = _guess(hierarchy, path)
    if guessed is None:
        return None
    if kind == "string" and "content" in guessed:
        guessed["parameters"] = {"__array__": "string"}
        guessed["content"]["parameters"] = {"__array__": "char"}
    return ak.forms.from_dict(_keyed(guessed, iter(range(1 << 20))))


def _holds_lists(hierarchy: Hierarchy, path: str) -> bool:
    """Whether a group holds ``values`` and the ``offsets`` that cut them, and nothing else."""
    offsets, values = (hierarchy.arrays.get(f"{path}/{name}") for name in ("offsets", "values"))
    if offsets is None or values is None or len(hierarchy.children[path]) > 2:
        return False
    if offsets.reason or values.reason or offsets.dtype.kind not in "iu" or len(offsets.shape) != 1 or not values.shape:
        return False
    if not offsets.shape[0]:
        return not values.shape[0]
    last = offsets.shape[0] - 1
    return int(offsets.read(0, 1)[0]) == 0 and int(offsets.read(last, last + 1)[0]) == values.shape[0]


def _guess(hierarchy: Hierarchy, path: str) -> dict[str, Any] | None:
    """The form of a group by the names in it: lengths or offsets of what is beside them, or fields."""
    names = hierarchy.children.get(path, set())
    lists = bool({"counts", "offsets"} & names) or _part(hierarchy, f"{path}/counts") is not None
    inside = sorted(names - {"counts", "offsets"})
    if not inside:
        return None
    if lists and inside in (["values"], ["item"]):
        content = _guess_one(hierarchy, f"{path}/{inside[0]}")
    else:
        contents = {name: _guess_one(hierarchy, f"{path}/{name}") for name in inside}
        if None in contents.values():
            return None
        content = {"class": "RecordArray", "fields": inside, "contents": list(contents.values())}
    if content is None:
        return None
    return {"class": "ListOffsetArray", "offsets": "i64", "content": content} if lists else content


def _guess_one(hierarchy: Hierarchy, path: str) -> dict[str, Any] | None:
    array = hierarchy.arrays.get(path)
    if array is None:
        return _guess(hierarchy, path)
    if array.dtype.kind not in "biufc" or not array.shape:
        return None
    form: dict[str, Any] = {"class": "NumpyArray", "primitive": array.dtype.newbyteorder("=").name, "inner_shape": []}
    for size in reversed(array.shape[1:]):
        form = {"class": "RegularArray", "size": size, "content": form}
    return form


def _keyed(form: dict[str, Any], numbers: Iterator[int]) -> dict[str, Any]:
    form["form_key"] = f"node{next(numbers)}"
    for content in [form["content"]] if "content" in form else form.get("contents", []):
        _keyed(content, numbers)
    return form


def _part(hierarchy: Hierarchy, path: str) -> StoredArray | None:
    """The array of a path; a group may say in an attribute of that name where it is instead (shared lengths)."""
    if path in hierarchy.arrays:
        return hierarchy.arrays[path]
    group, _, leaf = path.rpartition("/")
    link: Mapping[str, Any] = hierarchy.groups.get(group, {})
    return hierarchy.arrays.get(str(link.get(leaf, "")).lstrip("/"))


def _in_words(array: StoredArray, field: str = "") -> str:
    kind = type_name(array.dtype[field] if field else array.dtype)
    return kind + "".join(f"[{n}]" for n in array.shape[1:])


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _is_below(path: str, base: str) -> bool:
    return not base or path == base or path.startswith(f"{base}/")


def _bases(tree: str, hierarchy: Hierarchy) -> list[str]:
    """The paths that are meant, none if one of them does not exist."""
    known = {*hierarchy.arrays, *hierarchy.groups}
    if tree.strip("/") in known:
        return [tree.strip("/")]
    bases = [name.strip().strip("/") for name in tree.split(",")]
    return bases if all(base in known and base for base in bases) else []


def _descend(units: list[_Unit]) -> str:
    """The innermost group that holds everything, or the only structured array."""
    if len(units) == 1 and units[0].fields:
        return units[0].path
    folders = [unit.path.split("/")[:-1] for unit in units]
    shared = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "/".join(shared)


def _name_of(units: list[_Unit], among: list[_Unit]) -> str:
    """What to call some of the units, as `--tree` takes it."""
    base = _descend(units)
    if base and [unit for unit in among if _is_below(unit.path, base)] == units:
        return base
    return ",".join(unit.path for unit in units)
