"""Benchmarks: `python -m experiments.bench.NAME`, each one command that measures both sides in one run."""
