"""What the testbed is trained on: the next word of the answers, and nothing else.

One arm of an experiment adds a price on looking at the image (`price`); it is off wherever it is not asked for.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from experiments.testbed.batches import Slots, TrainingBatch
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.edits import Readings, Taps
from qwen3vl_jax.model import Qwen3VL

CAPTION = 8  # tokens of a middling caption
FIRST = 4.0
"""What the first word of an answer counts for: it alone hangs on which panel was meant, the others follow from it."""


def loss(
    model: Qwen3VL, batch: TrainingBatch, price: float = 0.0
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The training loss, and its parts: nats per token of the answers, and the price of looking."""
    prefix = model(batch.prefix, model.encode(batch.images))
    image = jnp.asarray(batch.prefix.image_cell) >= 0
    losses, counts, looks = [], [], []
    for slots in batch.slots:
        hidden, readings = _read(model, slots, prefix.cache, image if price else None)
        nats, weight = _answer_loss(model, slots, hidden)
        losses.append(nats)
        counts.append(weight)
        looks.append(_looking(slots, readings))
    answer = sum(losses, jnp.zeros(())) / sum(counts, jnp.zeros(()))
    look = sum(looks, jnp.zeros(())) / len(looks)
    return answer + price * look, {"answer": answer, "look": look}


def _read(
    model: Qwen3VL, slots: Slots, cache: Cache, image: Bool[Array, "strip prefix"] | None
) -> tuple[Float[Array, "slot seq embed"], Readings | None]:
    """Hidden rows of the slots, each after its own prefix, and their looks at the `image`; nothing is kept of them."""
    strip, decoder = slots.strip, model.model.language_model
    cache = Cache(
        jnp.take(cache.keys, strip, axis=1),
        jnp.take(cache.values, strip, axis=1),
        cache.valid[strip],
        cache.filled,
        cache.next_position[strip],
    )
    taps, seq = None, slots.prompt.tokens.shape[1]
    if image is not None:
        keys = jnp.pad(image[strip].astype(jnp.float32), ((0, 0), (0, seq)))[:, None, :]
        taps = Taps(jnp.arange(seq, dtype=jnp.int32)[None], keys)
    x, _ = model.embed(slots.prompt, None)
    positions, valid = jnp.asarray(slots.prompt.positions), jnp.asarray(slots.prompt.valid)
    x, _, readings = decoder(x, positions, valid, None, cache, None, taps)
    return decoder.norm(x), readings


def _answer_loss(
    model: Qwen3VL, slots: Slots, hidden: Float[Array, "slot seq embed"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Summed over words; an answer shorter than a caption, perhaps a single letter, counts as much as one."""
    losses = optax.softmax_cross_entropy_with_integer_labels(model.logits(hidden), slots.targets)
    answer = jnp.asarray(slots.answer, jnp.float32)
    weight = answer * jnp.maximum((CAPTION + 1) / jnp.sum(answer, axis=1, keepdims=True), 1)
    first = answer * (jnp.cumsum(answer, axis=1) == 1).astype(jnp.float32)
    weight = weight + (FIRST - 1) * first
    return jnp.sum(losses * weight), jnp.sum(weight)


def _looking(slots: Slots, readings: Readings | None) -> Float[Array, ""]:
    """Square roots of every head's mean attention to the image make many small looks dearer than one long one."""
    if readings is None:
        return jnp.zeros(())
    rows = jnp.asarray(slots.prompt.valid, jnp.float32)
    mass = jnp.einsum("lbrh,br->lh", readings.mass[..., 0], rows) / jnp.sum(rows)
    return jnp.sum(jnp.sqrt(mass + 1e-3))
