"""Where every head looks while a narration is written: one pass over the prompt and the text, read token by token.

A token is chosen by the row before it, so the attention that belongs to a token is that of the row that predicts it. A `line`
is the part of a narration about one panel; arrays over lines are indexed by that panel.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Int32, Int64

from gaze.discovery.scores import Mass
from gaze.pictures.strips import Photo, Picture
from gaze.steering.engine import encode
from gaze.text_spans import TextSpan
from qwen3vl_jax.checks import require_finite
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of
from qwen3vl_jax.vision import Vision

PerToken = Float32[np.ndarray, "strip token layer heads panel"]
Lines = Int[np.ndarray, "strip token"]
"""The panel that each token's line is about, -1 for none."""
NO_LINE = -1


class Watched(NamedTuple):
    """Attention of the rows that predict each token; NaN after the last token of a text.

    Attributes:
      mass: after the softmax, summed over a panel's tokens.
      value_mass: the same, each key weighted by the norm of its value (Kobayashi et al. 2020).
    """

    mass: PerToken
    value_mass: PerToken


def watch(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    question: str,
    said: Sequence[Int[np.ndarray, " _"]],
    room: int,
    size: int,
) -> Watched:
    """Reads what was said about each strip, as if the model wrote it again.

    Args:
      said: the tokens of the answer to `question` about each strip, at most `room`.
      room, size: what tokens and strips are filled up to, so that all calls share one compilation.
    """
    image = strips[-1].image
    filled = [*strips, *[Photo("", image, ((0, 0, *image.size),))] * (size - len(strips))]
    encoded = encode(model, processor, filled, [question] * size)
    tokens = np.zeros((size, room), np.int32)
    for row, text in zip(tokens, said, strict=False):
        row[: len(text)] = text
    prompt, panels, read = across((encoded.prompt, encoded.panels, tokens), mesh_of(model))
    found = fetch(narration_attention(model, prompt, encoded.vision, panels, read))
    beyond = np.arange(room)[None, :] >= np.array([len(text) for text in said])[:, None]
    require_finite("the attention while narrating", found)
    kept = [np.array(rearrange(mass, "l s t h p -> s t l h p"))[: len(strips)] for mass in found]
    for mass in kept:
        mass[beyond] = np.nan
    return Watched(*kept)


@jax.jit
def narration_attention(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    panels: Bool[Array, "strip panel key"] | Bool[np.ndarray, "strip panel key"],
    said: Int32[Array, "strip token"] | Int32[np.ndarray, "strip token"],
) -> tuple[Float32[Array, "layer strip token heads panel"], Float32[Array, "layer strip token heads panel"]]:
    """Attention on each panel of the rows that predict each token of a text, as it is and weighted by values.

    The row before the text predicts its first token; nothing that comes after a token matters to it.

    Args:
      panels: keys of each panel of the prompt.
    """
    length, new = prompt.tokens.shape[1], said.shape[1]
    groups = jnp.asarray(panels, jnp.float32)
    last = Taps(jnp.full((1, 1), length - 1, jnp.int32), groups, weigh_values=True)
    read = model(prompt, vision, taps=last)
    groups = jnp.pad(groups, ((0, 0), (0, 0), (0, new - 1)))
    after = Taps(jnp.arange(new - 1, dtype=jnp.int32)[None], groups, weigh_values=True)
    rest = model.extend(jnp.asarray(said)[:, :-1], read.cache.fork(1, new - 1), taps=after)
    first, others = read.readings, rest.readings
    assert first is not None
    assert others is not None
    assert first.value_mass is not None
    assert others.value_mass is not None
    mass = jnp.concatenate([first.mass, others.mass], axis=2)
    return mass, jnp.concatenate([first.value_mass, others.value_mass], axis=2)


def line_of_token(lines: Sequence[Mapping[int, TextSpan]], room: int) -> Int32[np.ndarray, "strip token"]:
    """The panel that each token of a narration belongs to, -1 for none; see `gaze.text_spans.narrated`."""
    found = np.full((len(lines), room), NO_LINE, np.int32)
    for row, parts in zip(found, lines, strict=True):
        for panel, line in parts.items():
            row[line.start : line.stop] = panel
    return found


def averaged(
    mass: PerToken, heads: Float32[np.ndarray, "set layer heads"]
) -> Float32[np.ndarray, "strip set token panel"]:
    """Mean over the heads of each set, given as masks."""
    shares = heads / heads.sum(axis=(1, 2), keepdims=True)
    curves: np.ndarray = np.einsum("stlhp,nlh->sntp", mass, shares).astype(np.float32)
    return curves


def by_line(mass: PerToken, lines: Lines) -> Mass:
    """Mean over the tokens of each line: the tensor of discovery with lines in place of questions; NaN where there is none.

    Tokens of no line, among them those after the end of a text, count nowhere, whatever stands there. Raises InputError for
    a token of a line whose mass is not a number.
    """
    spoken = lines >= 0
    require_finite("the attention during lines", mass[spoken])
    member = _members(lines, mass.shape[-1])
    count = member.sum(axis=1)
    shares = np.divide(member, count[:, None], out=np.zeros_like(member), where=count[:, None] > 0)
    found: np.ndarray = np.einsum(
        "stk,stlhp->sklhp", shares, np.where(spoken[:, :, None, None, None], mass, 0), optimize=True
    )
    found[count == 0] = np.nan
    return found


def line_mass(mass: Float[np.ndarray, "strip token panel"], lines: Lines) -> Float32[np.ndarray, "strip line panel"]:
    """`by_line` of what `averaged` gives for one set of heads."""
    found = by_line(np.asarray(mass, np.float32)[:, :, None, None, :], lines)
    return np.asarray(found[:, :, 0, 0], np.float32)


def stairs(
    mass: Float[np.ndarray, "strip token panel"], lines: Lines, order: Sequence[int], bins: int
) -> Float64[np.ndarray, "step panel"]:
    """Mean over strips with lines laid over one another: each line takes `bins` steps, the lines come in `order`."""
    steps = [_stretched(mass, lines, panel, bins) for panel in order]
    return np.concatenate(steps)


def attended(mass: Float[np.ndarray, "strip line panel"]) -> Int64[np.ndarray, "strip line"]:
    """The panel with the most attention during each line; -1 for lines that are not there."""
    known = np.isfinite(mass).all(axis=-1)
    return np.where(known, np.where(known[:, :, None], mass, 0).argmax(axis=-1), -1)


def first_token(lines: Lines, panels: int) -> Int64[np.ndarray, "strip line"]:
    """The token that each line starts with, -1 for lines that are not there."""
    member = _members(lines, panels) > 0
    return np.where(member.any(axis=1), member.argmax(axis=1), -1)


def complete(mass: Mass) -> Bool[np.ndarray, " strip"]:
    """Strips whose narration has a line about every panel."""
    complete: np.ndarray = np.isfinite(mass).all(axis=(1, 2, 3, 4))
    return complete


def _members(lines: Lines, panels: int) -> Float32[np.ndarray, "strip token line"]:
    members: np.ndarray = (lines[:, :, None] == np.arange(panels)).astype(np.float32)
    return members


def _stretched(
    mass: Float[np.ndarray, "strip token panel"], lines: Lines, panel: int, bins: int
) -> Float64[np.ndarray, "bin panel"]:
    """The line about one panel in `bins` steps of equal length, each the mean of the tokens that it touches."""
    found = np.zeros((bins, mass.shape[-1]))
    count = 0
    for row, line in zip(mass, lines, strict=True):
        tokens = row[line == panel].astype(np.float64)
        if not len(tokens):
            continue
        edges = np.arange(bins + 1) * len(tokens) / bins
        first, last = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
        found += np.stack([tokens[start:stop].mean(axis=0) for start, stop in zip(first, last, strict=True)])
        count += 1
    return found / count if count else np.full_like(found, np.nan)
