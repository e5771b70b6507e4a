"""Loaders side by side: the same data, the same pinning, each in a process of its own beside the in-memory limit.

`case`, `mixing`, `one` and `peers` also run in environments that have NumPy, PyTorch and a peer, but none of our
dependencies.
"""
