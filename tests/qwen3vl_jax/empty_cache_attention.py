"""Attention to a cache that is made empty inside a program: prints in how many of some compilations it is not finite."""

import jax
import jax.numpy as jnp
import numpy as np

B, KV, G, Q, D, P = 8, 4, 2, 76, 20, 160
RNG = np.random.default_rng(0)
q = jnp.asarray(RNG.normal(size=(B, Q, KV * G, D)), jnp.float32)  # starts the backend before the package is imported
k = jnp.asarray(RNG.normal(size=(B, KV, D, Q)), jnp.float32)
v = jnp.asarray(RNG.normal(size=(B, KV, Q, D)), jnp.float32)

from qwen3vl_jax.attention import attend  # noqa: E402

seen = jnp.concatenate([jnp.zeros((B, P), bool), jnp.ones((B, Q), bool)], 1)


def mixed(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    empty = (jnp.zeros((B, KV, D, P)), jnp.zeros((B, KV, P, D)))
    return attend(q, (empty, (k, v)), seen, None, causal=True)


bad = 0
for _ in range(6):
    jax.clear_caches()
    bad += not np.isfinite(np.asarray(jax.jit(mixed)(q, k, v))).all()
print(bad)
