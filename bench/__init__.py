"""Benchmarks: each measures the service beside a reference of its own, in the same run."""
