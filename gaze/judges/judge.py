"""Which region of a picture does a text describe? What a judge is, two that need no model, and how judges are judged."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from PIL import Image

from gaze.pictures.strips import Photo, Picture, Strip, wordings
from qwen3vl_jax.errors import InputError

LEAST_ACCURACY, LEAST_PER_PANEL = 0.9, 0.8
"""What a judge must get right of the true captions, over all and of each panel, before its verdicts count."""


@dataclass(frozen=True)
class Item:
    """A text to be attributed.

    Attributes:
      baseline: the unsteered answer to the same question, for judges that are shown it.
    """

    picture: Picture
    text: str
    baseline: str | None = None


@dataclass(frozen=True)
class Failed:
    """The judge came to no verdict, and why: nothing to be saved, the item is to be asked again."""

    reason: str


Attribution = int | None | Failed
"""The region that a text describes, from 0; None if it describes none in particular."""


@runtime_checkable
class Judge(Protocol):
    """Says which region each text describes; raises nothing on account of a single item, see `Failed`."""

    @property
    def name(self) -> str:
        """The kind of judge, and its model if that is another's: "exact", "likelihood", "chat:MODEL"."""

    @property
    def version(self) -> str:
        """Twelve hex digits over all that a verdict depends on beside its item: prompt, constants, weights."""

    def __call__(self, items: Sequence[Item]) -> list[Attribution]: ...


def digest(*parts: object) -> str:
    """Twelve hex digits that change with any of some plain values (numbers, strings, tuples of them)."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def judge_exact(text: str, captions: Sequence[str]) -> int | None:
    """Index of the one caption that the text is, in one of its `wordings`; None if it is none or several."""
    matches = [index for index, caption in enumerate(captions) if text.strip() in wordings(caption)]
    return matches[0] if len(matches) == 1 else None


def judge_first(text: str, captions: Sequence[str]) -> int | None:
    """Index of the caption that occurs first in a longer text, in whole words and one of its `wordings`; None if none does.

    Where two start at the same place the longer one counts; None if they are equal.
    """
    places = []
    for index, caption in enumerate(captions):
        found = [re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text) for one in wordings(caption)]
        places += [(one.start(), -len(one.group()), index) for one in found if one]
    places.sort()
    first = {index for start, length, index in places if (start, length) == places[0][:2]}
    return first.pop() if len(first) == 1 else None


@dataclass(frozen=True)
class Lexical:
    """A judge that compares a text with the captions of its picture and needs nothing else.

    Raises InputError for a picture without captions.
    """

    name: str
    version: str
    rule: Callable[[str, Sequence[str]], int | None]

    def __call__(self, items: Sequence[Item]) -> list[Attribution]:
        return [self.rule(item.text, known_captions(item.picture)) for item in items]


def Exact() -> Lexical:
    """`judge_exact` of the whole text: for models that repeat captions word for word, such as the testbed."""
    return Lexical("exact", digest("exact", 1), judge_exact)


def First() -> Lexical:
    """`judge_first`: for longer texts that begin with, or lead up to, a caption."""
    return Lexical("first", digest("first", 1), judge_first)


def known_captions(picture: Picture) -> tuple[str, ...]:
    """One caption per region. Raises InputError if the picture has none."""
    if len(picture.captions) != len(picture):
        raise InputError(
            f"{picture.name} has {len(picture)} regions and {len(picture.captions)} captions: give one for each region"
        )
    return picture.captions


@dataclass(frozen=True)
class Calibration:
    """How well a judge knows the true captions; a caption without a verdict, for whatever reason, is not known.

    Attributes:
      captions: how many it was shown, in either order.
      accuracy, per_panel: share of captions attributed to their own region.
      picks: how often each region was named, whatever was right.
      abstained, failed: captions that it attributed to no region, and on which it failed; in the given order.
      shuffled_accuracy: with the regions of every picture in another order; a judge with a favourite place falls here.
      strangers: share of the next picture's captions that it attributes to some region nevertheless, None for a single
        picture; what chance can add to every share of hits is this over the number of regions.
      passed: whether the three are at least `LEAST_ACCURACY`, `LEAST_PER_PANEL` (of each) and `LEAST_ACCURACY`.
    """

    captions: int
    accuracy: float
    per_panel: tuple[float, ...]
    picks: tuple[int, ...]
    abstained: int
    failed: int
    shuffled_accuracy: float
    strangers: float | None
    passed: bool


def calibrate(judge: Judge, pictures: Sequence[Picture], seed: int = 0) -> Calibration:
    """Shows a judge captions whose region is known. Tells little of judges that themselves look at the captions.

    Captions that are empty, or that two regions of a picture share, are left out. The other order of a picture depends
    on `seed` and its name only, and leaves no region in its place.

    Raises InputError if a picture lacks captions or some place has none that can be used.
    """
    items, truth = _true_captions(pictures)
    asked = np.bincount(truth, minlength=max(map(len, pictures), default=0))
    if not asked.all() or not asked.size:
        raise InputError(
            "the calibration of a judge needs a caption, not shared by two regions, at every place: give more"
        )
    verdicts = judge(items)
    right = _right(verdicts, truth)
    per_panel = np.bincount(truth, weights=right) / asked
    named = [verdict for verdict in verdicts if isinstance(verdict, int)]
    moved, moved_truth = _true_captions([reorder(picture, _other_order(picture, seed)) for picture in pictures])
    accuracy, shuffled = float(right.mean()), float(_right(judge(moved), moved_truth).mean())
    return Calibration(
        captions=len(items),
        accuracy=accuracy,
        per_panel=tuple(per_panel.tolist()),
        picks=tuple(np.bincount(named, minlength=len(asked)).tolist()),
        abstained=sum(verdict is None for verdict in verdicts),
        failed=sum(isinstance(verdict, Failed) for verdict in verdicts),
        shuffled_accuracy=shuffled,
        strangers=_strangers(judge, pictures),
        passed=bool(min(accuracy, shuffled) >= LEAST_ACCURACY and per_panel.min() >= LEAST_PER_PANEL),
    )


def agreement(first: Sequence[Attribution], second: Sequence[Attribution]) -> float | None:
    """Cohen's kappa between two judges on the same items; "none in particular" is a verdict like the others.

    Items on which a judge failed are left out. None where kappa is undefined: without items, or if both judges give
    one and the same verdict to all.
    """
    both = [(one, two) for one, two in zip(first, second, strict=True) if not _any_failed(one, two)]
    kinds = {verdict for pair in both for verdict in pair}
    if len(kinds) < 2:
        return None
    shares = [[sum(pair[side] == kind for pair in both) / len(both) for side in (0, 1)] for kind in kinds]
    observed, chance = sum(one == two for one, two in both) / len(both), sum(one * two for one, two in shares)
    return (observed - chance) / (1 - chance)


def reorder(picture: Picture, order: Sequence[int]) -> Picture:
    """The same picture with other places: at place k comes what was region `order[k]`.

    The panels of a strip move; the boxes of a photo are only numbered anew.
    """
    name = f"{picture.name} as {','.join(str(region + 1) for region in order)}"
    captions = tuple(picture.captions[region] for region in order) if picture.captions else ()
    if isinstance(picture, Photo):
        return replace(picture, name=name, boxes=tuple(picture.boxes[region] for region in order), captions=captions)
    image, left = Image.new(picture.image.mode, picture.image.size), 0
    for region in order:
        panel = picture.crop(region)
        image.paste(panel, (left, 0))
        left += panel.width
    return Strip(name, image, tuple(picture.crop(region).width for region in order), captions)


def _true_captions(pictures: Sequence[Picture]) -> tuple[list[Item], list[int]]:
    """Every caption that belongs to one region of its picture, and the region."""
    found = []
    for picture in pictures:
        captions = [caption.strip() for caption in known_captions(picture)]
        found += [
            (Item(picture, caption), region)
            for region, caption in enumerate(captions)
            if caption and captions.count(caption) == 1
        ]
    return [item for item, _ in found], [region for _, region in found]


def _strangers(judge: Judge, pictures: Sequence[Picture]) -> float | None:
    """How often captions of the next picture, unless this one has them too, are attributed."""
    following = [*pictures[1:], *pictures[:1]]
    items = [
        Item(picture, caption)
        for picture, other in zip(pictures, following, strict=True)
        for caption in known_captions(other)
        if caption.strip() and caption not in picture.captions
    ]
    return float(np.mean([isinstance(verdict, int) for verdict in judge(items)])) if items else None


def _other_order(picture: Picture, seed: int) -> list[int]:
    rng = np.random.default_rng([seed, *picture.name.encode()])
    stay = np.arange(len(picture))
    order = stay
    while len(stay) > 1 and (order == stay).any():
        order = rng.permutation(stay)
    return [int(region) for region in order]


def _right(verdicts: Sequence[Attribution], truth: Sequence[int]) -> Bool[np.ndarray, " item"]:
    return np.array([verdict == region for verdict, region in zip(verdicts, truth, strict=True)], bool)


def _any_failed(*verdicts: Attribution) -> bool:
    return any(isinstance(verdict, Failed) for verdict in verdicts)
