"""Directions in the residual stream: read at the last token of prompts, averaged, added back (arXiv 2606.14703, section 4).

Prompts are read up to their last token once; that token is then read many times over, each time with another push.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32, Int32
from scipy.spatial.distance import cdist

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.checks import require_count, require_finite, require_range, require_shape
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation import decoding
from qwen3vl_jax.generation.decoding import Generation
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Array as AnyArray
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Output, Qwen3VL

SteeringVector = Float32[np.ndarray, "layer embed"]


@struct.dataclass
class Push:
    """A plan that adds a vector to the residual stream of the token that is being read, after some layers.

    It is meant for passes over one token, of which step 0 reads the prompt's last one (see `begin`).

    Attributes:
      vectors: one per layer.
      layers: 1 after layers where the vector is added, 0 after the others.
      alpha: how much of the vector.
      prompt: whether the prompt's last token is pushed.
      decoded: whether the tokens generated since are pushed.
    """

    vectors: Float[AnyArray, " layer #batch embed"]
    layers: Float[AnyArray, " layer"]
    alpha: Float[AnyArray, ""]
    prompt: Bool[AnyArray, ""]
    decoded: Bool[AnyArray, ""]

    def at(self, step: ArrayLike, slots: int) -> Edits:
        """The edits of one pass over one token."""
        del slots
        on = jnp.where(jnp.atleast_1d(step) == 0, self.prompt, self.decoded)
        amount = jnp.asarray(self.layers)[:, None] * jnp.where(on, self.alpha, 0)[None, :]
        return Edits(residual=(amount[:, :, None] * self.vectors)[:, :, None, :])


@struct.dataclass
class Begun:
    """Prompts read but for their last token.

    Attributes:
      cache: has room for that token and for those of an answer.
      last: the token that is still to be read.
    """

    cache: Cache
    last: Int32[Array, " row"]


@struct.dataclass
class Reply:
    """What follows each prompt.

    Attributes:
      token: the likeliest next token.
      scores: logits of the candidate tokens.
    """

    token: Int32[AnyArray, "*band row"]
    scores: Float32[AnyArray, "*band row candidate"]


def push(
    vectors: Float[np.ndarray, "layer embed"],
    layers: Sequence[int],
    alpha: float = 1.0,
    prompt: bool = True,
    decoded: bool = True,
) -> Push:
    """A push after the given layers (from 0). Raises InputError for a layer that does not exist."""
    require_shape("vectors", vectors, dict(layer=None, embed=None))
    require_finite("vectors", vectors)
    require_finite("alpha", np.asarray(alpha, np.float32))
    if not all(isinstance(layer, int | np.integer) and 0 <= layer < len(vectors) for layer in layers):
        raise InputError(f"cannot push after layers {list(layers)}: there are layers 0 to {len(vectors) - 1}")
    return Push(
        vectors[:, None].astype(np.float32),
        np.isin(np.arange(len(vectors)), layers).astype(np.float32),
        np.array(alpha, np.float32),
        np.array(prompt),
        np.array(decoded),
    )


@jax.jit
def begin(model: Qwen3VL, images: Images, prefix: Prompt, questions: Prompt) -> Begun:
    """Reads prompts up to their last token; every picture is encoded, and every prefix read, once.

    Args:
      prefix, questions: of `gaze.discovery.scores.split`.
    """
    strips, (rows, suffix) = len(prefix.tokens), questions.tokens.shape
    cache = model(prefix, model.encode(images)).cache.fork(rows // strips, suffix)
    words = jax.tree.map(lambda leaf: leaf[:, :-1], questions)
    return Begun(model(words, None, cache).cache, jnp.asarray(questions.tokens[:, -1]))


def observe(
    model: Qwen3VL, begun: Begun, candidates: Int32[AnyArray, " candidate"]
) -> tuple[Float32[Array, "row layer embed"], Reply]:
    """The residual stream of the last prompt token after every layer, and the reply of the model left alone.

    Raises InputError for candidates that are no tokens of the model.
    """
    _check_candidates(model, candidates)
    stream, reply = _observe(model, begun, candidates)
    return stream, reply


@jax.jit
def _observe(
    model: Qwen3VL, begun: Begun, candidates: Int32[Array, " candidate"]
) -> tuple[Float32[Array, "row layer embed"], Reply]:
    slots = begun.cache.slots
    # Attention is not what is read here, but taps have at least one group of keys.
    taps = Taps(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, slots), jnp.float32), residual=True)
    output = model.extend(begun.last[:, None], begun.cache, taps=taps)
    assert output.readings is not None
    assert output.readings.residual is not None
    stream = output.readings.residual[:, :, 0].swapaxes(0, 1)
    return stream.astype(jnp.float32), _reply(model, output, candidates)


def sweep(
    model: Qwen3VL,
    begun: Begun,
    direction: Float[AnyArray, " layer #row embed"],
    bands: Float[AnyArray, "band layer"],
    alpha: Float[AnyArray, ""] | float,
    candidates: Int32[AnyArray, " candidate"],
) -> Reply:
    """The replies when a direction is added to the last prompt token after the layers of each band (1 in, 0 out).

    Returns:
      `Reply` with a band axis in front.

    Raises:
      InputError: names the argument whose shape does not fit, and for candidates that are no tokens of the model.
    """
    text = model.config.text
    axes = dict(layer=text.num_hidden_layers, row=len(begun.last), embed=text.hidden_size)
    require_shape("direction", direction, axes, ones="row")
    require_shape("bands", bands, dict(band=None, layer=text.num_hidden_layers))
    require_shape("alpha", alpha, {})
    _check_candidates(model, candidates)
    swept: Reply = _sweep(model, begun, direction, bands, alpha, candidates)
    return swept


@jax.jit
def _sweep(
    model: Qwen3VL,
    begun: Begun,
    direction: Float[Array, " layer #row embed"],
    bands: Float[Array, "band layer"],
    alpha: Float[Array, ""],
    candidates: Int32[Array, " candidate"],
) -> Reply:
    yes = jnp.ones((), bool)

    def reply(layers: Array) -> Reply:
        edits = Push(direction, layers, alpha, yes, yes).at(0, begun.cache.slots)
        return _reply(model, model.extend(begun.last[:, None], begun.cache, edits), candidates)

    replies: Reply = lax.map(reply, bands)
    return replies


@partial(jax.jit, static_argnames="max_new")
def narrate(model: Qwen3VL, begun: Begun, plan: Push, stop: Int32[Array, " stops"], *, max_new: int) -> Generation:
    """At most `max_new` tokens for every row, greedily, under a push."""
    rows = len(begun.last)
    output = model.extend(begun.last[:, None], begun.cache, plan.at(0, begun.cache.slots))
    seen, keys = jnp.zeros((rows, model.config.text.vocab_size), bool), jax.random.split(jax.random.key(0), rows)
    sampling = replace(Sampling.make(), stop=stop)
    state = decoding.begin(model, output, seen, sampling, keys, jnp.full((rows,), max_new), max_new=max_new)
    return decoding.go_on(model, state, plan, sampling)


def difference(
    plus: Float[np.ndarray, "pair layer embed"], minus: Float[np.ndarray, "pair layer embed"]
) -> SteeringVector:
    """Difference of means: what to add to get from one kind of prompt to the other. Raises InputError without pairs."""
    if not len(plus):
        raise InputError("a direction needs at least one pair of prompts")
    axes = dict(pair=len(plus), layer=None, embed=None)
    require_shape("plus", plus, axes)
    require_shape("minus", minus, dict(zip(axes, np.shape(plus), strict=True)))
    require_finite("plus and minus", (plus, minus))
    mean: np.ndarray = (plus - minus).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def random_like(
    direction: Float[np.ndarray, "*where embed"], draws: int, seed: int
) -> Float32[np.ndarray, "draw *where embed"]:
    """Random directions, uniform on the sphere, everywhere as long as the given ones."""
    require_count("draws", draws)
    drawn = np.random.default_rng(seed).normal(size=(draws, *direction.shape))
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    vectors: np.ndarray = (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True) * length).astype(np.float32)
    return vectors


def letter_tokens(tokenizer: Any, letters: Sequence[str]) -> Int32[np.ndarray, " letter"]:
    """The token of each letter as an answer begins with it. Raises InputError if one is not a token of its own."""
    spelled = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in letters]
    broken = [letter for letter, tokens in zip(letters, spelled, strict=True) if len(tokens) != 1]
    if broken or len({tokens[0] for tokens in spelled}) != len(letters):
        raise InputError(
            f"the tokenizer has no single token for {', '.join(broken) or 'each of the letters'}: choose other letters"
        )
    return np.array([tokens[0] for tokens in spelled], np.int32)


def separation(
    first: Float[np.ndarray, "row layer embed"], second: Float[np.ndarray, "row layer embed"]
) -> tuple[Float[np.ndarray, "layer point 2"], Float[np.ndarray, " layer"]]:
    """How far two kinds of prompts lie apart after each layer: principal components and the silhouette among them.

    Returns:
      The two leading components of every prompt, those of the first kind before those of the second; and the mean
      silhouette of the two kinds in these, from -1 to 1.
    """
    require_shape("first", first, dict(row=None, layer=None, embed=None))
    require_shape("second", second, dict(row=None, layer=first.shape[1], embed=first.shape[2]))
    if min(len(first), len(second)) < 1 or len(first) + len(second) < 3:
        raise InputError("two kinds of prompts can be told apart from three on, at least one of each kind")
    require_finite("first and second", (first, second))
    points = np.concatenate([first, second]).astype(np.float64)
    placed = [_principal(points[:, layer]) for layer in range(points.shape[1])]
    return np.stack(placed), np.array([_silhouette(place[: len(first)], place[len(first) :]) for place in placed])


def _principal(points: Float[np.ndarray, "point embed"]) -> Float[np.ndarray, "point 2"]:
    """The two leading principal components; of each direction the largest entry is positive."""
    left, size, directions = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    components: np.ndarray = left[:, :2] * size[:2] * np.sign(largest[:2, 0])
    return components


def _silhouette(first: Float[np.ndarray, "row 2"], second: Float[np.ndarray, "other 2"]) -> float:
    """The mean silhouette of two clusters (Rousseeuw 1987): 0 for a point that is alone in its own."""
    found = []
    for own, other in ((first, second), (second, first)):
        near = cdist(own, own).sum(axis=1) / max(len(own) - 1, 1)
        far = cdist(own, other).mean(axis=1)
        longest = np.maximum(np.maximum(near, far), np.finfo(float).tiny)
        found.append((far - near) / longest if len(own) > 1 else np.zeros(1))
    return float(np.concatenate(found).mean())


def _check_candidates(model: Qwen3VL, candidates: Int32[AnyArray, " candidate"]) -> None:
    """An index beyond the vocabulary would read the score of its last token."""
    require_shape("candidates", candidates, dict(candidate=None))
    require_range("candidates", candidates, 0, model.config.text.vocab_size, "these are tokens of another model")


def _reply(model: Qwen3VL, output: Output, candidates: Int32[Array, " candidate"]) -> Reply:
    logits = model.logits(output.hidden[:, -1]).astype(jnp.float32)
    return Reply(jnp.argmax(logits, axis=-1).astype(jnp.int32), logits[:, candidates])
