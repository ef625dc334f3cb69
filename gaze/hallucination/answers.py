"""Greedy answers of several arms to questions about pictures, and the margin of yes over no before the first token.

An arm is a way of asking: with the picture or without, and with whatever steers the model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32
from PIL import Image

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import Plan, begin, go_on, vocabulary
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of


@dataclass(frozen=True)
class Arm:
    """A way of asking.

    Attributes:
      name: unique among the arms.
      image: whether the picture is shown; without it the question stands alone.
      plan: makes what steers the answers to some prompts; None leaves the model alone.
      settings: what the plan depends on, for whoever keeps answers.
    """

    name: str
    image: bool = True
    plan: Callable[[Prompt], Plan] | None = None
    settings: tuple[float | str, ...] = ()


ARMS = (Arm("plain"), Arm("no image", image=False))


class YesNo(NamedTuple):
    """The tokens with which answers of either kind begin; `whole` if each is a whole word."""

    yes: tuple[int, ...]
    no: tuple[int, ...]
    whole: bool


class Room(NamedTuple):
    """What a batch is padded to: pictures and their patches, prompts and their tokens."""

    pictures: int
    patches: int
    rows: int
    length: int


class Answer(NamedTuple):
    """What was answered; `ended` unless it was cut off at its greatest length."""

    tokens: list[int]
    ended: bool
    margin: float


def yes_no(processor: Processor) -> YesNo:
    """The tokens of yes and no: of each in small and capital letters, with and without a blank before it.

    Those that are one token are taken; where one of the two has none such, the first token of each, unless both have it.
    Raises InputError if nothing tells the two apart.
    """
    found = []
    for word in ("yes", "no"):
        forms = [before + form for before in ("", " ") for form in (word, word.capitalize(), word.upper())]
        found.append([processor.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms])
    whole = [{tokens[0] for tokens in some if len(tokens) == 1} for some in found]
    first = [{tokens[0] for tokens in some} for some in found]
    yes, no = whole if all(whole) else (first[0] - first[1], first[1] - first[0])
    if not yes or not no:
        raise InputError("the model's tokenizer begins yes and no with the same tokens: no margin can be read of it")
    return YesNo(tuple(sorted(yes)), tuple(sorted(no)), all(whole))


def needed(processor: Processor, texts: Iterable[str], arm: Arm, patches: int) -> int:
    """How many tokens the longest of some questions has with a picture of so many patches, or without one."""
    longest = max(len(processor.tokenizer(_chat(processor, text, arm))["input_ids"]) for text in texts)
    return longest - 1 + patches // processor.settings.merge_size**2 if arm.image else longest


def answer(
    model: Qwen3VL,
    processor: Processor,
    arm: Arm,
    pictures: Sequence[Image.Image],
    questions: Sequence[tuple[int, str]],
    tokens: YesNo,
    room: Room,
    max_new: int,
) -> list[Answer]:
    """Answers questions, each about the picture whose number it has; an arm without pictures looks at none."""
    fill = [questions[-1]] * (room.rows - len(questions))
    asked = [*questions, *fill]
    texts = [_chat(processor, text, arm) for _, text in asked]
    images: Images | None = None
    if arm.image:
        shown = [*pictures, *[pictures[-1]] * (room.pictures - len(pictures))]
        batch = processor(texts, [[number] for number, _ in asked], None, room.length, room.patches, shown)
        images = batch.images
    else:
        batch = processor(texts, length=room.length)
    plan = None if arm.plan is None else arm.plan(batch.prompt)
    images, prompt, plan = across((images, batch.prompt, plan), mesh_of(model))
    stop = Sampling.make(stop=processor.stop_tokens)
    yes, no = (np.array(ids, np.int32) for ids in (tokens.yes, tokens.no))
    said, lengths, margins = fetch(_answered(model, images, prompt, plan, stop, yes, no, max_new=max_new))
    found = zip(said, lengths.tolist(), margins.tolist(), strict=True)
    answers = [Answer(row[:length].tolist(), length < max_new, margin) for row, length, margin in found]
    return answers[: len(questions)]


def _chat(processor: Processor, text: str, arm: Arm) -> str:
    return processor.chat(text, images=int(arm.image))


@partial(jax.jit, static_argnames="max_new")
def _answered(
    model: Qwen3VL,
    images: Images | None,
    prompt: Prompt,
    plan: Plan | None,
    sampling: Sampling,
    yes: Int32[Array, " yes"],
    no: Int32[Array, " no"],
    *,
    max_new: int,
) -> tuple[Int32[Array, "row new"], Int32[Array, " row"], Float32[Array, " row"]]:
    vision = None if images is None else model.encode(images)
    batch, length = prompt.tokens.shape
    edits = None if plan is None else plan.at(jnp.zeros((batch,), jnp.int32), length + max_new)
    output = model(prompt, vision, edits=None if edits is None else edits.upto(length))
    keys = jax.random.split(jax.random.key(0), batch)
    limit = jnp.full((batch,), max_new)
    state = begin(model, output, vocabulary(model, prompt), sampling, keys, limit, max_new=max_new)

    def gap(hidden: Array) -> Array:
        # Row by row, as the scores of a large vocabulary for all rows at once would fill the memory.
        scores = model.logits(hidden).astype(jnp.float32)
        difference: Array = jax.nn.logsumexp(scores[yes]) - jax.nn.logsumexp(scores[no])
        return difference

    margin = lax.map(gap, output.hidden[:, -1])
    generated = go_on(model, state, plan, sampling)
    return generated.tokens, generated.length, margin
