"""Names of columns and tables that a user gives."""

from __future__ import annotations

from collections.abc import Iterable

from storagering.errors import NotFoundError, SchemaError, nearest_names
from storagering.urls import redact_url


def check_names(names: Iterable[str], known: Iterable[str], url: str) -> None:
    """Refuse a name that is not there.

    Raises:
        SchemaError: naming it and the nearest ones.
    """
    for name in names:
        if name not in known:
            raise SchemaError(f"{redact_url(url)} has no column {name!r}{nearest_names(name, known)}")


def check_no_tree(tree: str | None, url: str) -> None:
    """Refuse the name of a table where a file is one table without a name.

    Raises:
        NotFoundError: a name was given.
    """
    if tree:
        raise NotFoundError(f"{redact_url(url)} is one table without a name: it has no {tree!r}; leave --tree out")
