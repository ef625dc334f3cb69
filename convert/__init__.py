"""Hugging Face checkpoints to Orbax and back, and the check that it is right."""

import qwen3vl_jax as qwen3vl_jax  # sets the flags of XLA that right results depend on, before JAX starts
