"""More attention for the picture: what is added to the scores of its keys, for the rows that predict an answer.

Three forms: a constant; a share of each score's own size (PAI, arXiv 2407.21771); a share of the mean size over all heads of
the layer (CG-VLM, arXiv 2512.05546).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Float32, Int, Num

from gaze.heads import Head, HeadSet
from gaze.steering.masks import as_mask
from qwen3vl_jax.checks import require_shape
from qwen3vl_jax.edits import Amplify, Edits, Steer
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Prompt

FORMS = ("constant", "own", "mean")
"""Added to a score: the amount; the amount times the size of this score; times the mean of the sizes over the layer's heads."""


@struct.dataclass
class Boost:
    """A plan: raises scores at some keys of the prompt, of the last row of the prompt and of all rows after it.

    Attributes:
      heads: the amount of each head, 0 for those that are left alone.
      keys: 1 at keys of the prompt that are raised, 0 at the others.
      form: one of `FORMS`.
    """

    heads: Float32[Array | np.ndarray, "#batch layer heads"]
    keys: Float32[Array | np.ndarray, "#batch key"]
    form: str = struct.field(pytree_node=False, default="own")

    def at(self, step: int | Int[Array, "*row"], slots: int) -> Edits:
        """The edits of one pass, the same in every step."""
        del step
        return self.scaled(jnp.ones((1,), jnp.float32), slots)

    def scaled(self, factor: Float[Array, "#batch"] | Float[Array, "#batch slot"], slots: int) -> Edits:
        """The edits of a pass against `slots` slots with so much of the amount: in each row of the batch, or by slot, too."""
        heads, keys = jnp.asarray(self.heads).swapaxes(0, 1), jnp.asarray(self.keys)
        length = keys.shape[1]
        keys = jnp.pad(keys, ((0, 0), (0, slots - length)))
        rows = (jnp.arange(slots) >= length - 1).astype(jnp.float32)[None, :]
        query_mask = (factor if factor.ndim == 2 else factor[:, None]) * rows
        if self.form == "constant":
            return Edits(steer=Steer(heads, keys, jnp.zeros((1,), bool), query_mask))
        return Edits(amplify=Amplify(heads, keys, jnp.full((1,), self.form == "mean"), query_mask))


def boost(
    heads: Num[np.ndarray, "layer *batch heads"] | HeadSet | Sequence[Head],
    keys: Bool[np.ndarray, "batch key"],
    amount: float,
    form: str = "own",
    shape: tuple[int, int] | None = None,
) -> Boost:
    """Builds the plan that raises scores by an amount, which may be negative.

    Args:
      heads: 1 at the heads that are raised, 0 at the others; or a `HeadSet`, or pairs (layer, head), together with `shape`.
      keys: of the prompt, as `image_keys` gives them.
      form: one of `FORMS`.
      shape: the model's (layers, heads per layer).

    Raises InputError for an unknown form, an amount that is no number, keys that are none, and heads that do not fit.
    """
    if form not in FORMS:
        raise InputError(f"there is no boost of the form {form!r}: choose one of {', '.join(FORMS)}")
    if not np.isfinite(amount):
        raise InputError(f"the amount of a boost is {amount}, but should be a finite number")
    mask, keys = as_mask(heads, shape), np.asarray(keys)
    require_shape("keys", keys, dict(batch=None, key=None))
    require_shape("heads", mask, dict(layer=None, batch=len(keys), heads=None), ones="batch")
    if not keys.any(axis=1).all():
        raise InputError("a row has no key to boost: give prompts that show a picture")
    return Boost((amount * mask.swapaxes(0, 1)).astype(np.float32), keys.astype(np.float32), form)


def image_keys(prompt: Prompt) -> Bool[np.ndarray, "batch key"]:
    """The keys of a prompt that show its pictures. Raises InputError if it shows none."""
    if prompt.image_cell is None:
        raise InputError("the prompt shows no image: give one to look at")
    shown: np.ndarray = (np.asarray(prompt.image_cell) >= 0) & np.asarray(prompt.valid)
    return shown
