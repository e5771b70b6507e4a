"""Public helpers for tests: toy ROOT files, a physics generator, and servers that fail on demand."""
