"""Tests that need a library which not every installation has."""

from importlib.util import find_spec

import pytest


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip where one is absent; none is imported, as every process of a run collects all tests."""
    absent = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"could not import {', '.join(absent)}")
