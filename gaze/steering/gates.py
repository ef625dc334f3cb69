"""When to steer: a sensor gives one number per row and step, and a gate opens where it is above or below a threshold.

A sensor either reads other versions of the prompt before the step itself is made, or remembers what the step before has
shown, which costs no pass but comes one token late and never before the first token, or is told.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree

from gaze.steering.versions import Versions
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.model import Output, Qwen3VL
from qwen3vl_jax.vision import Vision

TOP = 50
"""The likeliest tokens over which CG-VLM takes the variance of an interaction."""
PLAIN, NO_IMAGE, NO_TEXT, NEITHER = range(4)
"""The order of the versions that `Compare` reads; a divergence needs the first two alone."""

Value = Float[Array, " batch"]


class Sensor:
    """What a gate asks before every step, and what it is shown after it; `memory` is whatever the sensor wants to keep."""

    def before_prompt(self, model: Qwen3VL, vision: Vision | None, batch: int, max_new: int) -> tuple[Value, PyTree]:
        """The number of step 0, and the memory."""
        raise NotImplementedError

    def before_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], step: Int32[Array, " batch"], memory: PyTree
    ) -> tuple[Value, PyTree]:
        """The number of a later step, which reads this token."""
        raise NotImplementedError

    def taps(self, slots: int) -> Taps | None:
        """What a step has to read of its last row."""
        del slots
        return None

    def after_prompt(
        self, model: Qwen3VL, output: Output, logits: Float[Array, "batch vocab"], memory: PyTree
    ) -> PyTree:
        """The memory after step 0, whose output has all rows of the prompt."""
        del model, output, logits
        return memory

    def after_token(self, output: Output, logits: Float[Array, "batch vocab"], memory: PyTree) -> PyTree:
        """The memory after a later step."""
        del output, logits
        return memory


@struct.dataclass
class Compare(Sensor):
    """Compares what the model would say next, left alone, after versions of the prompt.

    Attributes:
      versions: in the order of `PLAIN` to `NEITHER`: all four for the variance of the interaction of picture and question over
        the `TOP` likeliest tokens (CG-VLM's sensor); the first two for KL(with the picture || without).
    """

    versions: Versions

    def before_prompt(self, model: Qwen3VL, vision: Vision | None, batch: int, max_new: int) -> tuple[Value, PyTree]:
        del batch
        logits, cache = self.versions.read_prompt(model, vision, max_new)
        return self._value(logits), cache

    def before_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], step: Int32[Array, " batch"], memory: PyTree
    ) -> tuple[Value, PyTree]:
        del step
        logits, cache = self.versions.read_token(model, token, memory)
        return self._value(logits), cache

    def _value(self, logits: Float[Array, "batch version vocab"]) -> Value:
        return divergence(logits[:, PLAIN], logits[:, NO_IMAGE]) if logits.shape[1] == 2 else interaction(logits)


@struct.dataclass
class Recall(Sensor):
    """What the step before has shown: how unsure it was, or how little it looked.

    Attributes:
      keys: 1 at the keys of the prompt that show the picture.
      heads: which heads are watched, with a sum of 1; None unless `measure` is mass.
      measure: "entropy" of the next token, as a share of the greatest there is; "grounding", a mean of that entropy and of one
        minus the chance of the likeliest token at the image row that gives it most (VGE of AdaVBoost, arXiv 2602.13600);
        "mass", the share of attention on the picture.
      entropy_share: how much of "grounding" is entropy.
    """

    keys: Float32[Array | np.ndarray, "batch key"]
    heads: Float32[Array | np.ndarray, "layer heads"] | None = None
    measure: str = struct.field(pytree_node=False, default="entropy")
    entropy_share: float = struct.field(pytree_node=False, default=0.75)

    def before_prompt(self, model: Qwen3VL, vision: Vision | None, batch: int, max_new: int) -> tuple[Value, PyTree]:
        del model, vision, max_new
        return jnp.full((batch,), jnp.nan, jnp.float32), None  # nothing is above or below it

    def before_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], step: Int32[Array, " batch"], memory: PyTree
    ) -> tuple[Value, PyTree]:
        del model, token, step
        return memory[0], memory

    def taps(self, slots: int) -> Taps | None:
        if self.measure != "mass":
            return None
        keys = jnp.asarray(self.keys)
        groups = jnp.pad(keys, ((0, 0), (0, slots - keys.shape[1])))[:, None]
        return Taps(jnp.full((1, 1), -1, jnp.int32), groups)

    def after_prompt(
        self, model: Qwen3VL, output: Output, logits: Float[Array, "batch vocab"], memory: PyTree
    ) -> PyTree:
        del memory
        grounds = _grounds(model, output, jnp.asarray(self.keys)) if self.measure == "grounding" else None
        return self.after_token(output, logits, (None, grounds))

    def after_token(self, output: Output, logits: Float[Array, "batch vocab"], memory: PyTree) -> PyTree:
        grounds = memory[1]
        if self.measure == "mass":
            assert output.readings is not None
            assert self.heads is not None
            return jnp.einsum("lbh,lh->b", output.readings.mass[:, :, 0, :, 0], jnp.asarray(self.heads)), grounds
        unsure = entropy(logits)
        if grounds is None:
            return unsure, grounds
        best = jnp.take_along_axis(grounds, jnp.argmax(logits, axis=-1)[:, None], axis=1)[:, 0]
        return self.entropy_share * unsure + (1 - self.entropy_share) * (1 - best), grounds


@struct.dataclass
class Told(Sensor):
    """Numbers that are known beforehand: drawn, or 1 where an oracle would steer; the last one holds for all later steps."""

    values: Float32[Array | np.ndarray, "batch step"]

    def before_prompt(self, model: Qwen3VL, vision: Vision | None, batch: int, max_new: int) -> tuple[Value, PyTree]:
        del model, vision, batch, max_new
        return jnp.asarray(self.values)[:, 0], None

    def before_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], step: Int32[Array, " batch"], memory: PyTree
    ) -> tuple[Value, PyTree]:
        del model, token
        values = jnp.asarray(self.values)
        now = jnp.minimum(step, values.shape[1] - 1)
        return jnp.take_along_axis(values, now[:, None], axis=1)[:, 0], memory


@struct.dataclass
class Gate:
    """Opens where a sensor's number is above a threshold, or below it."""

    sensor: Sensor
    threshold: Float32[Array | np.ndarray, ""]
    below: bool = struct.field(pytree_node=False, default=False)

    def opens(self, value: Value) -> Bool[Array, " batch"]:
        threshold = jnp.asarray(self.threshold, value.dtype)
        return value < threshold if self.below else value > threshold


def interaction(logits: Float[Array, "batch version vocab"]) -> Value:
    """Variance over the likeliest tokens of how picture and question act together: L(v, p) - L(v) - L(p) + L(neither)."""
    whole, no_image, no_text, neither = jnp.unstack(logits.astype(jnp.float32), axis=1)
    _, likely = lax.top_k(whole, min(TOP, whole.shape[-1]))
    dividend = jnp.take_along_axis(whole - no_image - no_text + neither, likely, axis=1)
    return jnp.var(dividend, axis=-1, ddof=1)


def divergence(logits: Float[Array, "*row vocab"], other: Float[Array, "*row vocab"]) -> Float[Array, "*row"]:
    """KL of the first from the second, in nats."""
    log_p, log_q = (jax.nn.log_softmax(some.astype(jnp.float32)) for some in (logits, other))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def entropy(logits: Float[Array, "*row vocab"]) -> Float[Array, "*row"]:
    """Entropy of the next token, from 0 to 1."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    nats: Array = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return nats / float(np.log(logits.shape[-1]))


def _grounds(model: Qwen3VL, output: Output, keys: Float[Array, "batch key"]) -> Float[Array, "batch vocab"]:
    """The greatest chance that a row of the picture gives each token; row by row, as all rows of a large vocabulary are many."""

    def widen(best: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        hidden, shown = row
        chance = jax.nn.softmax(model.logits(hidden).astype(jnp.float32))
        return jnp.maximum(best, chance * shown[:, None]), None

    nothing = jnp.zeros((len(keys), model.config.text.vocab_size), jnp.float32)
    best: Array = lax.scan(widen, nothing, (output.hidden.swapaxes(0, 1), keys.T))[0]
    return best
