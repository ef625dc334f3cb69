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
from jaxtyping import Array, Bool, Float32, Int32
from PIL import Image

from gaze.hallucination.forced import added_mass
from gaze.steering.boosts import Boost
from gaze.steering.guided import Guided
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import Plan, ReadingPlan, choose_first, go_on, read_prompt, vocabulary
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
      plan: makes what steers the answers to some prompts about some pictures; None leaves the model alone.
      boosts: whether the plan adds to scores of attention.
      settings: what the plan depends on, for whoever keeps answers.
    """

    name: str
    image: bool = True
    plan: Callable[[Prompt, Images], Plan | ReadingPlan] | None = None
    settings: tuple[int | float | str, ...] = ()
    boosts: bool = False


PLAIN, BLIND = Arm("plain"), Arm("no image", image=False)


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


class Asked(NamedTuple):
    """Questions as the model takes them, and what steers the answers."""

    images: Images | None
    prompt: Prompt
    plan: Plan | ReadingPlan | None


class Answer(NamedTuple):
    """What was answered; `ended` unless it was cut off at its greatest length.

    Attributes:
      margin: of yes over no before the first token, a contrast included, its cutoff not.
      open: how many steps were steered, that of the stop token included; 0 for an arm that steers nothing.
      steps: how many there were.
      added: what these gave the picture, see `gaze.hallucination.forced.added_mass`: the sum over steered steps.
    """

    tokens: list[int]
    ended: bool
    margin: float
    open: int = 0
    steps: int = 0
    added: float = 0.0


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
    shown = [*pictures, *[pictures[-1]] * (room.pictures - len(pictures))] if arm.image else []
    asked = prepared(processor, arm, shown, [*questions, *fill], room)
    images, prompt, plan = across((asked.images, asked.prompt, asked.plan), mesh_of(model))
    stop = Sampling.make(stop=processor.stop_tokens)
    yes, no = (np.array(ids, np.int32) for ids in (tokens.yes, tokens.no))
    said, lengths, margins, opened, added = fetch(
        _answered(model, images, prompt, plan, stop, yes, no, max_new=max_new)
    )
    answers = []
    for row, length, margin, steered, mass in zip(said, lengths.tolist(), margins.tolist(), opened, added, strict=True):
        steps = min(length + 1, max_new)
        used = steered[:steps]
        count = int(used.sum())
        answers.append(
            Answer(row[:length].tolist(), length < max_new, margin, count, steps, float(mass[:steps][used].sum()))
        )
    return answers[: len(questions)]


def prepared(
    processor: Processor,
    arm: Arm,
    pictures: Sequence[Image.Image],
    questions: Sequence[tuple[int, str]],
    room: Room | None = None,
) -> Asked:
    """What the model is given to answer questions, padded to some room; without, as much as they need."""
    length, patches = (None, None) if room is None else (room.length, room.patches)
    texts = [_chat(processor, text, arm) for _, text in questions]
    if not arm.image:
        return Asked(None, processor(texts, length=length).prompt, None)
    shows = [[number] for number, _ in questions]
    batch = processor(texts, shows, length=length, patches=patches, pictures=pictures)
    assert batch.images is not None
    return Asked(batch.images, batch.prompt, None if arm.plan is None else arm.plan(batch.prompt, batch.images))


def _chat(processor: Processor, text: str, arm: Arm) -> str:
    return processor.chat(text, images=int(arm.image))


@partial(jax.jit, static_argnames="max_new")
def _answered(
    model: Qwen3VL,
    images: Images | None,
    prompt: Prompt,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    yes: Int32[Array, " yes"],
    no: Int32[Array, " no"],
    *,
    max_new: int,
) -> tuple[
    Int32[Array, "row new"],
    Int32[Array, " row"],
    Float32[Array, " row"],
    Bool[Array, "row new"],
    Float32[Array, "row new"],
]:
    vision = None if images is None else model.encode(images)
    batch = len(prompt.tokens)
    read = read_prompt(model, prompt, vision, plan, max_new)
    scores = read.logits.astype(jnp.float32)
    margin = jax.nn.logsumexp(scores[:, yes], axis=1) - jax.nn.logsumexp(scores[:, no], axis=1)
    keys, limit = jax.random.split(jax.random.key(0), batch), jnp.full((batch,), max_new)
    state = choose_first(read, vocabulary(model, prompt), sampling, keys, limit, max_new=max_new)
    generated = go_on(model, state, plan, sampling)
    opened, added = jnp.full((batch, max_new), plan is not None), jnp.zeros((batch, max_new), jnp.float32)
    if isinstance(plan, Guided):
        opened = generated.carry.open
    raised = plan.boost if isinstance(plan, Guided) else plan
    if isinstance(raised, Boost):
        added = added_mass(model, prompt, vision, raised, opened.astype(jnp.float32), generated.tokens)
    return generated.tokens, generated.length, margin, opened, added
