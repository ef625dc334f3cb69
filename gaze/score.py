"""How much each head looks at the panel that the prompt asks about (arXiv 2606.14703, section 2).

The image comes before the words, so a strip is encoded once, the tokens that its questions share are read once, and
only the questions' own tokens are read per question.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int

from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Array, Images, Prompt
from qwen3vl_jax.model import Qwen3VL

Mass = Float[np.ndarray, "strip panel layer heads panel"]
"""Attention of the last prompt token: strip, panel asked about, layer, head, panel attended to."""
Scores = Float[np.ndarray, "layer heads"]


def split(prompt: Prompt, prefix_length: int | None = None, suffix_length: int | None = None) -> tuple[Prompt, Prompt]:
    """Cuts prompts about one strip into the prefix they share and the suffixes in which they differ.

    Args:
      prompt: one row per question, all about the same pictures.
      prefix_length, suffix_length: what to pad to on the left; by default no more than the rows need. Strips that
        are to be scored in one call need the same lengths.

    Returns:
      The prefix [1, prefix] with all pictures, and the suffixes [question, suffix], of at least one token each.

    Raises InputError if the rows differ before the end of the pictures or something does not fit.
    """
    shared, start = _shared_length(prompt), np.argmax(prompt.valid, axis=1)
    is_suffix = np.arange(prompt.tokens.shape[1]) >= (start + shared)[:, None]
    if prompt.image_cell is not None and (is_suffix & (prompt.image_cell >= 0)).any():
        raise InputError("the questions must show the same pictures, all of them before the words in which they differ")
    prefix = jax.tree.map(lambda leaf: leaf[:1, : start[0] + shared], prompt)
    return _fit(prefix, prefix_length), _fit(replace(prompt, valid=is_suffix, image_cell=None), suffix_length)


@jax.jit
def panel_attention(
    model: Qwen3VL,
    images: Images,
    prefix: Prompt,
    questions: Prompt,
    groups: Bool[Array, "strip group prefix"],
) -> Float32[Array, "strip question layer heads group"]:
    """Attention, after the softmax, that the last token of each question pays to groups of keys.

    Every argument but the model has a leading strip axis. A strip with its panels in another order is another strip.

    Args:
      images: [strip, image, ...].
      prefix, questions: of `split`, stacked: [strip, 1, prefix] and [strip, question, suffix].
      groups: which keys of the prefix are summed, as `region_keys` of its `image_cell` gives them.
    """
    return jax.vmap(partial(_strip_attention, model))(images, prefix, questions, groups)


def _strip_attention(
    model: Qwen3VL, images: Images, prefix: Prompt, questions: Prompt, groups: Bool[Array, "group prefix"]
) -> Float32[Array, "question layer heads group"]:
    suffix = questions.tokens.shape[1]
    keys = jnp.pad(groups, ((0, 0), (0, suffix))).astype(jnp.float32)
    cache = model(prefix, model.encode(images), model.empty_cache(1, keys.shape[1])).cache
    taps = Taps(rows=jnp.full((1, 1), suffix - 1, jnp.int32), groups=keys[None])

    def ask(question: Prompt) -> Float32[Array, "layer heads group"]:
        readings = model(jax.tree.map(lambda leaf: leaf[None], question), None, cache, taps=taps).readings
        assert readings is not None
        return rearrange(readings.mass, "layer 1 1 heads group -> layer heads group")

    return jax.vmap(ask)(questions)


def gaze_score(mass: Mass) -> Scores:
    """The paper's score: mass on the panel asked about, averaged over panels and strips."""
    return _on_asked(mass).mean(axis=(0, 1))


def selectivity(mass: Mass) -> Scores:
    """The share of the panels' mass that is on the panel asked about; chance is 1/n, a head that sees none has 0."""
    total = mass.sum(axis=-1)
    return np.divide(_on_asked(mass), total, out=np.zeros_like(total), where=total > 0).mean(axis=(0, 1))


def lift(mass: Mass) -> Scores:
    """Mass on the panel asked about beyond the mean mass on another panel; 0 for heads that ignore the question."""
    asked, panels = _on_asked(mass), mass.shape[-1]
    return (asked - (mass.sum(axis=-1) - asked) / (panels - 1)).mean(axis=(0, 1))


def routing_accuracy(mass: Mass) -> Scores:
    """How often the panel asked about gets more mass than every other panel; a tie is a miss."""
    others = np.where(np.eye(mass.shape[-1], dtype=bool)[None, :, None, None, :], -1, mass).max(axis=-1)
    return (_on_asked(mass) > others).mean(axis=(0, 1))


def rank(scores: Scores) -> list[tuple[int, int, float]]:
    """(layer, head, score) of all heads, best first; equal scores by layer, then head."""
    rows = [(layer, head, float(score)) for (layer, head), score in np.ndenumerate(scores)]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def by_content(mass: Mass, orders: Int[np.ndarray, "strip panel"]) -> Mass:
    """Undoes the shuffling of panels: attended panels by what they show instead of where they stand.

    Args:
      mass: with attended panels by place, from left to right.
      orders: for each place of each strip the panel that stands there, counted from 0 as in the original strip.
    """
    if not np.array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(mass.shape[-1]), orders.shape)):
        raise InputError(f"each order must name each of the {mass.shape[-1]} panels once, from 0")
    return np.take_along_axis(mass, np.argsort(orders, axis=1)[:, None, None, None, :], axis=-1)


def position_and_content(mass: Mass, orders: Int[np.ndarray, "strip panel"]) -> tuple[Scores, Scores]:
    """Tells a head that looks where it is told from one that looks at what used to be there.

    Asked about place k of a shuffled strip, the first attends to place k, the second to the panel that stood at k in
    the original strip. Only questions about places whose panel has moved count, as the others tell nothing.

    Args and errors as in `by_content`; InputError too if no panel has moved.

    Returns:
      The mean mass of the first kind and of the second.
    """
    content = _on_asked(by_content(mass, orders))
    moved = orders != np.arange(orders.shape[1])
    if not moved.any():
        raise InputError("the strips are all in their original order: shuffle the panels of some")
    return _on_asked(mass)[moved].mean(axis=0), content[moved].mean(axis=0)


def _on_asked(mass: Mass) -> Float[np.ndarray, "strip panel layer heads"]:
    return np.einsum("sklhk->sklh", mass)


def _shared_length(prompt: Prompt) -> int:
    """How many tokens all rows share, leaving at least one to each."""
    cells = np.full_like(prompt.tokens, -1) if prompt.image_cell is None else prompt.image_cell
    rows = [row[valid] for row, valid in zip(np.dstack([prompt.tokens, cells]), prompt.valid, strict=True)]
    most = min(map(len, rows)) - 1
    same = np.all([(row[:most] == rows[0][:most]).all(axis=1) for row in rows], axis=0)
    return int(np.argmin(np.append(same, False)))


def _fit(prompt: Prompt, length: int | None) -> Prompt:
    """Pads rows on the left, or takes padding away, to `length` tokens or as few as the longest row needs."""
    longest, width = int(np.sum(prompt.valid, axis=1).max()), prompt.tokens.shape[1]
    room = longest if length is None else length
    if longest > room:
        raise InputError(f"{longest} tokens do not fit in a length of {room}: give a larger length")

    def fit(leaf: Array, fill: int) -> np.ndarray:
        valid = np.reshape(prompt.valid, (*prompt.valid.shape, *[1] * (leaf.ndim - 2)))
        wider = [(0, 0), (max(room - width, 0), 0), *[(0, 0)] * (leaf.ndim - 2)]
        padded = np.pad(np.where(valid, leaf, fill).astype(leaf.dtype), wider, constant_values=fill)
        return padded[:, padded.shape[1] - room :]

    cells = None if prompt.image_cell is None else fit(prompt.image_cell, -1)
    return Prompt(fit(prompt.tokens, 0), fit(prompt.positions, 0), fit(prompt.valid, False), cells)
