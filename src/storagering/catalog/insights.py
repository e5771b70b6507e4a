"""The named questions about the grid's logs, answered."""

from __future__ import annotations

import pyarrow as pa

from storagering.cache.layout import open_cache
from storagering.catalog.log_views import INSIGHTS
from storagering.catalog.logs import logs_in_memory
from storagering.config import Settings, load_settings
from storagering.errors import NotFoundError, nearest_names

_PREFIX = "insight_"


def insight_names() -> tuple[str, ...]:
    """Names of the questions: ``site_traffic``, ``failures``, ..."""
    return tuple(name.removeprefix(_PREFIX) for name in INSIGHTS)


def ask_insight(name: str, *, settings: Settings | None = None) -> pa.Table:
    """The answer to a named question, from all imported logs; what matters most comes first.

    Args:
        name: one of `insight_names`, with or without ``insight_`` before it.

    Raises:
        NotFoundError: there is no such question.
        CacheError: the cache cannot be used.
    """
    short = name.removeprefix(_PREFIX)
    if short not in insight_names():
        raise NotFoundError(f"no insight {name!r}{nearest_names(short, insight_names())}")
    with logs_in_memory(open_cache(settings or load_settings())) as connection:
        return connection.sql(f"SELECT * FROM {_PREFIX}{short}").to_arrow_table()  # noqa: S608  (fixed names)
