"""Steering that answers to what is read: a boost behind a gate, and logits in contrast to those of another prompt."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree

from gaze.steering.boosts import Boost
from gaze.steering.gates import Gate
from gaze.steering.versions import Versions
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.generation.decoding import Read
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision


@struct.dataclass
class Contrast:
    """Moves the logits away from those after another version of the prompt: weight * own + (1 - weight) * other.

    PAI (arXiv 2407.21771) leaves the picture out, and its weight is gamma; VCD (arXiv 2311.16922) shows it in noise, and its
    weight is 1 + alpha.

    Attributes:
      other: one version of every prompt.
      cutoff: tokens that are less likely than this share of the likeliest are not said.
    """

    other: Versions
    weight: Float32[Array | np.ndarray, ""]
    cutoff: Float32[Array | np.ndarray, ""]

    def __call__(
        self, own: Float[Array, "batch vocab"], other: Float[Array, "batch 1 vocab"]
    ) -> tuple[Float[Array, "batch vocab"], Bool[Array, "batch vocab"]]:
        """The logits, and which tokens may be said."""
        own, weight = own.astype(jnp.float32), jnp.asarray(self.weight)
        allowed = own >= jnp.max(own, axis=-1, keepdims=True) + jnp.log(jnp.asarray(self.cutoff))
        return weight * own + (1 - weight) * other[:, 0], allowed


@struct.dataclass
class Carry:
    """What one step tells the next.

    Attributes:
      memory: of the gate's sensor.
      other: the cache of the version that the logits are contrasted with.
      values: what the sensor has measured before each step; NaN where nothing was.
      open: whether the gate was open in each step.
    """

    memory: PyTree
    other: PyTree
    values: Float32[Array | np.ndarray, "batch step"]
    open: Bool[Array | np.ndarray, "batch step"]


@struct.dataclass
class Guided:
    """A plan of a boost, behind a gate if there is one, and a contrast if there is one; see `ReadingPlan`."""

    boost: Boost | None = None
    gate: Gate | None = None
    contrast: Contrast | None = None

    def read_prompt(self, model: Qwen3VL, prompt: Prompt, vision: Vision | None, max_new: int) -> Read:
        batch, length = prompt.tokens.shape
        slots, memory, other = length + max_new, None, None
        value, opened = jnp.full((batch,), jnp.nan, jnp.float32), jnp.ones((batch,), bool)
        if self.gate is not None:
            value, memory = self.gate.sensor.before_prompt(model, vision, batch, max_new)
            opened = self.gate.opens(value)
        edits = self._edits(opened, slots)
        if edits is not None:
            edits.check(model.config.text, batch, length, slots)
            edits = edits.upto(length)
        output = model(prompt, vision, None, edits, self._taps(length))
        logits = model.logits(output.hidden[:, -1])
        if self.gate is not None:
            memory = self.gate.sensor.after_prompt(model, output, logits, memory)
        allowed = None
        if self.contrast is not None:
            without, other = self.contrast.other.read_prompt(model, vision, max_new)
            logits, allowed = self.contrast(logits, without)
        values = jnp.full((batch, max_new), jnp.nan, jnp.float32).at[:, 0].set(value)
        carry = Carry(memory, other, values, jnp.zeros((batch, max_new), bool).at[:, 0].set(opened))
        return Read(logits, output.cache, carry, allowed)

    def read_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], cache: PyTree, step: Int32[Array, " batch"], carry: PyTree
    ) -> Read:
        memory, other, rows = carry.memory, carry.other, jnp.arange(len(token))
        value, opened = jnp.full(rows.shape, jnp.nan, jnp.float32), jnp.ones(rows.shape, bool)
        if self.gate is not None:
            value, memory = self.gate.sensor.before_token(model, token, step, memory)
            opened = self.gate.opens(value)
        taps = self._taps(cache.slots)
        output = model.extend(token, cache, self._edits(opened, cache.slots), taps)
        logits = model.logits(output.hidden[:, -1])
        if self.gate is not None:
            memory = self.gate.sensor.after_token(output, logits, memory)
        allowed = None
        if self.contrast is not None:
            without, other = self.contrast.other.read_token(model, token, other)
            logits, allowed = self.contrast(logits, without)
        values = carry.values.at[rows, step].set(value, mode="drop")
        was_open = carry.open.at[rows, step].set(opened, mode="drop")
        return Read(logits, output.cache, Carry(memory, other, values, was_open), allowed)

    def _edits(self, opened: Bool[Array, " batch"], slots: int) -> Edits | None:
        return None if self.boost is None else self.boost.scaled(opened.astype(jnp.float32), slots)

    def _taps(self, slots: int) -> Taps | None:
        return None if self.gate is None else self.gate.sensor.taps(slots)
