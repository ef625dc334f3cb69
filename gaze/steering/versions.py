"""Other versions of a prompt that are read beside it: with its picture masked, left out or noised, or without its question.

What gates compare and contrasts subtract. No edit touches them, and they are told the tokens that the answer goes on with.
"""

import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jaxtyping import Array, Bool, Float, Int32

from gaze.steering.boosts import image_keys
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import VisionConfig
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Output, Qwen3VL
from qwen3vl_jax.vision import Vision


@struct.dataclass
class Versions:
    """Versions of every prompt, `count` of each in a row.

    Attributes:
      prompt: all of them.
      noisy: which show `noise` in place of the pictures.
      noise: other pixels for the pictures of the prompts; None if no version shows them.
    """

    prompt: Prompt
    noisy: Bool[Array | np.ndarray, " version"]
    noise: Images | None
    count: int = struct.field(pytree_node=False)

    def read_prompt(
        self, model: Qwen3VL, vision: Vision | None, max_new: int
    ) -> tuple[Float[Array, "batch version vocab"], Cache]:
        """Logits after each version of the prompt, and a cache with room for `max_new` tokens."""
        prompt = self.prompt
        if prompt.image_cell is None:
            vision = None
        elif self.noise is not None:
            assert vision is not None
            seen, cells = jnp.asarray(prompt.image_cell), vision.embeds.shape[0] * vision.embeds.shape[1]
            other = jnp.where((seen >= 0) & jnp.asarray(self.noisy)[:, None], seen + cells, seen)
            prompt, vision = replace(prompt, image_cell=other), _both(vision, model.encode(self.noise))
        output = model(prompt, vision)
        return self._logits(model, output), output.cache.fork(1, max_new)

    def read_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], cache: Cache
    ) -> tuple[Float[Array, "batch version vocab"], Cache]:
        """Logits after one more token of every row, the same for all of its versions."""
        output = model.extend(jnp.repeat(token, self.count, axis=0), cache)
        return self._logits(model, output), output.cache

    def _logits(self, model: Qwen3VL, output: Output) -> Float[Array, "batch version vocab"]:
        logits = model.logits(output.hidden[:, -1]).astype(jnp.float32)
        return rearrange(logits, "(b n) v -> b n v", n=self.count)


def masked(prompt: Prompt, hidden: Sequence[Bool[np.ndarray, "batch key"]]) -> Versions:
    """Versions of which each hides some keys from all rows; nothing moves, all else stands where it stood."""
    rows = _interleaved([prompt] * len(hidden))
    valid = np.asarray(rows.valid) & ~np.stack(hidden, axis=1).reshape(rows.valid.shape)
    return Versions(replace(rows, valid=valid), np.zeros(len(valid), bool), None, len(hidden))


def without_image(prompt: Prompt) -> Versions:
    """One version of text alone: picture and the markers around it are left out, and what follows moves up."""
    shown = image_keys(prompt)
    around = shown.copy()
    around[:, :-1] |= shown[:, 1:]
    around[:, 1:] |= shown[:, :-1]
    text = replace(without(prompt, around), image_cell=None)
    return Versions(text, np.zeros(len(shown), bool), None, 1)


def noised(prompts: Sequence[Prompt], noisy: Sequence[bool], noise: Images) -> Versions:
    """Versions of some wording, each with the picture or with what `noise` shows in its place."""
    if noise.groups != 1:
        raise InputError(f"the pictures are in {noise.groups} groups: a noised version needs them in one")
    return Versions(_interleaved(prompts), np.tile(np.array(noisy), len(prompts[0].tokens)), noise, len(prompts))


def question_keys(prompt: Prompt, ends: Collection[int]) -> Bool[np.ndarray, "batch key"]:
    """The keys of what is asked: after the picture and the marker that closes it, up to the token that ends the turn.

    Args:
      ends: such tokens, as `Processor.stop_tokens`.

    Raises InputError for a row in which none follows its picture.
    """
    tokens = np.asarray(prompt.tokens)
    place = np.arange(tokens.shape[1])[None, :]
    last = np.where(image_keys(prompt), place, -1).max(axis=1, keepdims=True)
    closes = np.isin(tokens, [*ends]) & (place > last)
    if not closes.any(axis=1).all():
        raise InputError(f"no token of {sorted(ends)} follows the picture in a prompt: give the token that ends a turn")
    asked: np.ndarray = (place > last + 1) & (place < closes.argmax(axis=1)[:, None])
    return asked


def without(prompt: Prompt, dropped: Bool[np.ndarray, "batch key"]) -> Prompt:
    """The prompt as if some of its tokens were not there: what follows moves up in position, rows stay as long."""
    given = [np.asarray(leaf) for leaf in (prompt.tokens, prompt.positions, prompt.valid)]
    cells = None if prompt.image_cell is None else np.asarray(prompt.image_cell)
    tokens, positions, valid = (np.zeros_like(leaf) for leaf in given)
    image_cell = None if cells is None else np.full_like(cells, -1)
    for row, gone in enumerate(dropped):
        kept = np.flatnonzero(given[2][row] & ~gone)
        place = slice(tokens.shape[1] - len(kept), None)
        tokens[row, place], valid[row, place] = given[0][row, kept], True
        positions[row, place] = given[1][row, kept] - _moved(given[1][row], given[2][row], gone)[kept, None]
        if image_cell is not None and cells is not None:
            image_cell[row, place] = cells[row, kept]
    return Prompt(tokens, positions, valid, image_cell)


def diffused(images: Images, step: int, seed: int, config: VisionConfig) -> Images:
    """Pictures after so many steps of VCD's diffusion, of 1,000 (arXiv 2311.16922)."""
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.5e-2 - 1e-5) + 1e-5
    kept = float(np.cumprod(1 - betas)[step])
    return _repixelled(images, lambda rng, shape: np.sqrt(1 - kept) * rng.normal(size=shape), kept**0.5, seed, config)


def uniform_noise(images: Images, seed: int, config: VisionConfig) -> Images:
    """Noise in place of pictures, uniform from 0 to 1 in what the model takes as pixels, as CG-VLM's code has it."""
    return _repixelled(images, lambda rng, shape: rng.random(shape), 0.0, seed, config)


def picture_seeds(images: Images) -> list[int]:
    """A number of each picture that depends on its pixels alone, not on what stands beside it."""
    patches, valid = np.asarray(images.patches), np.asarray(images.valid)
    return [zlib.crc32(some[there].tobytes()) for some, there in zip(patches, valid, strict=True)]


def _repixelled(
    images: Images,
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray],
    kept: float,
    seed: int,
    config: VisionConfig,
) -> Images:
    """So much of every picture, and noise; all frames of a patch get the same."""
    patches, valid = np.array(images.patches), np.asarray(images.valid)
    channels, frames = config.in_channels, config.temporal_patch_size
    for some, there, own in zip(patches, valid, picture_seeds(images), strict=True):
        noise = draw(np.random.default_rng([seed, own]), (int(there.sum()), channels, 1, config.patch_size**2))
        some[there] = kept * some[there] + np.repeat(noise, frames, axis=2).reshape(len(noise), -1)
    return replace(images, patches=patches.astype(np.float32))


def _moved(
    positions: Int32[np.ndarray, "key 3"], valid: Bool[np.ndarray, " key"], gone: Bool[np.ndarray, " key"]
) -> Int32[np.ndarray, " key"]:
    """By how much each token moves up when some before it are gone."""
    moved = np.zeros(len(gone), np.int32)
    total, start = 0, None
    for key in np.flatnonzero(valid):
        if gone[key]:
            start = positions[key, 0] if start is None else start
        elif start is not None:
            total, start = total + positions[key, 0] - start, None
        moved[key] = total
    return moved


def _interleaved(prompts: Sequence[Prompt]) -> Prompt:
    """Row i of every prompt, then row i + 1 of every prompt."""
    rows: Prompt = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:]), *prompts)
    return rows


def _both(one: Vision, other: Vision) -> Vision:
    embeds = jnp.concatenate([one.embeds, other.embeds])
    return Vision(embeds, jnp.concatenate([one.deepstack, other.deepstack], axis=1))
