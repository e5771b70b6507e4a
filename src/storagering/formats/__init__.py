"""Bytes of other formats to columns and back: sources, expressions, Awkward and Arrow bridges."""
