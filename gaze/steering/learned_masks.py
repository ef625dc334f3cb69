"""How hard to steer which head, learned by gradient: the strengths that make the model expect what the target shows.

Nothing here knows gaze scores. Where the heads that are learned are the gaze heads, two ways lead to the same heads; where
they are not, the effect needs no gaze heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int32, Num

from gaze.heads import Head, HeadSet
from gaze.pictures.regions import region_keys
from gaze.pictures.strips import Picture
from gaze.steering.masks import Steering, as_mask, steering
from qwen3vl_jax.checks import require_count, require_finite, require_shape
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.vision import Vision

START = 0.1
"""Strength of every head before the first step."""
ADAM = optax.scale_by_adam()

Strengths = Float[Array, "layer heads"]


@dataclass(frozen=True)
class LearnedMask:
    """What was learned.

    Attributes:
      strengths: of every head; 0 for those that are left alone. Steer with them as `heads` at strength 1.
      nats: per token of the captions, step by step, without the price.
    """

    strengths: Float32[np.ndarray, "layer heads"]
    nats: Float32[np.ndarray, " step"]

    @property
    def heads(self) -> HeadSet:
        """The heads that are steered, the strongest first. Raises InputError if there is none: the price was too high."""
        if not self.strengths.any():
            raise InputError("the learned mask steers no head: give a lower price")
        order = np.argsort(-self.strengths, axis=None, kind="stable")[: np.count_nonzero(self.strengths)]
        places = [divmod(int(place), self.strengths.shape[1]) for place in order]
        return HeadSet(places, [float(self.strengths[head]) for head in places], "learned strength")


def learn_mask(
    model: Qwen3VL,
    processor: Processor,
    pictures: Sequence[Picture],
    question: str,
    *,
    price: float = 0.01,
    steps: int = 200,
    batch: int = 16,
    rate: float = 0.1,
    among: Num[np.ndarray, "layer heads"] | HeadSet | Sequence[Head] | None = None,
    mode: str = "boost_suppress",
    query_positions: str = "all",
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> LearnedMask:
    """Learns how hard each head is to be steered, so that the answer to one question describes whatever is looked at.

    Minimises the nats per token of the target's caption, plus `price` times the sum of all strengths, over every region
    of every picture as the target. Strengths stay at least 0, so that the price leaves heads out altogether.

    Args:
      pictures: with a caption for every region; keep those apart on which the mask is to be judged.
      question: the same for all; one that names no region leaves the mask to say which is meant.
      price: per unit of strength; more of it leaves fewer heads.
      steps, batch, rate: of Adam; a step reads `batch` pairs of picture and target.
      among: the heads that may be steered (1 in a mask), all by default.
      mode, query_positions: see `gaze.steering.masks.steering`.
      seed: draws the pairs.
      progress: called with 1 after each step.

    Raises:
      InputError: for pictures without captions, numbers out of range, and strengths that became no numbers.
    """
    for name, count in (("steps", steps), ("batch", batch)):
        require_count(name, count)
    for name, number in (("price", price), ("rate", rate)):
        if not (np.isfinite(number) and number >= 0):
            raise InputError(f"{name} is {number}, but should be a finite number of at least 0")
    text = model.config.text
    shape = text.num_hidden_layers, text.num_attention_heads
    allowed = np.ones(shape, np.float32) if among is None else as_mask(among, shape)[:, 0].astype(np.float32)
    require_shape("among", allowed, dict(layer=shape[0], heads=shape[1]))
    prompt, vision, plan, answer = _examples(model, processor, pictures, question, mode, query_positions)
    strengths = jnp.asarray(START * allowed)
    state, rng, nats = ADAM.init(strengths), np.random.default_rng(seed), []
    for _ in range(steps):
        rows = jnp.asarray(rng.integers(len(answer), size=batch), jnp.int32)
        strengths, state, found = _step(
            model, strengths, state, (prompt, plan, answer), vision, rows, jnp.float32(price), jnp.float32(rate)
        )
        strengths = strengths * allowed
        nats.append(found)
        progress(1)
    learned = LearnedMask(np.asarray(strengths), np.asarray(jnp.stack(nats)))
    require_finite("the learned strengths", learned.strengths)
    return learned


def _examples(
    model: Qwen3VL, processor: Processor, pictures: Sequence[Picture], question: str, mode: str, query_positions: str
) -> tuple[Prompt, Vision, Steering, Bool[np.ndarray, "pair key"]]:
    """The question with the caption of every region as its answer, one row each; True where a token predicts that answer."""
    if not pictures:
        raise InputError("there is no picture to learn from: give at least one")
    for picture in pictures:
        if len(picture.captions) != len(picture) or not all(caption.strip() for caption in picture.captions):
            raise InputError(f"{picture.name} lacks captions: a mask is learned from one for each region")
    pairs = [(number, region) for number, picture in enumerate(pictures) for region in range(len(picture))]
    ends = [f"{pictures[number].captions[region].strip()}<|im_end|>" for number, region in pairs]
    texts = [processor.chat(question) + end for end in ends]
    asked = processor(texts, [[number] for number, _ in pairs], pictures=[picture.image for picture in pictures])
    assert asked.images is not None
    cells = np.asarray(asked.prompt.image_cell)
    merge = processor.settings.merge_size
    stride = asked.images.patches.shape[1] // merge**2
    regions = [
        picture.cells((int(grid[0]), int(grid[1])), merge) for picture, grid in zip(pictures, asked.grids, strict=True)
    ]
    keys = [region_keys(cells[row], regions[number], number * stride) for row, (number, _) in enumerate(pairs)]
    most = max(map(len, keys))
    padded = np.stack([np.pad(some, ((0, most - len(some)), (0, 0))) for some in keys])
    targets = np.array([[region] for _, region in pairs], np.int32)
    mask = np.ones((model.config.text.num_hidden_layers, 1, model.config.text.num_attention_heads), np.float32)
    plan = steering(mask, asked.prompt, padded, targets, 1.0, mode, query_positions=query_positions)
    lengths = np.array([len(processor.tokenizer(end, add_special_tokens=False)["input_ids"]) for end in ends])
    width = cells.shape[1]
    predicts = (np.arange(width) >= width - 1 - lengths[:, None]) & (np.arange(width) < width - 1)
    return asked.prompt, _encode(model, asked.images), plan, predicts


@jax.jit
def _step(
    model: Qwen3VL,
    strengths: Strengths,
    state: optax.ScaleByAdamState,
    examples: tuple[Prompt, Steering, Bool[Array, "pair key"]],
    vision: Vision,
    rows: Int32[Array, " row"],
    price: Float[Array, ""],
    rate: Float[Array, ""],
) -> tuple[Strengths, optax.ScaleByAdamState, Float[Array, ""]]:
    """One step of Adam on some rows of the examples; no strength goes below 0."""
    prompt, plan, answer = jax.tree.map(lambda leaf: leaf[rows] if len(leaf) > 1 else leaf, examples)

    def objective(strengths: Strengths) -> tuple[Float[Array, ""], Float[Array, ""]]:
        nats = caption_nats(model, strengths, prompt, vision, plan, answer)
        return nats + price * jnp.sum(strengths), nats

    gradient, nats = jax.grad(objective, has_aux=True)(strengths)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers and raises floats to them
        update, state = ADAM.update(gradient, state)
    return jnp.maximum(strengths - rate * update, 0), state, nats


def caption_nats(
    model: Qwen3VL,
    strengths: Strengths,
    prompt: Prompt,
    vision: Vision,
    plan: Steering,
    answer: Bool[Array, "row key"],
) -> Float[Array, ""]:
    """Mean nats of the tokens that follow those in `answer`, the plan's signs taken times `strengths`; differentiable."""
    edits = plan.at(0, prompt.tokens.shape[1])
    assert edits.steer is not None
    edits = replace(edits, steer=replace(edits.steer, heads=strengths[:, None, :]))
    output = model(prompt, vision, edits=edits)
    following = jnp.roll(jnp.asarray(prompt.tokens), -1, axis=1)
    nats = optax.softmax_cross_entropy_with_integer_labels(model.logits(output.hidden).astype(jnp.float32), following)
    return jnp.sum(nats, where=answer) / jnp.sum(answer).astype(jnp.float32)


@jax.jit
def _encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)
