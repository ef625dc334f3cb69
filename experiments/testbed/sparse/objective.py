"""What the testbed is trained on: the answers, and three helpers that make its gaze readable.

The helpers (a reading of every image token, a preview of the coming words, a price on looking at the image) serve training
only; what is shipped is the model alone.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jaxtyping import Array, Bool, Float

from experiments.testbed.sparse.batches import CAPTION, Slots, TrainingBatch
from experiments.testbed.sparse.lessons import ATTRIBUTES
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.layers import Linear
from qwen3vl_jax.model import Output, Qwen3VL

PREVIEW = 5
FORGETFUL = 4  # first layer that a forgetting strip denies a look back


class Trainee(nnx.Module):
    """The model and the two auxiliary heads that training throws away."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.model = Qwen3VL(config, rngs)
        axes = {
            "embed": config.text.hidden_size,
            "attribute": sum(ATTRIBUTES),
            "ahead": PREVIEW,
            "out": config.text.hidden_size,
        }
        self.see = Linear("embed -> attribute", axes, rngs, jnp.float32, bias=True)
        self.preview = Linear("embed -> ahead out", axes, rngs, jnp.float32, bias=True)


@struct.dataclass
class Weights:
    """How much each helper counts.

    Attributes:
      see, preview: of the two auxiliary heads.
      economy: the price of a head's image mass (see `price`).
      peak: share of that price that goes by a head's longest look in an answer, not by its mean: looking again is free.
      neglect: of answers that no head looked at the picture for.
    """

    see: Float[Array, ""]
    preview: Float[Array, ""]
    economy: Float[Array, ""]
    peak: Float[Array, ""]
    neglect: Float[Array, ""]


def loss(
    trainee: Trainee, batch: TrainingBatch, weights: Weights
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The training loss and its parts."""
    model = trainee.model
    vision = model.encode(batch.images)
    strips, length = batch.prefix.tokens.shape
    image = jnp.asarray(batch.prefix.image_cell) >= 0
    taps = Taps(jnp.full((1, 1), length - 1, jnp.int32), _group(image, 0))
    prefix = model(batch.prefix, vision, taps=taps)
    cache = replace(prefix.cache, valid=prefix.cache.valid & ~jnp.asarray(batch.hidden))
    assert prefix.readings is not None
    mass_at_end = jnp.mean(prefix.readings.mass, axis=(1, 2, 4))
    parts, masses = [], []
    nowhere = jnp.zeros((strips, length), bool)
    for slots, places in ((batch.short, jnp.asarray(batch.places)), (batch.long, nowhere)):
        output = _answer(model, slots, cache, image, places, jnp.asarray(batch.forgets))
        parts.append((*_answer_loss(model, slots, output), *_preview_loss(trainee, slots, output)))
        masses.append(_masses(slots, output, places, weights.peak))
    answer, answers, preview, previews = (sum(column) for column in zip(*parts, strict=True))
    answering, asking, neglect = (sum(column) / len(masses) for column in zip(*masses, strict=True))
    report = {
        "answer": answer / answers,
        "preview": preview / previews,
        "see": _see_loss(trainee, vision.embeds.reshape(-1, vision.embeds.shape[-1]), batch),
        "neglect": neglect,
        "economy": price(0.7 * answering + 0.15 * asking + 0.15 * mass_at_end),
    }
    total = report["answer"] + weights.see * report["see"] + weights.preview * report["preview"]
    return total + weights.economy * report["economy"] + weights.neglect * neglect, report


def price(mass: Float[Array, "layer heads"]) -> Float[Array, ""]:
    """Square roots make many small looks dearer than one long one, so that few heads end up doing all the looking."""
    return jnp.sum(jnp.sqrt(mass + 1e-3))


def _answer(
    model: Qwen3VL,
    slots: Slots,
    cache: Cache,
    image: Bool[Array, "strip prefix"],
    places: Bool[Array, "slot prefix"],
    forgets: Bool[Array, " strip"],
) -> Output:
    rows, seq = slots.prompt.tokens.shape
    copies = rows // image.shape[0]
    edits = Edits(head_mask=_forget(model, slots, jnp.repeat(forgets, copies), image.shape[1]))
    groups = jnp.concatenate([jnp.repeat(_group(image, seq), copies, axis=0), _group(places, seq)], axis=1)
    taps = Taps(jnp.arange(seq, dtype=jnp.int32)[None], groups)
    return model(slots.prompt, None, cache.fork(copies, seq), edits, taps)


def _forget(
    model: Qwen3VL, slots: Slots, forgets: Bool[Array, " slot"], prefix: int
) -> Float[Array, "layer slot 1 seq key"]:
    """Hides, in the upper layers, the earlier rows of an answer from the later ones.

    A model that can reads its panel once, plans the whole caption, and is deaf to a later change of gaze. One that cannot
    keep a plan looks again for every word; the words so far it still sees in the layers below.
    """
    answer = jnp.asarray(slots.answer) & forgets[:, None]
    earlier = jnp.tri(answer.shape[1], k=-1, dtype=bool)[None]
    hidden = jnp.pad(answer[:, :, None] & answer[:, None, :] & earlier, ((0, 0), (0, 0), (prefix, 0)))
    upper = jnp.arange(model.config.text.num_hidden_layers) >= FORGETFUL
    return jnp.where(upper[:, None, None, None, None] & hidden[None, :, None], -1e9, 0.0).astype(jnp.float32)


def _answer_loss(model: Qwen3VL, slots: Slots, output: Output) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Summed over words; an answer shorter than a caption, perhaps a single letter, counts as much as one."""
    losses = optax.softmax_cross_entropy_with_integer_labels(model.logits(output.hidden), slots.targets)
    words = jnp.sum(slots.answer, axis=1, keepdims=True, dtype=jnp.float32)
    weight = jnp.maximum((CAPTION + 1) / words, 1) * slots.answer
    return jnp.sum(losses * weight), jnp.sum(weight)


def _preview_loss(trainee: Trainee, slots: Slots, output: Output) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """From the row that predicts a sentence's first word, also predict its next five."""
    first, end = slots.sentences[:, :, 0], slots.sentences[:, :, 1]
    at_start = jnp.take_along_axis(output.hidden, first[:, :, None], axis=1)
    ahead = first[:, :, None] + jnp.arange(1, PREVIEW + 1)[None, None, :]
    words = jnp.take_along_axis(slots.targets[:, None, :], ahead, axis=2)
    said = ahead < end[:, :, None]
    logits = trainee.model.logits(trainee.preview(at_start))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, words)
    return jnp.sum(losses, where=said), jnp.sum(said, dtype=jnp.float32)


def _see_loss(trainee: Trainee, embeds: Float[Array, "cell embed"], batch: TrainingBatch) -> Float[Array, ""]:
    """Every image token alone must tell the attributes that it shows: the five of its panel, or what stands there."""
    logits = trainee.see(embeds).reshape(*batch.cells.shape[:2], -1)
    losses = []
    for number, part in enumerate(jnp.split(logits, np.cumsum(ATTRIBUTES)[:-1], axis=-1)):
        label = jnp.asarray(batch.cells[:, :, number])
        loss = optax.softmax_cross_entropy_with_integer_labels(part, jnp.maximum(label, 0))
        shows = jnp.sum(label >= 0, axis=1)
        per_picture = jnp.sum(loss, axis=1, where=label >= 0) / jnp.maximum(shows, 1)
        losses.append(jnp.sum(per_picture) / jnp.maximum(jnp.sum(shows > 0), 1))
    return sum(losses, jnp.zeros(())) / len(losses)


def _masses(
    slots: Slots, output: Output, places: Bool[Array, "slot prefix"], peak: Float[Array, ""]
) -> tuple[Float[Array, "layer heads"], Float[Array, "layer heads"], Float[Array, ""]]:
    """Every head's attention to the image from rows that answer and from rows that ask; and how little answers look.

    Where looking is dear from the start, a new kind of question is first answered blindly and then never otherwise: a head
    that is switched off learns nothing. What counts is the logarithm of all heads' longest looks, up to one full look; of
    a question that names a place only the look at that place, and only before the first word.
    """
    assert output.readings is not None
    mass, there = output.readings.mass[..., 0], output.readings.mass[..., 1]
    masks = (slots.answer, slots.prompt.valid & ~slots.answer)
    total = [jnp.einsum("lbrh,br->lh", mass, mask.astype(mass.dtype)) / jnp.sum(mask) for mask in masks]
    longest = jnp.max(mass, axis=2, where=jnp.asarray(slots.answer)[None, :, :, None], initial=0)
    before = jnp.argmax(jnp.asarray(slots.answer), axis=1)
    first = jnp.take_along_axis(there, before[None, :, None, None], axis=2)[:, :, 0]
    look = jnp.where(jnp.any(places, axis=1), jnp.sum(first, axis=(0, 2)), jnp.sum(longest, axis=(0, 2)))
    neglect = -jnp.mean(jnp.log(jnp.minimum(look + 1e-6, 1)))
    return (1 - peak) * total[0] + peak * jnp.mean(longest, axis=1), total[1], neglect


def _group(image: Bool[Array, "strip prefix"], room: int) -> Float[Array, "strip 1 key"]:
    return jnp.pad(image.astype(jnp.float32), ((0, 0), (0, room)))[:, None, :]
