"""How much each head looks at the panel that the prompt asks about (arXiv 2606.14703, section 2).

The image comes before the words, so a strip is encoded once, the tokens that its questions share are read once, and
only the questions' own tokens are read per question.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Int

from qwen3vl_jax.checks import require_count, require_finite, require_shape
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.layer_modes import LayerMode, LayerModes
from qwen3vl_jax.inputs import Array, Images, Prompt
from qwen3vl_jax.model import Qwen3VL

Mass = Float[np.ndarray, "strip panel layer heads panel"]
"""Attention of the last prompt token: strip, panel asked about, layer, head, panel attended to."""
Scores = Float[np.ndarray, "layer heads"]
Credit = Callable[[Mass], Float64[np.ndarray, "strip panel layer heads panel"]]
"""What one answer would add to a score, were the attended panel the one asked about: the score is its mean over the
panels that really were. Every head by itself, so that layers can be taken one at a time."""


def split(
    prompt: Prompt, strips: int, prefix_length: int | None = None, suffix_length: int | None = None
) -> tuple[Prompt, Prompt]:
    """Cuts prompts into the prefix that all questions about a strip share and the suffixes in which they differ.

    Args:
      prompt: all questions about the first strip, then all about the second, ...; the same number for each.
      strips: how many.
      prefix_length, suffix_length: what to pad to on the left, by default as little as possible; batches of the same
        lengths share a compilation.

    Returns:
      The prefixes [strip, prefix] with all pictures, and the suffixes [strip * question, suffix] of at least a token.

    Raises InputError if questions differ before the end of the pictures or something does not fit.
    """
    require_count("strips", strips)
    count = len(prompt.tokens) // strips
    if count * strips != len(prompt.tokens):
        raise InputError(
            f"{len(prompt.tokens)} prompts cannot be about {strips} strips: ask the same questions of each"
        )
    valid = np.asarray(prompt.valid)
    shared = np.concatenate([np.full(count, _shared_length(prompt, rows)) for rows in _rows(strips, count)])
    is_suffix = valid & (np.cumsum(valid, axis=1) > shared[:, None])
    if prompt.image_cell is not None and (is_suffix & (prompt.image_cell >= 0)).any():
        raise InputError("the questions must show the same pictures, all of them before the words in which they differ")
    first = jax.tree.map(lambda leaf: leaf[::count], prompt)
    prefix = _select(first, (valid & ~is_suffix)[::count], prefix_length)
    return prefix, _select(replace(prompt, image_cell=None), is_suffix, suffix_length)


@jax.jit
def panel_attention(
    model: Qwen3VL, images: Images, prefix: Prompt, questions: Prompt, groups: Bool[Array, "strip group prefix"]
) -> Float32[Array, "strip question layer heads group"]:
    """Attention, after the softmax, that the last token of each question pays to groups of keys.

    A strip with its panels in another order is just another strip.

    Args:
      images: the pictures of all strips.
      prefix, questions: of `split`.
      groups: which keys of each prefix are summed, as `region_keys` of its `image_cell` gives them.
    """
    strips, suffix = len(prefix.tokens), questions.tokens.shape[1]
    layers = model.config.text.num_hidden_layers
    # Of the last layer the questions need no more than the keys.
    some = LayerModes(jnp.full((layers,), LayerMode.FULL, jnp.int32).at[-1].set(LayerMode.KV_ONLY))
    cache = model(prefix, model.encode(images), some=some).cache
    keys = jnp.pad(groups, ((0, 0), (0, 0), (0, suffix))).astype(jnp.float32)
    taps = Taps(query_positions=jnp.full((1, 1), suffix - 1, jnp.int32), groups=keys)

    def ask(tokens: Array, positions: Array, valid: Array) -> Float32[Array, "layer strip heads group"]:
        return model.read(Prompt(tokens, positions, valid), cache, taps).mass[:, :, 0]

    leaves = (questions.tokens, questions.positions, questions.valid)
    by_question = [rearrange(leaf, "(strip question) ... -> question strip ...", strip=strips) for leaf in leaves]
    return rearrange(jax.vmap(ask)(*by_question), "question layer strip ... -> strip question layer ...")


def gaze_credit(mass: Mass) -> Float64[np.ndarray, "strip panel layer heads panel"]:
    """The mass itself."""
    return mass.astype(np.float64)


def selectivity_credit(mass: Mass) -> Float64[np.ndarray, "strip panel layer heads panel"]:
    """The share of the panels' mass, 0 if they have none."""
    exact = mass.astype(np.float64)
    total = exact.sum(axis=-1, keepdims=True)
    shares: np.ndarray = np.divide(exact, total, out=np.zeros_like(exact), where=total > 0)
    return shares


def lift_credit(mass: Mass) -> Float64[np.ndarray, "strip panel layer heads panel"]:
    """The mass beyond the mean mass on another panel."""
    exact = mass.astype(np.float64)
    if mass.shape[-1] < 2:
        raise InputError("lift compares a panel with the others: give strips of at least two panels")
    others = (exact.sum(axis=-1, keepdims=True) - exact) / (mass.shape[-1] - 1)
    lift: np.ndarray = exact - others
    return lift


def routing_credit(mass: Mass) -> Float64[np.ndarray, "strip panel layer heads panel"]:
    """1 for the panel with more mass than every other, 0 for the others; a tie has no winner."""
    best = mass == mass.max(axis=-1, keepdims=True)
    credit: np.ndarray = (best & (best.sum(axis=-1, keepdims=True) == 1)).astype(np.float64)
    return credit


CREDITS: dict[str, Credit] = {
    "gaze": gaze_credit,
    "selectivity": selectivity_credit,
    "lift": lift_credit,
    "routing": routing_credit,
}
"""By the name of the score that it makes; that of a `HeadSet`, too."""


def per_strip(mass: Mass, credit: Credit) -> Float64[np.ndarray, "strip layer heads"]:
    """The score of each strip by itself; the score of all is the mean of these."""
    _check_mass(mass)
    layers = [_on_asked(credit(mass[:, :, [layer]])).mean(axis=1) for layer in range(mass.shape[2])]
    return np.concatenate(layers, axis=1)


def gaze_score(mass: Mass) -> Scores:
    """The paper's score: mass on the panel asked about, averaged over panels and strips.

    A head that ignores the question and spreads a mass of m over n panels has m/n.
    """
    return _score(mass, gaze_credit)


def selectivity(mass: Mass) -> Scores:
    """The share of the panels' mass that is on the panel asked about; chance is 1/n, a head that sees none has 0."""
    return _score(mass, selectivity_credit)


def lift(mass: Mass) -> Scores:
    """Mass on the panel asked about beyond the mean mass on another panel; 0 for heads that ignore the question."""
    return _score(mass, lift_credit)


def routing_accuracy(mass: Mass) -> Scores:
    """How often the panel asked about gets more mass than every other panel; a tie is a miss."""
    return _score(mass, routing_credit)


def rank(scores: Scores) -> list[tuple[int, int, float]]:
    """(layer, head, score) of all heads, best first; equal scores by layer, then head."""
    require_shape("scores", scores, dict(layer=None, heads=None))
    require_finite("scores", scores)
    rows = [(layer, head, float(score)) for (layer, head), score in np.ndenumerate(scores)]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def by_content(mass: Mass, orders: Int[np.ndarray, "strip panel"]) -> Mass:
    """Undoes the shuffling of panels: attended panels by what they show instead of where they stand.

    Args:
      mass: with attended panels by place, from left to right.
      orders: for each place of each strip the panel that stands there, counted from 0 as in the original strip.
    """
    _check_mass(mass)
    require_shape("orders", orders, dict(strip=len(mass), panel=mass.shape[-1]))
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
    place = _on_asked(mass)[moved].mean(axis=0, dtype=np.float64)
    return place, content[moved].mean(axis=0, dtype=np.float64)


def _check_mass(mass: Mass) -> None:
    panels = np.shape(mass)[-1] if np.ndim(mass) else 0
    require_shape("mass", mass, dict(strip=None, question=panels, layer=None, heads=None, panel=panels))
    if not mass.size:
        raise InputError("mass is empty: give at least one strip")
    require_finite("mass", mass)


def _score(mass: Mass, credit: Credit) -> Scores:
    score: Scores = per_strip(mass, credit).mean(axis=0)
    return score


def _on_asked(mass: Mass) -> Float[np.ndarray, "strip panel layer heads"]:
    on_asked: np.ndarray = np.einsum("sklhk->sklh", mass)
    return on_asked


def _rows(strips: int, count: int) -> list[slice]:
    return [slice(strip * count, (strip + 1) * count) for strip in range(strips)]


def _shared_length(prompt: Prompt, some: slice) -> int:
    """How many tokens some rows share, leaving at least one to each."""
    cells = np.full_like(prompt.tokens, -1) if prompt.image_cell is None else prompt.image_cell
    seen = np.dstack([prompt.tokens, cells])[some]
    rows = [row[valid] for row, valid in zip(seen, prompt.valid[some], strict=True)]
    most = min(map(len, rows)) - 1
    same = np.all([(row[:most] == rows[0][:most]).all(axis=1) for row in rows], axis=0)
    return int(np.argmin(np.append(same, False)))


def _select(prompt: Prompt, keep: Bool[np.ndarray, "batch seq"], length: int | None) -> Prompt:
    """Keeps some tokens of each row, padded on the left to `length`, by default that of the longest row."""
    longest = int(keep.sum(axis=1).max())
    room = longest if length is None else length
    if longest > room:
        raise InputError(f"{longest} tokens do not fit in a length of {room}: give a larger length")

    def select(leaf: Array, fill: int) -> np.ndarray:
        rows = [np.asarray(row)[kept] for row, kept in zip(leaf, keep, strict=True)]
        left = [[(room - len(row), 0), *[(0, 0)] * (row.ndim - 1)] for row in rows]
        return np.stack([np.pad(row, pads, constant_values=fill) for row, pads in zip(rows, left, strict=True)])

    cells = None if prompt.image_cell is None else select(prompt.image_cell, -1)
    return Prompt(select(prompt.tokens, 0), select(prompt.positions, 0), select(keep, 0), cells)
