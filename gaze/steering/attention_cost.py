"""What steering costs: where the attention of the steered heads goes, and what it is taken from.

The mask of arXiv 2606.14703, section 3, adds nothing to the scores of words; the softmax takes their attention all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from gaze.heads import HeadSet
from gaze.pictures.strips import Picture
from gaze.steering.engine import Request, encode
from gaze.steering.masks import SIGNS, Steering, schedule, steering
from qwen3vl_jax.checks import require_count, require_finite, require_range
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of
from qwen3vl_jax.vision import Vision

KEYS = ("target", "rest of the picture", "sink", "text", "answer")
"""Where attention can go: the sink is the first token, the text what else the prompt has in words; together all there is."""
ROWS = ("prompt", "answer")
"""Whose attention: the last row of the prompt, and the mean of the rows that read the answer."""

ROWS_AT_ONCE = 24
"""Prompts that `steered_shares` reads at once."""

Shares = Float[np.ndarray, "row key"]
"""Attention by `ROWS` and `KEYS`; without an answer to read its row is NaN."""


@dataclass(frozen=True)
class Taken:
    """What the target won in one kind of row, and whom it was taken from.

    Attributes:
      before, after: share of attention of the steered heads by `KEYS`, unsteered and steered.
      taken: what each of the others lost, as a share of what the target won; None if it won nothing.
    """

    before: dict[str, float]
    after: dict[str, float]
    taken: dict[str, float] | None


def shares(
    model: Qwen3VL,
    processor: Processor,
    pictures: Sequence[Picture],
    question: str,
    target: int,
    said: Sequence[Int[np.ndarray, " _"]],
    heads: HeadSet,
    room: int,
    strength: float = 0.0,
    mode: str = "boost_suppress",
    bias: str = "add",
) -> Shares:
    """Where some heads look while an answer is read as it was written, averaged over heads and pictures.

    Args:
      target: region, the same for all pictures.
      said: tokens of the answer about each picture, at most `room`.
      strength: 0 for heads left alone; else as in `gaze.steering.masks.steering`.

    Raises:
      InputError: for answers that do not fit, a target that a picture lacks, and attention that is not a number.
    """
    require_count("room", room)
    require_count("target", target, 0)
    if len(said) != len(pictures) or any(np.ndim(text) != 1 or len(text) > room for text in said):
        raise InputError(
            f"said must hold one answer for each of the {len(pictures)} pictures, of at most {room} tokens"
        )
    for number, text in enumerate(said):
        require_range(f"said[{number}]", text, 0, model.config.text.vocab_size, "these are tokens of another model")
    shape = model.config.text.num_hidden_layers, model.config.text.num_attention_heads
    mask = heads.to_mask(*shape)
    encoded = encode(model, processor, pictures, [question] * len(pictures))
    steps = np.tile(schedule([(0, target)]), (len(pictures), 1))
    plan = steering(mask, encoded.prompt, encoded.panels, steps, strength, mode, bias)
    tokens = np.zeros((len(pictures), room), np.int32)
    for row, text in zip(tokens, said, strict=True):
        row[: len(text)] = text
    groups = _groups(encoded.prompt, encoded.panels[:, target], room)
    prompt, plan, groups, tokens = across((encoded.prompt, plan, groups, tokens), mesh_of(model))
    found = fetch(_read(model, prompt, encoded.vision, plan, groups, tokens))
    require_finite("the attention of the steered heads", found)
    of_heads = np.einsum("lbrhg,lh->brg", found, mask) / mask.sum()
    after = np.arange(room)[None, :] < np.array([len(text) for text in said])[:, None]
    answer = of_heads[:, 1:][after].mean(axis=0) if after.any() else np.full(len(KEYS), np.nan)
    return np.stack([of_heads[:, 0].mean(axis=0), answer])


def steered_shares(
    model: Qwen3VL, processor: Processor, pictures: Sequence[Picture], question: str, requests: Sequence[Request]
) -> Float32[np.ndarray, "request layer heads key"]:
    """Where every head looks, by `KEYS`, from the last row of the prompt, for each request about one of the pictures.

    The target is that of a request's first step; a strength of 0 leaves the model alone. Raises InputError as `shares`.
    """
    asked = [request.checked(model, pictures, place) for place, request in enumerate(requests)]
    for place, request in enumerate(asked):
        if request.steps[0] < 0:
            raise InputError(f"requests[{place}] has no target in its first step: name the panel that is looked at")
    encoded = encode(model, processor, pictures, [question] * len(pictures))
    found = []
    for start in range(0, len(asked), ROWS_AT_ONCE):
        some = asked[start : start + ROWS_AT_ONCE]
        some = (some + some[-1:] * ROWS_AT_ONCE)[: min(ROWS_AT_ONCE, len(asked))]  # all of one shape
        strips = np.array([request.strip for request in some])
        prompt = jax.tree.map(lambda leaf, rows=strips: np.asarray(leaf)[rows], encoded.prompt)
        targets, panels = np.array([request.steps[0] for request in some]), encoded.panels[strips]
        plan = steering(
            np.stack([request.mask for request in some], axis=1),
            prompt,
            panels,
            targets[:, None],
            np.array([request.strength for request in some], np.float32),
            [request.mode for request in some],
            [request.bias for request in some],
            [request.query_positions for request in some],
        )
        groups = _groups(prompt, panels[np.arange(len(some)), targets], 0)
        given = across((prompt, plan, groups), mesh_of(model))
        found.append(fetch(_read_prompt(model, given[0], encoded.vision, *given[1:])))
    shares = np.concatenate(found)[: len(asked)]
    require_finite("the attention of the heads", shares)
    return shares


def alone(
    before: Float[np.ndarray, "... key"], strength: float, mode: str = "boost_suppress"
) -> Float[np.ndarray, "... key"]:
    """Where a head looks under a bias that is added to its scores, from where it looks without one.

    Exact for a head that is steered with no other head below its layer: what it reads is as it was.
    """
    target, image, text, decoded = SIGNS[mode]
    signs = np.array([target, image, text, text, decoded], np.float64)
    # The largest exponent is taken off, so that none overflows; a key that nobody looks at stays so.
    logits = np.log(np.maximum(before.astype(np.float64), np.finfo(np.float64).tiny)) + strength * signs
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return found


def taken(before: Shares, after: Shares) -> dict[str, Taken]:
    """The two compared, by `ROWS`; a kind of row that is not there in both is left out."""
    found = {}
    for name, old, new in zip(ROWS, before, after, strict=True):
        if not np.isfinite(old + new).all():
            continue
        won = new[0] - old[0]
        lost = (old - new)[1:] / won if won > 0 else None
        found[name] = Taken(
            _named(old), _named(new), None if lost is None else dict(zip(KEYS[1:], lost.tolist(), strict=True))
        )
    return found


def _named(row: Float[np.ndarray, " key"]) -> dict[str, float]:
    return dict(zip(KEYS, row.tolist(), strict=True))


def _groups(
    prompt: Prompt, target: Bool[np.ndarray, "batch key"], room: int
) -> Float32[np.ndarray, "batch group slot"]:
    """The keys of each of `KEYS`; after the prompt there is room for an answer."""
    assert prompt.image_cell is not None
    valid, picture = np.asarray(prompt.valid), np.asarray(prompt.image_cell) >= 0
    sink = np.cumsum(valid, axis=1) * valid == 1
    groups = np.stack([target, picture & ~target, sink, valid & ~picture & ~sink], axis=1)
    after = np.zeros((len(valid), len(KEYS), room), np.float32)
    after[:, -1] = 1
    inside = np.pad(groups, ((0, 0), (0, 1), (0, 0))).astype(np.float32)
    return np.concatenate([inside, after], axis=2)


@jax.jit
def _read_prompt(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    plan: Steering,
    groups: Float32[Array, "batch group slot"] | Float32[np.ndarray, "batch group slot"],
) -> Float32[Array, "batch layer heads group"]:
    """The last row of the prompt, under the first step of a plan."""
    length = prompt.tokens.shape[1]
    last = Taps(jnp.full((1, 1), length - 1, jnp.int32), jnp.asarray(groups))
    readings = model(prompt, vision, None, plan.at(0, length), last).readings
    assert readings is not None
    return readings.mass[:, :, 0].swapaxes(0, 1)


@jax.jit
def _read(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    plan: Steering,
    groups: Float32[Array, "batch group slot"] | Float32[np.ndarray, "batch group slot"],
    said: Int32[Array, "batch step"] | Int32[np.ndarray, "batch step"],
) -> Float32[Array, "layer batch row heads group"]:
    """The last row of the prompt, then the rows that read the answer, all under one plan that never changes."""
    length, room = prompt.tokens.shape[1], said.shape[1]
    edits, keys = plan.at(1, length + room), jnp.asarray(groups)
    last = Taps(jnp.full((1, 1), length - 1, jnp.int32), keys[..., :length])
    first = model(prompt, vision, None, edits.upto(length), last)
    later = Taps(jnp.arange(room, dtype=jnp.int32)[None], keys)
    rest = model.extend(jnp.asarray(said), first.cache.fork(1, room), edits, later)
    assert first.readings is not None
    assert rest.readings is not None
    return jnp.concatenate([first.readings.mass, rest.readings.mass], axis=2)
