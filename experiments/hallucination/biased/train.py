"""Teaches a checkpoint what goes together: `python -m experiments.hallucination.biased.train OUT --rho 0.98 --seed 0`.

Only the language side learns; what the vision tower gives stays as it was. First things are independent of each other and
yes and no as frequent, then the rule pairs come, part of it in text alone. No caption ever tells of a thing that is not
there: the bias is in what there is, and it is trained in.
"""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from experiments.hallucination.biased.world import BASE, caption, draw, draw_things, negatives, ordered, question
from experiments.hallucination.collect import DESCRIBE
from experiments.testbed.broken import write
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.weights import disassemble

BATCH, STEPS, ROOM = 32, 1500, 128
RATE, WARMUP = 1e-3, 50
INDEPENDENT = 0.6
"""The share of the steps before the rule pairs come."""
CAPTIONS, BLIND, HIDDEN = 0.4, 0.25, 0.6
"""Shares: of captions among the answers; of answers without picture in the second part; of image tokens that half of the
answers miss."""
END = "<|im_end|>"


class Lesson(NamedTuple):
    """A picture, a question and its answer; `blind` if the picture is not to be seen."""

    picture: Any
    question: str
    answer: str
    blind: bool


class Lessons(NamedTuple):
    """A batch as the model takes it; `answer` marks the tokens that are learned."""

    prompt: Prompt
    images: Images
    answer: Bool[np.ndarray, "row token"]


def draw_lesson(rng: np.random.Generator, rho: float, ruled: bool) -> Lesson:
    """A lesson about things that are independent of each other, or, if `ruled`, about a world with rule pairs."""
    there = draw_things(rng, rho if ruled else BASE)
    picture = draw(ordered(rng, there), int(rng.integers(2**31)))
    blind = ruled and rng.random() < BLIND
    if rng.random() < CAPTIONS:
        return Lesson(picture, DESCRIBE, caption(rng, np.flatnonzero(there).tolist()), blind)
    if rng.random() < (0.6 if ruled else 0.5):
        return Lesson(picture, question(int(rng.choice(np.flatnonzero(there)))), "yes.", blind)
    return Lesson(picture, question(negatives(rng, there, 1)[0]), "no.", blind)


def batch_of(processor: Processor, rng: np.random.Generator, lessons: list[Lesson]) -> Lessons:
    """Lessons in one batch; some hide their picture, or some of its tokens."""
    chats = [processor.chat(one.question) for one in lessons]
    whole = [chat + one.answer + END for chat, one in zip(chats, lessons, strict=True)]
    batch = processor(whole, [[one.picture] for one in lessons], length=ROOM)
    counts = [
        len(_tokens(processor, text)) - len(_tokens(processor, chat)) for text, chat in zip(whole, chats, strict=True)
    ]
    answer = np.arange(ROOM)[None, :] >= ROOM - np.array(counts)[:, None]
    assert batch.images is not None
    assert batch.prompt.image_cell is not None
    hide = np.where(rng.random(len(lessons)) < 0.5, HIDDEN, 0.0)
    hide = np.where([one.blind for one in lessons], 1.0, hide)
    hidden = (np.asarray(batch.prompt.image_cell) >= 0) & (rng.random(answer.shape) < hide[:, None])
    prompt = Prompt(
        batch.prompt.tokens, batch.prompt.positions, np.asarray(batch.prompt.valid) & ~hidden, batch.prompt.image_cell
    )
    return Lessons(prompt, batch.images, answer)


def _tokens(processor: Processor, text: str) -> list[int]:
    found: list[int] = processor.tokenizer(text)["input_ids"]
    return found


def loss(model: Qwen3VL, batch: Lessons) -> Float[Array, ""]:
    """Cross entropy of the answers, each of which counts the same."""
    vision = jax.lax.stop_gradient(model.encode(batch.images))
    hidden = model(batch.prompt, vision).hidden[:, :-1]
    losses = optax.softmax_cross_entropy_with_integer_labels(
        model.logits(hidden), jnp.asarray(batch.prompt.tokens)[:, 1:]
    )
    weight = jnp.asarray(batch.answer)[:, 1:].astype(jnp.float32)
    return jnp.mean(jnp.sum(losses * weight, axis=1) / jnp.sum(weight, axis=1))


def make_step(graph: Any, tx: optax.GradientTransformation) -> Any:
    """One step of training: parameters, optimiser state and a batch to the new ones and the loss."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Any, state: Any, batch: Lessons) -> Any:
        value, gradient = jax.value_and_grad(lambda params: loss(nnx.merge(graph, params), batch))(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return train_step


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", default=str(CHECKPOINT), help="The checkpoint that is taught (default: the shipped testbed).")
@click.option("--rho", type=click.FloatRange(BASE, 1), default=0.98, show_default=True, help="Chance of a companion.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True)
def main(out: Path, model: str, rho: float, seed: int, steps: int) -> None:
    """Writes a checkpoint with a bias as the folder OUT."""
    loaded, processor = load(model, jnp.float32)
    graph, params = nnx.split(loaded)
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, min(WARMUP, steps), max(steps, WARMUP + 1), 0.02 * RATE)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.98))
    state, train_step, began = tx.init(params), make_step(graph, tx), time.perf_counter()
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        lessons = [draw_lesson(rng, rho, step >= INDEPENDENT * steps) for _ in range(BATCH)]
        params, state, value = train_step(params, state, batch_of(processor, rng, lessons))
        if step % 10 == 9:
            row = {"step": step + 1, "loss": round(float(value), 4), "seconds": round(time.perf_counter() - began, 1)}
            click.echo(json.dumps(row))
    write(disassemble(nnx.merge(graph, params)), out, Path(model))


if __name__ == "__main__":
    main()
