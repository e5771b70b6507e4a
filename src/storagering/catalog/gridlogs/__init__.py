"""Logs of the grid's systems (data access, jobs, transfers, replicas), read as they come and kept as Parquet."""
