"""Letter probes: strips whose panels carry letters, and questions whose whole answer is the letter of one panel.

The panel is named by its place in a reading order: from left to right, in reverse, or in an order that the question spells
out. The answer is one token, so everything about it is read from one pass over the last prompt token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int, Int32

from experiments.paper.layer_steering.panel_labels import LETTERS, label_panels
from gaze.discovery.scores import split
from gaze.pictures.strips import Strip
from gaze.prompts import LETTER, ORDER_PREFIX, REVERSE_PREFIX, fill, prefixed
from gaze.steering.steering_vectors import Begun, begin, letter_tokens, observe, sweep
from qwen3vl_jax.images import smart_resize
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of

Order = tuple[int, ...]
"""Panels from 0 in the order in which they are read."""

ROWS, STRIPS = 72, 24
"""Questions that are asked at once, the six of twelve strips or the three of 24, and strips at most."""


@dataclass(frozen=True)
class Probes:
    """Strips with one number of panels.

    Attributes:
      letters: what stands on each panel, as a place among the letters; all different within a strip.
    """

    strips: list[Strip]
    letters: Int[np.ndarray, "strip panel"]

    def expected(self, order: Order) -> Int[np.ndarray, "strip place"]:
        """The letter that is right for each place in a reading order."""
        return self.letters[:, list(order)]


@dataclass(frozen=True)
class Asked:
    """What was said to the questions about some strips.

    Attributes:
      token: the likeliest first token of the answer.
      scores: logits of the letters.
    """

    token: Int32[np.ndarray, "*band strip place"]
    scores: Float32[np.ndarray, "*band strip place letter"]


@dataclass(frozen=True)
class Prober:
    """A model that is asked for letters; all it is asked has the same shape, so that little is compiled.

    Attributes:
      tokens: of the letters.
      text, ending: room for the text of any prompt, and for what follows where the questions about a strip part.
      patches: room for any picture.
    """

    model: Qwen3VL
    processor: Processor
    tokens: Int32[np.ndarray, " letter"]
    text: int
    ending: int
    patches: int

    @classmethod
    def make(
        cls,
        model: Qwen3VL,
        processor: Processor,
        kinds: Sequence[Sequence[str]],
        strips: Sequence[Strip],
        letters: str = LETTERS,
    ) -> "Prober":
        """Returns one with room for these kinds of questions, one kind at a time, and pictures of these sizes or smaller.

        Raises InputError if a letter is not one token.
        """
        spelled = [[processor.tokenizer(processor.chat(text))["input_ids"] for text in kind] for kind in kinds]
        text = max(len(tokens) for kind in spelled for tokens in kind)
        how = processor.settings
        sizes = {strip.size for strip in strips}
        resized = [smart_resize(high, wide, how.factor, how.min_pixels, how.max_pixels) for wide, high in sizes]
        patches = max(high * wide for high, wide in resized) // how.patch_size**2
        tokens = letter_tokens(processor.tokenizer, letters)
        return cls(model, processor, tokens, text, max(map(_ending, spelled)), patches)

    def observe(
        self, strips: Sequence[Strip], questions: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "strip place layer embed"], Asked]:
        """The stream of the last prompt token of every question, and what the model left alone says."""
        streams, replies = [], []
        for count, begun in self.begun(strips, questions):
            stream, reply = fetch(observe(self.model, begun, self.tokens))
            streams.append(_by_strip(stream, len(questions))[:count])
            replies.append([_by_strip(leaf, len(questions))[:count] for leaf in (reply.token, reply.scores)])
        return np.concatenate(streams), Asked(*map(np.concatenate, zip(*replies, strict=True)))

    def push(
        self,
        strips: Sequence[Strip],
        questions: Sequence[str],
        directions: Float32[np.ndarray, "direction layer #place embed"],
        bands: Float32[np.ndarray, "band layer"],
        alpha: float = 1.0,
    ) -> list[Asked]:
        """For each direction what is said when it is added after the layers of each band.

        Directions may differ by question.
        """
        found: list[list[Asked]] = [[] for _ in directions]
        for count, begun in self.begun(strips, questions):
            copies = len(begun.last) // directions.shape[2]
            for vectors, parts in zip(directions, found, strict=True):
                rows = np.tile(vectors, (1, copies, 1))
                reply = fetch(sweep(self.model, begun, rows, bands, np.array(alpha, np.float32), self.tokens))
                token, scores = (
                    np.stack([_by_strip(band, len(questions))[:count] for band in leaf])
                    for leaf in (reply.token, reply.scores)
                )
                parts.append(Asked(token, scores))
        return [
            Asked(
                *(np.concatenate(leaves, axis=1) for leaves in zip(*((p.token, p.scores) for p in parts), strict=True))
            )
            for parts in found
        ]

    def begun(
        self, strips: Sequence[Strip], questions: Sequence[str], at_once: int | None = None
    ) -> Iterator[tuple[int, Begun]]:
        """All questions about some strips at a time, in batches of one shape, and how many of their strips count.

        Few strips are filled up too, unless `at_once` says how many to take: what has one shape is compiled once.
        """
        size = at_once or max(1, min(ROWS // len(questions), STRIPS))
        texts = [self.processor.chat(question) for question in questions]
        cells = self.patches // self.processor.settings.merge_size**2
        for start in range(0, len(strips), size):
            some = [strip.image for strip in strips[start : start + size]]
            images = some + [some[-1]] * (size - len(some))
            shown = [[number] for number in range(size) for _ in texts]
            asked = self.processor(texts * size, shown, patches=self.patches, pictures=images)
            prefix, endings = split(asked.prompt, size, self.text + cells, self.ending)
            yield len(some), begin(self.model, *across((asked.images, prefix, endings), mesh_of(self.model)))


def probes(strips: Sequence[Strip], panels: int, seed: int, letters: str = LETTERS) -> Probes:
    """Returns the first `panels` panels of each strip, each with a random letter of its own."""
    drawn = np.stack([_draw(strip.name, panels, seed, letters) for strip in strips])
    names = [[letters[letter] for letter in row] for row in drawn]
    return Probes([label_panels(first(s, panels), row) for s, row in zip(strips, names, strict=True)], drawn)


def first(strip: Strip, panels: int) -> Strip:
    """Returns a strip without the panels after the first few."""
    widths = strip.widths[:panels]
    image = strip.image.crop((0, 0, sum(widths), strip.image.height))
    return Strip(strip.name, image, widths, strip.captions[:panels])


def forward(panels: int) -> Order:
    return tuple(range(panels))


def backward(panels: int) -> Order:
    return tuple(reversed(range(panels)))


def other_orders(panels: int, count: int, seed: int) -> list[Order]:
    """`count` different orders other than from left to right and its reverse, or all that there are."""
    rng = np.random.default_rng([seed, panels, count])
    known = (forward(panels), backward(panels))
    most = int(np.prod(np.arange(1, panels + 1))) - len(known)
    orders: dict[Order, None] = {}
    while len(orders) < min(count, most):
        order = tuple(rng.permutation(panels).tolist())
        if order not in known:
            orders[order] = None
    return [*orders]


def questions(order: Order, template: str = LETTER) -> list[str]:
    """The question for each place in a reading order."""
    asked = [fill(template, place, len(order)) for place in range(len(order))]
    if all(left < right for left, right in pairwise(order)):
        return asked
    reverse = order == backward(len(order))
    prefix = REVERSE_PREFIX if reverse else ORDER_PREFIX.format(order=", ".join(str(panel + 1) for panel in order))
    return [prefixed(prefix, question) for question in asked]


def _draw(name: str, panels: int, seed: int, letters: str) -> Int[np.ndarray, " panel"]:
    return np.random.default_rng([seed, panels, *name.encode()]).permutation(len(letters))[:panels]


def _ending(kind: Sequence[Sequence[int]]) -> int:
    """The longest of some token rows after what they share, at least one token."""
    shortest = min(map(len, kind)) - 1
    shared = next((n for n in range(shortest) if len({row[n] for row in kind}) > 1), shortest)
    return max(map(len, kind)) - shared


def _by_strip(rows: np.ndarray, questions: int) -> np.ndarray:
    """Rows of all questions about the first strip, then all about the next, ..., with an axis for each."""
    return rows.reshape(-1, questions, *rows.shape[1:])
