"""A judge that needs no captions' words: which region, shown alone, makes the unsteered model expect the text most?

Each region is encoded, and the question about it read, once; the texts follow as continuations of what is then cached.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32
from PIL import Image

from gaze.judges.judge import Attribution, Failed, Item, digest
from gaze.pictures.strips import Picture
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.images import smart_resize
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of

QUESTION = "What is happening in this panel of the comic strip?"
TEXTS, TOKENS = 8, 16
"""How many texts follow at once, and what their lengths are padded to a multiple of."""

Tokens = Sequence[int]

Scores = Float[np.ndarray, "text region"]
"""Mean log-probability per token, in nats."""


@dataclass(frozen=True)
class Likelihood:
    """Shows the model one region at a time and asks how likely it would have given the text as its answer.

    A text's score for a region is its mean log-probability per token (without the end of the turn) minus the region's
    own bias: plain regions make any text likelier than crowded ones. The bias is what remains of the scores of the
    picture's captions for regions that they do *not* describe, once each caption's own likelihood is taken out
    (`region_bias`); it is 0 for pictures with fewer than three captioned regions. A prior of the text alone, without
    any region, would be the same for all regions and change nothing.

    A text is attributed to no region if it is empty, if the best score leads the second by less than `margin`, or if
    the picture has a single region. It has failed if a score is no number.

    Attributes:
      fingerprint: of the weights, for the version.
      margin: in nats per token; 1 asks that a region make every token e times as likely. Chosen on the testbed, where it turns
        most captions of other pictures away; see `strangers` of the calibration before trusting it elsewhere.
      rows: how many regions are read at once; the more, the more memory.
    """

    name: ClassVar[str] = "likelihood"

    model: Qwen3VL
    processor: Processor
    fingerprint: str
    question: str = QUESTION
    margin: float = 1.0
    rows: int = 24

    @property
    def version(self) -> str:
        return digest(self.name, 1, self.fingerprint, str(self.model.dtype), self.question, self.margin)

    def __call__(self, items: Sequence[Item]) -> list[Attribution]:
        items = list(items)  # holds the pictures, so that no two have the same id
        about: dict[int, list[int]] = {}
        for number, item in enumerate(items):
            about.setdefault(id(item.picture), []).append(number)
        pictures = [items[some[0]].picture for some in about.values()]
        captions = [_captions(picture) for picture in pictures]
        said = [list(dict.fromkeys(items[number].text.strip() for number in some)) for some in about.values()]
        scores = self.scores(pictures, [[*known, *texts] for known, texts in zip(captions, said, strict=True)])
        verdicts: dict[int, Attribution] = {}
        for some, known, texts, table in zip(about.values(), captions, said, scores, strict=True):
            unbiased = table[len(known) :] - region_bias(table[: len(known)], known)[None]
            found = {
                text: choose(row, self.margin) if text else None for text, row in zip(texts, unbiased, strict=True)
            }
            verdicts |= {number: found[items[number].text.strip()] for number in some}
        return [verdicts[number] for number in range(len(items))]

    def scores(self, pictures: Sequence[Picture], texts: Sequence[Sequence[str]]) -> list[Scores]:
        """Scores of each picture's texts for each of its regions, their bias included; 0 for an empty text."""
        found: list[Scores] = []
        for group in _groups(pictures, self.rows):
            tokens = [[self._tokens(text) for text in texts[number]] for number in group]
            table = self._table([pictures[number] for number in group], tokens)
            edges = np.cumsum([len(pictures[number]) for number in group])[:-1]
            parts = np.split(table, edges, axis=1)
            found += [part[: len(rows)] for part, rows in zip(parts, tokens, strict=True)]
        return found

    def _table(self, pictures: Sequence[Picture], tokens: Sequence[Sequence[Tokens]]) -> Scores:
        """Scores for the regions of all pictures side by side; text i is another one for each picture."""
        crops = [picture.crop(region) for picture in pictures for region in range(len(picture))]
        fill = -len(crops) % self.rows
        images, prompt = self._prompts([*crops, *[crops[-1]] * fill])
        cache, hidden = _read(self.model, images, prompt)
        owner = np.pad(np.repeat(np.arange(len(pictures)), list(map(len, pictures))), (0, fill), mode="edge")
        ids, length = (leaf[:, owner] for leaf in _padded(tokens))
        chunks = [slice(start, start + TEXTS) for start in range(0, len(ids), TEXTS)]
        parts = [_follow(self.model, cache, hidden, ids[some], length[some]) for some in chunks]
        return np.concatenate(fetch(parts))[:, : len(crops)]

    def _prompts(self, crops: Sequence[Image.Image]) -> tuple[Images, Prompt]:
        """The question about each region; padded so that regions of about one size share a compilation."""
        chat, settings = self.processor.chat(self.question), self.processor.settings
        limits = (settings.factor, settings.min_pixels, settings.max_pixels)
        largest = max(math.prod(smart_resize(crop.height, crop.width, *limits)) for crop in crops)
        patches = _roomy(largest // settings.patch_size**2)
        words = len(self.processor.tokenizer(chat)["input_ids"]) - 1
        length = words + patches // settings.merge_size**2
        asked = self.processor([chat] * len(crops), [[crop] for crop in crops], length=length, patches=patches)
        assert asked.images is not None
        images, prompt = across((asked.images, asked.prompt), mesh_of(self.model))
        return images, prompt

    def _tokens(self, text: str) -> Tokens:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def region_bias(table: Scores, captions: Sequence[str]) -> Float[np.ndarray, " region"]:
    """How much likelier each region makes texts that do not describe it, relative to the mean region.

    Fits score = caption + region to all captions and regions that do not belong together, by least squares; a plain
    mean over the other captions would take the likelihood of the one that a region lacks for the region's doing. What
    chance alone makes regions differ by is taken off (James and Stein 1961): with a handful of captions that can be
    all of it.

    Args:
      table: scores of the captions (one per region) for the regions.

    Returns:
      Nats per token; 0 where captions and regions cannot be told apart, as with fewer than three.
    """
    count, regions = table.shape
    apart = np.array([one != other for one in captions for other in captions]).reshape(count, count)
    text, region = np.nonzero(apart)
    design = np.concatenate([np.eye(count)[text], np.eye(count)[region]], axis=1)
    free = len(text) - (2 * count - 1)
    if count < 3 or free < 1 or np.linalg.matrix_rank(design) < 2 * count - 1:
        return np.zeros(regions)
    spread = np.linalg.pinv(design.T @ design)
    fitted = spread @ design.T @ table[text, region]
    noise = np.sum((table[text, region] - design @ fitted) ** 2) / free
    bias = fitted[count:] - fitted[count:].mean()
    centre = np.eye(count) - 1 / count
    chance = noise * np.trace(centre @ spread[count:, count:] @ centre)
    known: np.ndarray = bias * max(0.0, 1 - chance / max(float(bias @ bias), np.finfo(float).tiny))
    return known


def choose(scores: Float[np.ndarray, " region"], margin: float) -> Attribution:
    """The region with the best score, None if its lead over the second is below `margin`."""
    if not np.isfinite(scores).all():
        return Failed("the model's scores are not finite numbers")
    if len(scores) < 2:
        return None
    second, best = np.argsort(scores)[-2:]
    return int(best) if scores[best] - scores[second] >= margin else None


@jax.jit
def _read(model: Qwen3VL, images: Images, prompt: Prompt) -> tuple[Cache, Float[Array, "row embed"]]:
    """The question about every region, and the hidden state that predicts the first token of an answer."""
    output = model(prompt, model.encode(images))
    return output.cache, output.hidden[:, -1]


@jax.jit
def _follow(
    model: Qwen3VL,
    cache: Cache,
    hidden: Float[Array, "row embed"],
    ids: Int32[Array, "text row token"],
    length: Int32[Array, "text row"],
) -> Float32[Array, "text row"]:
    """Mean log-probability of each text's first `length` tokens; 0 for none."""
    forked = cache.fork(1, ids.shape[2] - 1)

    def score(text: tuple[Array, Array]) -> Float32[Array, " row"]:
        ids, length = text
        # Padding stands after the text, where nothing that counts can see it.
        later = model.extend(ids[:, :-1], forked).hidden
        logs = lax.map(token_logs, (jnp.concatenate([hidden[:, None], later], axis=1), ids))
        counts = jnp.arange(ids.shape[1])[None, :] < length[:, None]
        return jnp.sum(logs, axis=1, where=counts) / jnp.maximum(length, 1).astype(jnp.float32)

    def token_logs(row: tuple[Array, Array]) -> Float32[Array, " token"]:
        # Row by row, as the scores of a large vocabulary for all rows at once would fill the memory.
        hidden, ids = row
        logs = jax.nn.log_softmax(model.logits(hidden).astype(jnp.float32))
        return jnp.take_along_axis(logs, ids[:, None], axis=1)[:, 0]

    scores: Array = lax.map(score, (ids, length))
    return scores


def _captions(picture: Picture) -> list[str]:
    """A caption for every region, or none."""
    captions = [caption.strip() for caption in picture.captions]
    return captions if all(captions) and len(captions) == len(picture) else []


def _groups(pictures: Sequence[Picture], rows: int) -> Iterator[list[int]]:
    """Numbers of successive pictures that have at most `rows` regions together, or of one that has more."""
    group: list[int] = []
    used = 0
    for number, picture in enumerate(pictures):
        if group and used + len(picture) > rows:
            yield group
            group, used = [], 0
        group.append(number)
        used += len(picture)
    if group:
        yield group


def _padded(
    tokens: Sequence[Sequence[Tokens]],
) -> tuple[Int32[np.ndarray, "text picture token"], Int32[np.ndarray, "text picture"]]:
    """Texts of every picture, padded with empty ones to the same number and on the right to the same length."""
    longest = max((len(row) for rows in tokens for row in rows), default=0)
    count, room = _up(max(map(len, tokens)), TEXTS), _up(longest, TOKENS)
    ids, length = np.zeros((count, len(tokens), room), np.int32), np.zeros((count, len(tokens)), np.int32)
    for picture, rows in enumerate(tokens):
        for text, row in enumerate(rows):
            ids[text, picture, : len(row)] = row
            length[text, picture] = len(row)
    return ids, length


def _up(number: int, step: int) -> int:
    """The next positive multiple of `step`."""
    return max(-(-number // step), 1) * step


def _roomy(patches: int) -> int:
    """At most a quarter more, so that few different numbers remain."""
    return _up(patches, 1 << max(patches.bit_length() - 3, 2))
