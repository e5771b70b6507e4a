"""Epoch-aware loaders: which entries come when (`plan`), how they are read, and the framework adapters."""
