"""Qwen3-VL as a function: images and tokens and edits in, hidden states and a cache and readings out.

The module tree carries the names of the Hugging Face checkpoint: a tensor's place in the tree is its name in the file.
Matches `Qwen3VLForConditionalGeneration` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

from dataclasses import replace
from types import NoneType

import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.checks import require_range, require_shape, require_type
from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Edits, Readings, Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.layers import Linear
from qwen3vl_jax.text import Decoder, SomeLayers
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
        dtype: jnp.dtype = self.model.language_model.embed_tokens.weight.dtype
        return dtype

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
        some: SomeLayers | None = None,
    ) -> Output:
        """Reads a prompt after what the cache already holds; None: after nothing.

        Key axes of edits and taps count cache slots, the prompt's tokens without a cache; their query axes count this
        prompt's tokens, negative positions from its end.

        Args:
          some: what each layer has to do, all of its work without; see `qwen3vl_jax.generation.layer_modes`.

        Raises:
          InputError: names the argument whose shape does not fit, and, where they are known (under `jit` they are not), tokens
            that the embedding lacks, cells that `vision` lacks, positions that the prompt lacks, and a cache without room.
            A cache that runs out of room under `jit` gives NaN from there on.
        """
        taps = self._checked(prompt, vision, cache, edits, taps)
        decoder = self.model.language_model
        x, deepstack = self.embed(prompt, vision)
        positions, valid = jnp.asarray(prompt.positions), jnp.asarray(prompt.valid)
        x, own, readings = decoder(x, positions, valid, deepstack, cache, edits, taps, some)
        cache = Cache.of(*own, valid, positions) if cache is None else cache.write(*own, valid, positions)
        return Output(decoder.norm(x), cache, readings)

    def extend(
        self, tokens: Int32[Array, "batch seq"], cache: Cache, edits: Edits | None = None, taps: Taps | None = None
    ) -> Output:
        """Reads more text tokens, none of them padding, at the positions that follow; errors as of a call."""
        require_type("cache", cache, Cache, "a Cache, as `Output.cache` or `empty_cache` give it")
        tokens = jnp.asarray(tokens)
        require_shape("tokens", tokens, dict(batch=len(cache.next_position), seq=None))
        steps = cache.next_position[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
        positions = jnp.broadcast_to(steps[:, :, None], (*tokens.shape, 3))
        return self(Prompt(tokens, positions, jnp.ones(tokens.shape, bool)), None, cache, edits, taps)

    def read(self, prompt: Prompt, cache: Cache, taps: Taps) -> Readings:
        """Reads text after what the cache holds for its taps alone, and keeps nothing: the cache needs no room.

        Keys of the taps are the slots of the cache, then the tokens of the prompt.

        Raises:
          InputError: as a call.
        """
        batch, queries = prompt.check(self.config.text.vocab_size)
        cache.check_room(self.config.text, batch, 0)
        taps = taps.checked(batch, queries, cache.slots + queries)
        x, _ = self.embed(prompt, None)
        positions, valid = jnp.asarray(prompt.positions), jnp.asarray(prompt.valid)
        full = replace(cache, filled=jnp.asarray(cache.slots, jnp.int32))
        readings = self.model.language_model(x, positions, valid, None, full, None, taps)[2]
        assert readings is not None
        return readings

    def _checked(
        self, prompt: Prompt, vision: Vision | None, cache: Cache | None, edits: Edits | None, taps: Taps | None
    ) -> Taps | None:
        """Raises InputError unless the arguments fit each other; returns the taps in their usual form."""
        require_type("prompt", prompt, Prompt, "a Prompt, as the Processor makes it")
        require_type("vision", vision, (Vision, NoneType), "a Vision, as `encode` gives it, or None")
        require_type("cache", cache, (Cache, NoneType), "a Cache, or None")
        require_type("edits", edits, (Edits, NoneType), "Edits, or None")
        require_type("taps", taps, (Taps, NoneType), "Taps, or None")
        batch, queries = prompt.check(self.config.text.vocab_size)
        if (vision is None) != (prompt.image_cell is None):
            missing = "vision" if vision is None else "prompt.image_cell"
            raise InputError(f"{missing} is None: a prompt that shows images needs both, one of text alone neither")
        if vision is not None:
            cells = vision.embeds.shape[0] * vision.embeds.shape[1]
            require_range("prompt.image_cell", prompt.image_cell, -1, cells, "give the vision of these images")
        if cache is not None:
            cache.check_room(self.config.text, batch, queries)
        slots = queries if cache is None else cache.slots
        if edits is not None:
            edits.check(self.config.text, batch, queries, slots)
        return None if taps is None else taps.checked(batch, queries, slots)

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
