"""Qwen3-VL in JAX/Flax: edits in, taps out. Import from its modules; this package imports none of them, nor JAX."""

from importlib.metadata import version

from qwen3vl_jax.xla_flags import disable_ynn_fusion

__version__ = version("gaze-jax")
__all__ = [
    "__version__",
    "cache",
    "config",
    "edits",
    "errors",
    "generation",
    "images",
    "inputs",
    "load",
    "model",
    "processing",
    "sharding",
]

disable_ynn_fusion()
