"""Gaze heads: find them, steer them, and measure what it does. Import from its modules; this package imports none of them."""

from qwen3vl_jax import __version__  # this import sets flags of XLA that right results depend on, before JAX starts

__all__ = [
    "__version__",
    "discovery",
    "heads",
    "intervals",
    "judges",
    "pictures",
    "prompts",
    "report",
    "statistics",
    "steering",
    "testbed",
    "text_spans",
]
