"""What a layer has to do in a pass whose results are wanted in part only: all of it is data, so that one program serves all."""

from enum import IntEnum

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int32

from qwen3vl_jax.text import LayerOutput, LayerPass


class LayerMode(IntEnum):
    """Nothing; keys and values; beside these, all of the last token; all of every token."""

    SKIP = 0
    KV_ONLY = 1
    LAST_TOKEN = 2
    FULL = 3


@struct.dataclass
class LayerModes:
    """The mode of each layer. Nothing is read by taps where not all layers are in mode FULL."""

    modes: Int32[Array, " layer"]

    def run(
        self, layer: LayerPass, mode: Int32[Array, ""], x: Float[Array, "batch query embed"]
    ) -> tuple[Float[Array, "batch query embed"], LayerOutput]:
        """What `layer(x)` gives, as far as the mode wants it; keys, values and readings that are not made are 0."""
        nothing: LayerOutput = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(layer, x)[1])

        def skip(x: Array) -> tuple[Array, LayerOutput]:
            return x, nothing

        def kv_only(x: Array) -> tuple[Array, LayerOutput]:
            return x, (layer.keys_values(x), nothing[1])

        def last_token(x: Array) -> tuple[Array, LayerOutput]:
            own = layer.keys_values(x)
            row, _ = layer.of_last_token().attend(x[:, -1:], own)
            return layer.add(x.at[:, -1:].set(row)), (own, nothing[1])

        # In the order of `LayerMode`.
        done: tuple[Array, LayerOutput] = lax.switch(mode, [skip, kv_only, last_token, layer], x)
        return done
