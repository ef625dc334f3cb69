"""Benchmarks on a CPU: `python -m experiments.bench.NAME`, each one command that measures both sides in one run."""

import os

# Before JAX and transformers are imported, here and in the processes that measure.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
