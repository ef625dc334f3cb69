"""The commands, the testbed, and what it all shows."""

import qwen3vl_jax as qwen3vl_jax  # sets the flags of XLA that right results depend on, before JAX starts
