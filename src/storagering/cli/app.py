"""From the words of a command line to an exit code: parsing, signals, errors."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from storagering import __version__
from storagering.cli import (
    append,
    bench,
    catalog,
    convert,
    copy,
    datasets,
    demo,
    export,
    generate,
    inspect,
    pull,
    room,
    serve,
    simulate,
    sql,
    stats,
    train,
    verify,
)
from storagering.cli.console import say
from storagering.cli.parsing import Parser
from storagering.errors import StorageringError
from storagering.urls import redact_urls_in

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_UNEXPECTED = 4
_DESCRIPTION = """\
Convert ROOT once into a compressed, checksummed node-local cache;
train on it for as many epochs as you like."""
_EPILOG = """\
examples:
  storagering convert 'root://server//store/*.root' --name jets
  storagering ls
  storagering sql "SELECT count(*), avg(jet_pt) FROM jets"

'storagering VERB --help' tells more. The cache lies where STORAGERING_CACHE says, else on the
node's scratch disk. Results go to stdout, everything else to stderr.

exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 bad data, 4 the environment (network, disk,
missing packages), 130 interrupted"""
_VERBS = (
    *(inspect, convert, append, datasets, verify, room, export, copy, pull, serve),
    *(stats, sql, catalog, simulate, generate, train, demo, bench),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``storagering``; those of this process without it.

    Returns:
        The exit code.
    """
    with _stop_signals(), _one_line_warnings():
        try:
            arguments = build_parser().parse_args(argv)
        except SystemExit as stop:  # --help, --version, wrong usage: argparse has told
            return stop.code if isinstance(stop.code, int) else 2
        debug = getattr(arguments, "debug", False)
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("storagering: interrupted")
            return _INTERRUPTED
        except BrokenPipeError:
            _close_stdout()
            return _BROKEN_PIPE
        except Exception as error:  # noqa: BLE001  (the last handler there is)
            return _report(error, debug=debug)
        return code


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="storagering", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"storagering {__version__}")
    parser.add_debug()
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for module in _VERBS:
        module.add_to(verbs)
    return parser


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        say(redact_urls_in("".join(traceback.format_exception(error))))  # other libraries' errors may be among them
    if isinstance(error, StorageringError):
        say(f"storagering: error: {error}")
        return error.exit_code
    hint = "" if debug else "; please report it with what --debug shows"
    say(f"storagering: error: unexpected {type(error).__name__}: {error}{hint}")
    return _UNEXPECTED


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does, so that nothing half-made is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that is ignored stays ignored: that is what nohup is for.
    wanted = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
    for number in wanted:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not disturb the cleaning up
    raise KeyboardInterrupt


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_rest: Any, **_more: Any) -> None:
        say(f"storagering: warning: {message}")

    # The XRootD client looks at every object when the process ends; torch minds that.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.reduce_op` is deprecated", FutureWarning)
    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _close_stdout() -> None:
    """Nobody reads any more: what is still buffered must not fail again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
