"""Gaze heads: find them, steer them, and measure what it does."""

import qwen3vl_jax as qwen3vl_jax  # sets the flags of XLA that right results depend on, before JAX starts
