"""The commands, the testbed, and what it all shows."""

from qwen3vl_jax import __version__  # this import sets flags of XLA that right results depend on, before JAX starts

__all__ = ["__version__"]
