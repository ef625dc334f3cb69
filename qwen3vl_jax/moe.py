"""The mixture of experts that stands in each layer of the 30B-A3B and 235B-A22B models in place of an MLP.

Matches `Qwen3VLMoeTextSparseMoeBlock` of `transformers/models/qwen3_vl_moe/modeling_qwen3_vl_moe.py`.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from qwen3vl_jax.config import TextConfig
from qwen3vl_jax.grouped_matmul import grouped_matmul
from qwen3vl_jax.layers import ACTIVATIONS, Linear, weight
from qwen3vl_jax.sharding import shardings


class Experts(nnx.Module):
    """The MLPs of all experts. Of a file's two layouts transformers 5 saves the first, the hub holds the second."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        axes, init = {**config.axes, "two": 2}, nnx.initializers.normal(0.02)
        gate_up = "expert (two mlp) embed | expert embed (two mlp) -> expert embed two mlp"
        self.gate_up_proj = weight(gate_up, axes, rngs, dtype, init)
        self.down_proj = weight("expert embed mlp | expert mlp embed -> expert mlp embed", axes, rngs, dtype, init)
        self.act = config.hidden_act

    def __call__(
        self,
        x: Float[Array, "batch query embed"],
        shares: Float[Array, "batch query choice"],
        chosen: Int32[Array, "batch query choice"],
    ) -> Float[Array, "batch query embed"]:
        """The sum of the chosen experts' outputs, each times its share; no token is dropped."""
        gate_up, down = self.gate_up_proj[...], self.down_proj[...]
        # Sorted by expert, a token stands there once for each of its choices.
        order = jnp.argsort(chosen.reshape(-1))
        sizes = jnp.bincount(chosen.reshape(-1), length=len(down))
        rows = x.reshape(-1, x.shape[-1])[order // chosen.shape[-1]]
        gate, up = jnp.split(grouped_matmul(rows, rearrange(gate_up, "e d two m -> e d (two m)"), sizes), 2, axis=-1)
        out = grouped_matmul(ACTIVATIONS[self.act](gate) * up, down, sizes)
        out = jnp.zeros_like(out).at[order].set(out).reshape(*chosen.shape, -1)
        return jnp.sum(out * shares[..., None], axis=-2)


class MoE(nnx.Module):
    """A router and its experts."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        assert config.experts is not None
        self.per_token = config.experts.per_token
        self.gate = Linear("embed -> expert", config.axes, rngs, dtype, bias=False)
        self.experts = Experts(config, rngs, dtype)

    def __call__(self, x: Float[Array, "batch query embed"]) -> Float[Array, "batch query embed"]:
        mesh = jax.typeof(self.experts.down_proj[...]).sharding.mesh
        return self.experts(x, *self.route(x)) if mesh.empty else self._spread(x, mesh)

    def route(
        self, x: Float[Array, "batch query embed"]
    ) -> tuple[Float[Array, "batch query choice"], Int32[Array, "batch query choice"]]:
        """Each token's experts, the most probable first, and their shares of it; of equally probable ones the first win."""
        odds = jax.nn.softmax(self.gate(x).astype(jnp.float32), axis=-1)
        best, chosen = lax.top_k(odds, self.per_token)
        return (best / jnp.sum(best, axis=-1, keepdims=True)).astype(x.dtype), chosen

    def _spread(self, x: Float[Array, "batch query embed"], mesh: AbstractMesh) -> Float[Array, "batch query embed"]:
        """The same on a mesh, where XLA by itself would sort the tokens of all devices on each of them.

        Every row of the mesh sorts its own tokens, and its devices hold a part of the width of every expert.
        """
        specs = jax.tree.map(lambda place: place.spec, shardings(self, mesh))
        batch = P(None if x.shape[0] % mesh.shape["data"] else "data")
        split = "model" in specs.experts.down_proj.get_value()

        def mix(moe: MoE, x: Array) -> Array:
            mixed = moe.experts(x, *moe.route(x))
            return lax.psum(mixed, "model") if split else mixed

        return jax.shard_map(mix, mesh=mesh, in_specs=(specs, batch), out_specs=batch, check_vma=False)(self, x)
