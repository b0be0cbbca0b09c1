"""Benchmarks: `make bench` measures Atrium beside its baselines in the same run."""
