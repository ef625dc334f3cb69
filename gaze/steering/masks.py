"""Steering as data: which heads, which keys, when and how hard, as arrays that become edits step by step.

Steps count forward passes: step 0 reads the prompt and gives token 0; step t reads token t - 1 and gives token t.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Float32, Int, Int32, Num

from gaze.heads import Head, HeadSet, as_heads
from qwen3vl_jax.checks import require_shape, require_type
from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reading
from qwen3vl_jax.inputs import Array, Prompt

MODES = {
    "boost_suppress": (1, -1, 0, 0),
    "suppress_image": (0, -1, 0, 0),
    "suppress_all": (0, -1, -1, 0),
    "max_suppress_all": (0, -1, -1, -1),
}
"""Signs of the bias on the target, on the other image tokens, on the prompt's text and on decoded tokens."""

CUT = "cut_image"
"""The mode that ablates heads: whatever the target, they no longer look at any of the picture."""
SIGNS = {**MODES, CUT: (-1, -1, 0, 0)}

BIASES = ("add", "replace")

QUERY_POSITIONS = ("all", "text", "answer", "decoded", "prompt")
"""Query rows that carry the bias: all; those of words after a picture, so that image tokens are read as ever; those that
predict the answer, from the last of the prompt on; those of the answer's own tokens; those of the prompt."""


@struct.dataclass
class Steering:
    """A plan for `generate`. All of it is data: no value in it is compiled in.

    Attributes:
      heads: 1 for steered heads, 0 for the others.
      signs: for each target region the sign of the bias at each key of the prompt; the last entry stands for all
        keys after the prompt.
      targets: region to look at in each step, from 0, or -1 for no steering; the last entry stands for all later steps.
      strength: size of the bias.
      replace_scores: whether the bias replaces the scores instead of being added to them.
      query_mask: 1 for queries that carry the bias; the last entry stands for all after the prompt.
    """

    heads: Float32[Array, "#batch layer heads"]
    signs: Float32[Array, "#batch region key"]
    targets: Int32[Array, "#batch step"]
    strength: Float32[Array, "#batch"]
    replace_scores: Bool[Array, "#batch"]
    query_mask: Float32[Array, "#batch key"]

    def at(self, step: int | Int[Array, "*row"], slots: int) -> Edits:
        """The edits of one forward pass, at the same step in all rows or each at its own, against `slots` slots."""
        now = jnp.minimum(jnp.atleast_1d(jnp.asarray(step, jnp.int32)), self.targets.shape[1] - 1)[:, None]
        count = max(len(now), len(self.targets))
        targets = jnp.broadcast_to(self.targets, (count, self.targets.shape[1]))
        target = jnp.take_along_axis(targets, jnp.broadcast_to(now, (count, 1)), axis=1)
        chosen = target == jnp.arange(self.signs.shape[1])[None, :]
        signs = jnp.sum(jnp.asarray(self.signs), axis=1, where=chosen[:, :, None])
        slot = jnp.minimum(jnp.arange(slots), self.signs.shape[2] - 1)
        heads, query_mask = jnp.asarray(self.heads).swapaxes(0, 1), jnp.asarray(self.query_mask)[:, slot]
        return Edits(
            steer=Steer(
                heads,
                jnp.asarray(self.strength)[:, None] * signs[:, slot],
                jnp.asarray(self.replace_scores),
                query_mask,
            )
        )


def steering(
    heads: Num[np.ndarray, "layer *batch heads"] | HeadSet | Sequence[Head],
    prompt: Prompt,
    regions: Bool[np.ndarray, "... region key"],
    targets: Int[np.ndarray, "... step"] | Sequence[int] | int,
    strength: float | int | Float[np.ndarray, " #batch"] = 10_000.0,
    mode: str | Sequence[str] = "boost_suppress",
    bias: str | Sequence[str] = "add",
    query_positions: str | Sequence[str] = "all",
    shape: tuple[int, int] | None = None,
) -> Steering:
    """Builds the plan that makes heads look at regions (arXiv 2606.14703, section 3).

    Everything is given once for all rows, or once for each.

    Args:
      heads: 1 at the heads to steer, 0 at the others; or a `HeadSet`, or pairs (layer, head), together with `shape`.
      prompt: with one picture or several in each row.
      regions: which keys show which region, as `gaze.pictures.regions.region_keys` gives them.
      targets: region to look at in each step, from 0, -1 for none.
      strength: the bias, 0 or more.
      mode: a key of `MODES`: what is boosted and what suppressed; or `CUT`.
      bias: "add" adds the strength in float32, so a steered head keeps the order of its scores within the target;
        "replace" replaces the scores, so it attends evenly, which is what adding 10,000 in bfloat16, as the paper's
        code does, amounts to. Use "replace" with strengths of that size only: with small ones it means little.
      query_positions: one of `QUERY_POSITIONS`: which queries carry the bias.

      shape: the model's (layers, heads per layer).

    Raises InputError for arguments whose shapes do not fit, an unknown mode, bias or choice of query positions, a bad strength,
    and a target that is no region or covers no key.
    """
    modes, biases, choices = (
        _known(given, known) for given, known in ((mode, (*SIGNS,)), (bias, BIASES), (query_positions, QUERY_POSITIONS))
    )
    amount = _strengths(strength)
    require_type("prompt", prompt, Prompt, "a Prompt, as the Processor makes it")
    batch, length = prompt.tokens.shape
    mask = as_mask(heads, shape)
    regions, targets = np.asarray(regions), np.atleast_1d(np.asarray(targets))
    regions, targets = regions[None] if regions.ndim == 2 else regions, targets[None] if targets.ndim == 1 else targets
    require_shape("heads", mask, dict(layer=None, batch=batch, heads=None), ones="batch")
    require_shape("regions", regions, dict(batch=batch, region=None, key=length), ones="batch")
    require_shape("targets", targets, dict(batch=batch, step=None), ones="batch")
    require_shape("strength", amount, dict(batch=batch), ones="batch")
    if regions.dtype != bool or not np.issubdtype(targets.dtype, np.integer):
        raise InputError(
            f"regions are of dtype {regions.dtype} and targets of {targets.dtype}, but should be bool and integers"
        )
    for name, some in (("mode", modes), ("bias", biases), ("query_positions", choices)):
        if len(some) not in (1, batch):
            raise InputError(f"{name} names {len(some)} values for {batch} rows: give one for all, or one for each")
    _check_targets(regions, targets)
    return Steering(
        heads=mask.swapaxes(0, 1).astype(np.float32),
        signs=_signs(prompt, regions, [SIGNS[one] for one in modes]),
        targets=targets.astype(np.int32),
        strength=amount,
        replace_scores=np.array([one == "replace" for one in biases]),
        query_mask=_query_mask(prompt, choices),
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


def check_how(strength: object, mode: object, bias: object, query_positions: object) -> None:
    """Raises InputError unless one row can be steered so; arguments as of `steering`."""
    _strengths(strength)
    choices = dict(mode=(mode, (*SIGNS,)), bias=(bias, BIASES), query_positions=(query_positions, QUERY_POSITIONS))
    for name, (given, known) in choices.items():
        require_type(name, given, str, f"one of {', '.join(known)}")
        _known(str(given), known)


def as_mask(
    heads: Num[np.ndarray, "layer *batch heads"] | HeadSet | Sequence[Head], shape: tuple[int, int] | None
) -> Num[np.ndarray, "layer batch heads"]:
    """Heads as a mask with a batch axis. Raises InputError for heads that the model lacks, and for what names no heads."""
    if isinstance(heads, np.ndarray | jax.Array):
        mask = np.asarray(heads)
        return mask[:, None] if mask.ndim == 2 else mask
    if shape is None:
        raise InputError("heads are no mask [layer, heads]: give `shape`, the model's (layers, heads per layer), too")
    found = heads if isinstance(heads, HeadSet) else HeadSet(as_heads(heads))
    return found.to_mask(*shape)[:, None]


def _strengths(given: object) -> Float32[np.ndarray, " #batch"]:
    with reading("the strength", "a number"):
        amount = np.atleast_1d(np.asarray(given, np.float32))
    if not (np.isfinite(amount).all() and (amount >= 0).all()):
        raise InputError(f"the strength must be a finite number of at least 0, got {given}")
    return amount


def _check_targets(regions: Bool[np.ndarray, "#batch region key"], targets: Int[np.ndarray, "#batch step"]) -> None:
    count = regions.shape[1]
    if not ((targets >= -1) & (targets < count)).all():
        raise InputError(f"a target is none of the {count} regions: give 0 to {count - 1}, or -1 for no steering")
    targeted = (targets[:, :, None] == np.arange(count)).any(axis=1)
    if (targeted & ~regions.any(axis=2)).any():
        raise InputError("a target region covers no image token: give a region that does")


def first_query(query_positions: str, length: int, words: int) -> int:
    """The first query of a prompt of `length` tokens, the last `words` after its picture, that carries the bias."""
    return {"all": 0, "prompt": 0, "text": length - words}.get(query_positions, length - 1)


def _query_mask(prompt: Prompt, query_positions: Sequence[str]) -> Float32[np.ndarray, "#batch row"]:
    """1 at the prompt's queries that carry the bias, and in the last column at those after the prompt."""
    cells = _cells(prompt)
    after = (np.cumsum(cells >= 0, axis=1) > 0) & (cells < 0)
    last = np.arange(cells.shape[1]) == cells.shape[1] - 1
    inside = {
        "all": np.ones_like(after),
        "text": after,
        "answer": np.broadcast_to(last, cells.shape),
        "decoded": np.zeros_like(after),
        "prompt": np.ones_like(after),
    }
    chosen = [np.pad(inside[one], ((0, 0), (0, 1)), constant_values=one != "prompt") for one in query_positions]
    return _each(chosen).astype(np.float32)


def _signs(
    prompt: Prompt, regions: Bool[np.ndarray, "#batch region key"], modes: Sequence[tuple[int, int, int, int]]
) -> Float32[np.ndarray, "#batch region key+1"]:
    """Signs per region and key, and after the last key that of decoded tokens; 0 all along for an empty region."""
    is_image = _cells(prompt)[:, None, :] >= 0
    target, image, text, decoded = np.array(modes, np.float32).T[:, :, None, None]
    rest = np.where(is_image, image, text) * np.asarray(prompt.valid)[:, None, :]
    signs = np.where(regions, target, rest)
    with_decoded = np.concatenate([signs, np.broadcast_to(decoded, (*signs.shape[:2], 1))], axis=2)
    return (with_decoded * regions.any(axis=2, keepdims=True)).astype(np.float32)


def _known(given: str | Sequence[str], known: Sequence[str]) -> list[str]:
    values = [given] if isinstance(given, str) else list(given)
    for value in values:
        if value not in known:
            raise InputError(f"there is no {value} steering: choose one of {', '.join(known)}")
    return values


def _cells(prompt: Prompt) -> Int[np.ndarray, "batch seq"]:
    if prompt.image_cell is None:
        raise InputError("the prompt shows no image: steering needs one to look at")
    return np.asarray(prompt.image_cell)


def _each(chosen: Sequence[np.ndarray]) -> np.ndarray:
    """Row i of array i; all rows of a single array."""
    return chosen[0] if len(chosen) == 1 else np.stack([array[row] for row, array in enumerate(chosen)])
