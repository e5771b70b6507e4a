"""Tests on every Python, on the oldest dependencies, and lint: ``nox``, or one session with ``nox -s lint``."""

import re
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

_TORCH = "torch==2.13.0"
_PROJECT = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())["project"]


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """All tests with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", _TORCH)
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python="3.11")
def minimum(session: nox.Session) -> None:
    """Tests with the oldest versions that pyproject.toml allows."""
    oldest = [re.sub(r"[>=]=", "==", requirement) for requirement in _PROJECT["dependencies"]]
    session.install(_TORCH, "-e", ".[dev]", *oldest)
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Style and types."""
    session.install("-c", "constraints.txt", _TORCH)
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
