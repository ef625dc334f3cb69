"""Old place of `qwen3vl_jax.load`."""

import warnings

from qwen3vl_jax.load import load, load_model

__all__ = ["load", "load_model"]

warnings.warn("convert.load has moved: import from qwen3vl_jax.load", DeprecationWarning, stacklevel=2)
