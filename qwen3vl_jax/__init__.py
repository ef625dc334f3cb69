"""Qwen3-VL in JAX/Flax: edits in, taps out."""

from importlib.metadata import version

from qwen3vl_jax.xla_flags import disable_ynn_fusion

__version__ = version("gaze-jax")

disable_ynn_fusion()
