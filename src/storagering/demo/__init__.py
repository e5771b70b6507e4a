"""The whole chain on data that can be checked: generate, convert, query, train, and compare epoch times."""

from storagering.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]
