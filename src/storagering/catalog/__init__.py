"""The DuckDB catalog: an index of manifests that can be rebuilt at any time, and SQL over it and the data."""
