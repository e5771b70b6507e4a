"""The command line: each verb calls one public function and shows what it returns."""

from storagering.cli.app import main

__all__ = ["main"]
