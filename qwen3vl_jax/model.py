"""Qwen3-VL as a function: images and tokens and edits in, hidden states and a cache and readings out.

The module tree carries the names of the Hugging Face checkpoint: a tensor's place in the tree is its name in the file.
Matches `Qwen3VLForConditionalGeneration` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Edits, Readings, Taps
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.layers import Linear
from qwen3vl_jax.text import Decoder
from qwen3vl_jax.vision import Vision, VisionTower


@struct.dataclass
class Output:
    """What a pass gives: the final-normed stream (see `Qwen3VL.logits`), the filled cache, what the taps read."""

    hidden: Float[Array, "batch seq embed"]
    cache: Cache
    readings: Readings | None


class Body(nnx.Module):
    """Both towers, under the name `model` that the file gives them."""

    def __init__(self, config: Config, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.visual = VisionTower(config.vision, rngs, dtype)
        self.language_model = Decoder(config.text, rngs, dtype)


class Qwen3VL(nnx.Module):
    """A Qwen3-VL. It is a pytree: pass it through `jax.jit`, `jax.vmap` and `jax.grad` as an argument."""

    def __init__(self, config: Config, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        self.config = config
        self.model = Body(config, rngs, dtype)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else Linear("embed -> vocab", config.text.axes, rngs, dtype, bias=False)

    @property
    def dtype(self) -> jnp.dtype:
        return self.model.language_model.embed_tokens.weight.dtype

    def encode(self, images: Images) -> Vision:
        """Images to vision tokens; do it once and share it among all prompts about them."""
        return self.model.visual(images)

    def empty_cache(self, batch: int, slots: int) -> Cache:
        return Cache.empty(self.config.text, batch, slots, self.dtype)

    def __call__(
        self,
        prompt: Prompt,
        vision: Vision | None = None,
        cache: Cache | None = None,
        edits: Edits | None = None,
        taps: Taps | None = None,
        work: Int32[Array, "layer"] | None = None,
    ) -> Output:
        """Reads a prompt behind what the cache already holds, which must have room for it; None: behind nothing.

        Key axes of edits and taps count cache slots; their query rows count this prompt's tokens.

        Args:
          work: what each layer has to do, see `qwen3vl_jax.text.Decoder`.
        """
        decoder = self.model.language_model
        x, deepstack = self.embed(prompt, vision)
        positions, valid = jnp.asarray(prompt.positions), jnp.asarray(prompt.valid)
        x, own, readings = decoder(x, positions, valid, deepstack, cache, edits, taps, work)
        into = self.empty_cache(*prompt.tokens.shape) if cache is None else cache
        return Output(decoder.norm(x), into.write(*own, valid, positions), readings)

    def extend(
        self, tokens: Int32[Array, "batch seq"], cache: Cache, edits: Edits | None = None, taps: Taps | None = None
    ) -> Output:
        """Reads more text tokens, none of them padding, at the positions that follow."""
        steps = cache.next_position[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
        positions = jnp.broadcast_to(steps[:, :, None], (*tokens.shape, 3))
        return self(Prompt(tokens, positions, jnp.ones(tokens.shape, bool)), None, cache, edits, taps)

    def logits(self, hidden: Float[Array, "*shape embed"]) -> Float[Array, "*shape vocab"]:
        """Vocabulary scores of any rows of `Output.hidden`."""
        return self.model.language_model.embed_tokens.attend(hidden) if self.lm_head is None else self.lm_head(hidden)

    def embed(
        self, prompt: Prompt, vision: Vision | None
    ) -> tuple[Float[Array, "batch seq embed"], Float[Array, "tap batch seq embed"] | None]:
        """Token embeddings with vision tokens at the placeholders, and the DeepStack features in the same places."""
        x = self.model.language_model.embed_tokens(jnp.asarray(prompt.tokens))
        if vision is None or prompt.image_cell is None:
            return x, None
        cell = jnp.asarray(prompt.image_cell)
        is_image = (cell >= 0)[:, :, None]
        embeds, deepstack = vision.at(cell)
        return jnp.where(is_image, embeds, x), jnp.where(is_image[None], deepstack, 0)
