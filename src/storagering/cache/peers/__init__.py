"""Nodes that share their caches: whoever holds what a name names answers, and every byte is checked by who asks.

Names are digests (of chunks and statistics), keys of specifications, and names of datasets.
"""
