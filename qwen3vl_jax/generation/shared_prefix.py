"""Many variants of one prompt: what the edits of no variant can change is computed once.

An edit that acts in layers from `first` on, and on rows from `start` on, leaves the layers below and the rows before as they
are. So a prompt is read in three parts: the layers below, of all rows; the layers from `first` on, of the rows before; and the
rest, for each variant. The first two are shared.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int32

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.edits import Edits
from qwen3vl_jax.generation.layer_modes import LayerMode, LayerModes
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Output, Qwen3VL
from qwen3vl_jax.vision import Vision


@struct.dataclass
class SharedPrefix:
    """What all variants share.

    Attributes:
      stream: after the last layer below `first`, at the rows from `start` on.
      deepstack: what still joins the stream there after early layers.
      keys, values: of every slot and layer; 0 where it is up to the variants.
      positions, valid: of every slot.
      first: the first layer that is up to the variants; the number of layers if none is.
    """

    stream: Float[Array, "prompt row embed"]
    deepstack: Float[Array, "tap prompt row embed"] | None
    keys: Float[Array, "layer prompt kv head slot"]
    values: Float[Array, "layer prompt kv slot head"]
    positions: Int32[Array, "prompt slot 3"]
    valid: Bool[Array, "prompt slot"]
    first: Int32[Array, ""]


def prefill_shared(
    model: Qwen3VL, prompt: Prompt, vision: Vision | None, first: Int32[Array, ""], *, start: int
) -> SharedPrefix:
    """Reads of each prompt what all its variants share; `start` lies within the prompt."""
    decoder = model.model.language_model
    positions, valid = jnp.asarray(prompt.positions), jnp.asarray(prompt.valid)
    below = jnp.arange(model.config.text.num_hidden_layers) < first
    x, deepstack = model.embed(prompt, vision)
    x, (keys, values), _ = decoder(x, positions, valid, deepstack, None, None, None, _full_where(below))
    if start:
        early = None if deepstack is None else deepstack[:, :, :start]
        before = (x[:, :start], positions[:, :start], valid[:, :start], early)
        _, own, _ = decoder(*before, None, None, None, _full_where(~below))
        keys, values = keys.at[..., :start].add(own[0]), values.at[..., :start, :].add(own[1])
    later = None if deepstack is None else deepstack[:, :, start:]
    return SharedPrefix(x[:, start:], later, keys, values, positions, valid, jnp.asarray(first, jnp.int32))


def fork(model: Qwen3VL, shared_prefix: SharedPrefix, edits: Edits | None, copies: int) -> Output:
    """Reads the rest of each prompt in `copies` variants, which stand side by side: what `model(prompt, ...)` would give.

    `edits` are of as many rows, and must leave alone what the shared prefix holds. `Output.hidden` has the last row alone.
    """
    decoder = model.model.language_model
    above = _full_where(jnp.arange(len(shared_prefix.keys)) >= shared_prefix.first)
    # Rows before the last are done when the last layer has their keys.
    above = LayerModes(above.modes.at[-1].min(LayerMode.LAST_TOKEN))
    start = shared_prefix.valid.shape[1] - shared_prefix.stream.shape[1]
    last = jnp.max(shared_prefix.positions, axis=(1, 2), where=shared_prefix.valid[:, :, None], initial=-1)
    shared = Cache(
        shared_prefix.keys, shared_prefix.values, shared_prefix.valid, jnp.asarray(start, jnp.int32), last + 1
    ).fork(copies, 0)
    past = None if start == 0 else shared.upto(start)
    x, positions = (
        jnp.repeat(leaf, copies, axis=0) for leaf in (shared_prefix.stream, shared_prefix.positions[:, start:])
    )
    x, own, _ = decoder(x, positions, shared.valid[:, start:], shared_prefix.deepstack, past, edits, None, above)
    keys, values = shared.keys.at[..., start:].add(own[0]), shared.values.at[..., start:, :].add(own[1])
    filled = jnp.asarray(shared.slots, jnp.int32)
    return Output(decoder.norm(x[:, -1:]), replace(shared, keys=keys, values=values, filled=filled), None)


def _full_where(wanted: Bool[Array, " layer"]) -> LayerModes:
    """All of the work of some layers, none of the others'."""
    return LayerModes(jnp.where(wanted, jnp.int32(LayerMode.FULL), jnp.int32(LayerMode.SKIP)))
