"""Benchmarks: the service as a ratio to the floor that the same servers have in the same run."""
