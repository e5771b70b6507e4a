"""What the verbs' parsers share: the parser itself, and the types of arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from storagering.errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmg]?i?b|)", re.I)
_CLASS = re.compile(r"[^\s=/:@*?]+")

QUOTA = "what the cache may hold: 200GB, or 50%% of its disk (default: STORAGERING_QUOTA, else without limit)"

Run: TypeAlias = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """A parser with help as it was written, and with errors of one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and a pointer to the help."""
        self.exit(2, f"storagering: error: {message}\n'{self.prog} --help' tells what is possible\n")

    def add_debug(self) -> None:
        """Add ``--debug``, which every verb takes too."""
        text = "show the traceback of an error"
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=text)

    def add_json(self) -> None:
        """Add ``--json``."""
        self.add_argument("--json", action="store_true", help="write the result as JSON")


Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_verb(verbs: Verbs, name: str, run: Run, *, summary: str, examples: str, text: str = "") -> Parser:
    """Add a verb.

    Args:
        run: gets the parsed arguments and returns the exit code.
        summary: one line for the list of verbs.
        examples: one or two commands.
        text: what else its help says before the options.
    """
    shown = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    description = f"{summary[0].upper()}{summary[1:]}." + (f"\n\n{text}" if text else "")
    parser = verbs.add_parser(name, help=summary, description=description, epilog=f"examples:\n{shown}")
    parser.add_debug()
    parser.set_defaults(run=run)
    return parser


def parse_size(text: str) -> int:
    """A number of bytes: ``16MiB``, ``8MB``, ``4096``."""
    found = _SIZE.fullmatch(text.strip())
    if not found or found[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write e.g. 16MiB, 8MB or 4096")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def parse_labels(labels: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """{class: sources} from the words of every ``--label CLASS=SOURCE...``.

    Raises:
        InputError: the first word is not CLASS=SOURCE.
    """
    found: dict[str, list[str]] = {}
    for first, *more in labels:
        name, equals, source = first.partition("=")
        if not equals or not source or not _CLASS.fullmatch(name):
            raise InputError(f"--label {first!r}: write CLASS=SOURCE, e.g. --label top=top-1.root top-2.root")
        found.setdefault(name, []).extend([source, *more])
    return found


def parse_precision(precisions: Sequence[str]) -> dict[str, int]:
    """{pattern: bits} from every ``--precision PATTERN=BITS``.

    Raises:
        InputError: one is not PATTERN=BITS, or a pattern comes twice.
    """
    found: dict[str, int] = {}
    for text in precisions:
        pattern, _, bits = (part.strip() for part in text.rpartition("="))
        if not pattern or not bits.isdecimal():
            raise InputError(f"--precision {text!r}: write PATTERN=BITS, e.g. --precision 'Jet_*=10'")
        if pattern in found:
            raise InputError(f"--precision {pattern}: given twice")
        found[pattern] = int(bits)
    return found


def parse_definitions(definitions: Sequence[str]) -> dict[str, str]:
    """{name: expression} from every ``--define NAME=EXPR``.

    Raises:
        InputError: one is not NAME=EXPR, or a name is defined twice.
    """
    found: dict[str, str] = {}
    for text in definitions:
        name, equals, expression = (part.strip() for part in text.partition("="))
        if not equals or not name or not expression or expression.startswith("="):
            raise InputError(f"--define {text!r}: write NAME=EXPRESSION, e.g. --define 'ht=sum(Jet_pt)'")
        if name in found:
            raise InputError(f"--define {name}: defined twice")
        found[name] = expression
    return found
