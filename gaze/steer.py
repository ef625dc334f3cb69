"""Steering as data: which heads, which keys, when and how hard, as arrays that become edits step by step.

Steps count forward passes: step 0 reads the prompt and gives token 0; step t reads token t - 1 and gives token t.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Prompt

MODES = {
    "boost_suppress": (1, -1, 0, 0),
    "suppress_image": (0, -1, 0, 0),
    "suppress_all": (0, -1, -1, 0),
    "max_suppress_all": (0, -1, -1, -1),
}
"""Signs of the bias on the target, on the other image tokens, on the prompt's text and on decoded tokens."""

PRECISIONS = ("ordered", "uniform")

ROWS = ("all", "text", "answer", "decoded", "prompt")
"""Query rows that carry the bias: all; those of words, so that the image tokens are read as ever; those that predict the
answer, from the last of the prompt on; those of the answer's own tokens; those of the prompt."""


@struct.dataclass
class Steering:
    """A plan for `generate`. All of it is data: no value in it is compiled in.

    Attributes:
      heads: 1 for steered heads, 0 for the others.
      signs: for each target region the sign of the bias at each key of the prompt; the last entry stands for all
        keys behind the prompt.
      targets: region to look at in each step, from 0, or -1 for no steering; the last entry stands for all later steps.
      strength: size of the bias.
      uniform: whether the bias replaces the scores instead of being added to them.
      rows: 1 for queries that carry the bias; the last entry stands for all behind the prompt.
    """

    heads: Float32[Array, "layer #batch heads"]
    signs: Float32[Array, "#batch region key"]
    targets: Int32[Array, "#batch step"]
    strength: Float32[Array, "#batch"]
    uniform: Bool[Array, ""]
    rows: Float32[Array, "#batch key"]

    def at(self, step: ArrayLike, slots: int) -> Edits:
        """The edits of one forward pass against a cache of `slots` slots."""
        target = self.targets[:, jnp.minimum(step, self.targets.shape[1] - 1)]
        chosen = target[:, None] == jnp.arange(self.signs.shape[1])[None, :]
        signs = jnp.sum(self.signs, axis=1, where=chosen[:, :, None])
        slot = jnp.minimum(jnp.arange(slots), self.signs.shape[2] - 1)
        keys = self.strength[:, None] * signs[:, slot]
        return Edits(steer=Steer(self.heads, keys, self.uniform, self.rows[:, slot]))


def steering(
    heads: Float[np.ndarray, "layer *batch heads"],
    prompt: Prompt,
    regions: Bool[np.ndarray, "#batch region key"],
    targets: Int[np.ndarray, "#batch step"],
    strength: float | int | Float[np.ndarray, " #batch"] = 10_000.0,
    mode: str = "boost_suppress",
    precision: str = "ordered",
    rows: str = "all",
) -> Steering:
    """Builds the plan that makes heads look at regions (arXiv 2606.14703, section 3).

    Args:
      heads: mask of `HeadSet.to_mask`, or one per row of the batch.
      prompt: the prompts that will be continued; the key axis of `regions` is their tokens.
      regions: of `region_keys`.
      targets: of `schedule`, index of the region to look at in each step, -1 for none.
      strength: the bias, 0 or more; one for all or one per row.
      mode: a key of `MODES`: what is boosted and what suppressed.
      precision: "ordered" adds the bias in float32, so a steered head keeps the order of its scores within the target;
        "uniform" replaces the scores, so it attends evenly, which is what adding 10,000 in bfloat16, as the paper's
        code does, amounts to. Use "uniform" with strengths of that size only: with small ones it means little.
      rows: one of `ROWS`: which queries carry the bias.

    Raises InputError for an unknown mode, precision or choice of rows, a bad strength, and a target that is no region or
    covers no key.
    """
    for value, known in ((mode, (*MODES,)), (precision, PRECISIONS), (rows, ROWS)):
        if value not in known:
            raise InputError(f"there is no {value} steering: choose one of {', '.join(known)}")
    amount = np.atleast_1d(np.asarray(strength, np.float32))
    if not (np.isfinite(amount).all() and (amount >= 0).all()):
        raise InputError(f"the strength must be a finite number of at least 0, got {strength}")
    _check_targets(regions, targets)
    return Steering(
        heads=jnp.asarray(heads.reshape(len(heads), -1, heads.shape[-1]), jnp.float32),
        signs=jnp.asarray(_signs(prompt, regions, mode)),
        targets=jnp.asarray(targets, jnp.int32),
        strength=jnp.asarray(amount),
        uniform=jnp.asarray(precision == "uniform"),
        rows=jnp.asarray(_rows(prompt, rows)),
    )


def schedule(changes: Sequence[tuple[int, int]], steps: int = 2) -> Int32[np.ndarray, " steps"]:
    """Targets per step from (first step, region) pairs; the last one holds to the end of the text.

    `schedule([(0, k)])` steers to region k (from 0, -1 for none) all along, `schedule([(1, k)])` from the first
    decoded token on and not while the prompt is read. Steps before the first change are not steered. The paper's code
    counts decode passes from 0, so its step s is s + 1 here.

    Raises InputError if the first steps do not increase or lie outside of 0 to `steps` - 1.
    """
    starts = [start for start, _ in changes]
    if starts != sorted(set(starts)) or not all(0 <= start < steps for start in starts):
        raise InputError(f"a schedule needs increasing first steps from 0 to {steps - 1}, got {starts}")
    targets = np.full(steps, -1, np.int32)
    for start, region in changes:
        targets[start:] = region
    return targets


def _check_targets(regions: Bool[np.ndarray, "#batch region key"], targets: Int[np.ndarray, "#batch step"]) -> None:
    count = regions.shape[1]
    if not ((targets >= -1) & (targets < count)).all():
        raise InputError(f"a target is none of the {count} regions: give 0 to {count - 1}, or -1 for no steering")
    targeted = (targets[:, :, None] == np.arange(count)).any(axis=1)
    if (targeted & ~regions.any(axis=2)).any():
        raise InputError("a target region covers no image token: give a region that does")


def _rows(prompt: Prompt, rows: str) -> Float32[np.ndarray, "batch row"]:
    """1 at the prompt's queries that carry the bias, and in the last column at those behind the prompt."""
    batch, length = prompt.tokens.shape
    cells = np.full((batch, length), -1) if prompt.image_cell is None else np.asarray(prompt.image_cell)
    last = np.arange(length) == length - 1
    inside = {
        "all": np.ones_like(cells, bool),
        "text": cells < 0,
        "answer": np.broadcast_to(last, cells.shape),
        "decoded": np.zeros_like(cells, bool),
        "prompt": np.ones_like(cells, bool),
    }[rows]
    return np.pad(inside, ((0, 0), (0, 1)), constant_values=rows != "prompt").astype(np.float32)


def _signs(
    prompt: Prompt, regions: Bool[np.ndarray, "#batch region key"], mode: str
) -> Float32[np.ndarray, "#batch region key+1"]:
    """Signs per region and key, and behind the last key that of decoded tokens; 0 all along for an empty region."""
    if prompt.image_cell is None:
        raise InputError("the prompt shows no image: steering needs one to look at")
    target, image, text, decoded = MODES[mode]
    is_image = np.asarray(prompt.image_cell)[:, None, :] >= 0
    rest = np.where(is_image, image, text) * np.asarray(prompt.valid)[:, None, :]
    signs = np.where(regions, target, rest)
    with_decoded = np.pad(signs, ((0, 0), (0, 0), (0, 1)), constant_values=decoded)
    return (with_decoded * regions.any(axis=2, keepdims=True)).astype(np.float32)
