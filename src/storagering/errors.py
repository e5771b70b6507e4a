"""Every error that Storagering raises, grouped by what the handler does about it.

Each message says what happened, where, and what to do next. ``exit_code`` is what the command line
returns: 2 the caller's mistake, 3 the data are bad, 4 the environment is.
"""

import difflib
from collections.abc import Iterable


class StorageringError(Exception):
    """Base class; catch it to catch everything that is ours.

    Attributes:
        source: number of the source of a build that could not be read, None if none is to blame.
    """

    exit_code = 4
    source: int | None = None


class InputError(StorageringError, ValueError):
    """The caller's mistake: correct the call."""

    exit_code = 2


class SpecError(InputError):
    """A conversion, expression or loader specification that cannot be carried out."""


class SchemaError(InputError):
    """A column that is absent, or of another type than asked for."""


class NoColumnsError(SchemaError):
    """None of the columns asked for can be converted."""


class ConfigError(InputError):
    """A setting that is unknown or out of range."""


class NotFoundError(InputError):
    """A file, tree or dataset that does not exist."""


class MissingExtraError(InputError, ImportError):
    """An optional dependency is not installed; the message gives the pip command."""

    exit_code = 4


class SourceError(StorageringError, OSError):
    """The far end failed; a retry may help."""


class UnreachableError(SourceError):
    """No connection to the server of a source."""


class SourceTimeoutError(SourceError, TimeoutError):
    """The server of a source did not answer in time."""


class AuthError(SourceError):
    """The server of a source refused the credentials."""


class RefusedError(SourceError):
    """The server of a source will not do what is asked, however often it is asked."""


class PeerError(SourceError):
    """Another node's cache did not give what it was asked for."""


class SourceChangedError(SourceError):
    """A source file is not the one that was read before."""

    exit_code = 3


class CorruptDataError(StorageringError):
    """The bytes are wrong."""

    exit_code = 3


class ChecksumError(CorruptDataError):
    """Bytes differ from their recorded checksum."""


class TruncatedError(CorruptDataError):
    """A file ends before its contents do."""


class FormatError(CorruptDataError):
    """A file is not of the format that it should be, or holds nothing to read."""


class VersionError(FormatError):
    """A dataset of a format version that this release does not read."""


class LimitExceededError(CorruptDataError):
    """A size, count or ratio declared by a file is beyond the configured limits."""


class CacheError(StorageringError):
    """The node-local cache cannot do what was asked."""


class CacheFullError(CacheError):
    """No room on the cache's disk."""


class LockTimeoutError(CacheError):
    """Another process held a lock for longer than the timeout."""


class ReadOnlyCacheError(CacheError):
    """The cache cannot be written by this process."""


class OutputError(StorageringError, OSError):
    """A file asked for cannot be written, or is there already."""


class ResourceError(StorageringError):
    """This machine has no more of what is needed: open files, processes, memory. No fault of a source's."""


class LoaderError(StorageringError):
    """A loader cannot go on."""


class WorkerDiedError(LoaderError):
    """A worker of a build or loader ended before its work was done."""


class ResumeMismatchError(LoaderError, ValueError):
    """A loader state that belongs to another dataset, seed or batch size."""

    exit_code = 2


class InternalError(StorageringError):
    """A bug of Storagering's own; please report it."""


def nearest_names(name: str, names: Iterable[str], limit: int = 5) -> str:
    """The names most like ``name``, as the tail of an error message ('' if there are none)."""
    known = list(names)
    lowered = {n.lower(): n for n in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=limit, cutoff=0.5)
    if close:
        return "; nearest names: " + ", ".join(repr(lowered[c]) for c in close)
    shown = ", ".join(repr(n) for n in known[:limit])
    return f"; there are: {shown}{', ...' if len(known) > limit else ''}" if known else ""
