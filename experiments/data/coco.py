"""Photographs with boxes, read from COCO's own files, and a judge of the names that a model gives to objects."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import click
import numpy as np

from experiments.data.sources import natural
from experiments.data.synonyms import SYNONYMS
from gaze.pictures.regions import Box, Pixels
from gaze.pictures.strips import Photo
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import open_image

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = get_args(Size)
SMALL, LARGE = 32**2, 96**2
"""COCO's bounds of the area of an object: medium from 32 x 32 pixels, large from 96 x 96."""
MIN_BOX_AREA = 750
"""Pixels of the smallest box that the paper (arXiv 2606.14703) steers to."""
KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


@dataclass
class Coco:
    """What was read of an annotation file.

    Attributes:
      photos: pictures with at least one object; regions are the objects' boxes, captions the names of their categories.
      sizes: the size class of each region of each photo, by the area of its annotation.
      skipped: pictures and objects that could not be used, each with the reason.
      below: objects left out because their boxes are too small.
      crowds: objects left out because their boxes are around several ("iscrowd").
      empty: pictures left out because no object remained.
    """

    photos: list[Photo] = field(default_factory=list)
    sizes: list[tuple[Size, ...]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    below: int = 0
    crowds: int = 0
    empty: int = 0

    def skip(self, name: str, reason: str) -> None:
        """Names on stderr what cannot be used, and keeps it."""
        self.skipped.append((name, reason))
        click.echo(f"skipped {name}: {reason}", err=True)


def read_coco(
    annotations: Path, images: Path, min_box_area: Pixels = MIN_BOX_AREA, limit: int | None = None, seed: int = 0
) -> Coco:
    """Photos with the boxes of their objects, in a seeded order that `limit` cuts off.

    Args:
      annotations: an "instances" file, such as `instances_val2017.json`.
      images: the folder of the pictures, such as `val2017`.
      min_box_area: width x height in pixels of the smallest box to keep.
      limit: how many photos at most; a picture that is missing or unreadable is named, and the next takes its place.

    All photos are held in memory, about 1 MB each. Raises InputError for an annotation file that is not COCO's, for a
    missing folder, and if nothing is left.
    """
    index = _index(annotations)
    if not images.is_dir():
        raise InputError(f"there is no folder {images}: give the one that holds the pictures of {annotations}")
    entries = sorted(index.dataset["images"], key=lambda entry: natural(entry["file_name"]))
    found = Coco()
    for number in np.random.default_rng(seed).permutation(len(entries)):
        if len(found.photos) == limit:
            break
        _add(found, index, entries[number], images, min_box_area)
    if not found.photos:
        raise InputError(f"no picture of {annotations} with an object of {min_box_area:g} pixels was found in {images}")
    return found


def size_class(area: Pixels) -> Size:
    """COCO's class of an object that covers so many pixels."""
    return SIZES[(area >= SMALL) + (area >= LARGE)]


def names_object(text: str, categories: Sequence[str], synonyms: Mapping[str, Sequence[str]] = SYNONYMS) -> int | None:
    """Index of the category that a text mentions first, in whole words, any case, singular or plural; None if none.

    A word inside a longer known name does not count: a hot dog is no dog. Of equal categories the first counts.

    Args:
      categories: the names that may be meant, such as the captions of a photo.
      synonyms: other words for categories; what they say of names that are not among `categories` only rules words out.
    """
    index = {_plain(category): place for place, category in reversed(list(enumerate(categories)))}
    meant = {
        **_meanings(tuple((name, *words) for name, words in synonyms.items())),
        **_meanings(tuple((name,) for name in index)),
    }
    return next((index[name] for name in _mentions(_plain(text).split(), meant) if name in index), None)


def _index(annotations: Path) -> Any:
    """The file as pycocotools' COCO, whose chatter on stdout is kept quiet."""
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise InputError("reading COCO needs the extra `coco`: pip install 'gaze-jax[coco]'") from None
    wrong = f"{annotations} is not an instances file of COCO"
    try:
        with redirect_stdout(io.StringIO()):
            index = COCO(str(annotations))
        lacking = [key for part, keys in KEYS.items() for key in keys for one in index.dataset[part] if key not in one]
    except OSError as error:
        raise InputError(f"{annotations} cannot be read ({error.strerror}): give an instances file of COCO") from None
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{wrong} ({error!r}): give one such as instances_val2017.json") from None
    if lacking:
        raise InputError(f"{wrong}, `{lacking[0]}` is missing: give one such as instances_val2017.json")
    return index


def _add(found: Coco, index: Any, entry: Mapping[str, Any], images: Path, min_box_area: Pixels) -> None:
    """One picture and its objects, if they can be used."""
    name = _name(entry)
    objects = [one for one in index.imgToAnns[entry["id"]] if _usable(found, index, entry, one, min_box_area)]
    if not objects:
        found.empty += 1
        return
    try:
        image = open_image(images / entry["file_name"])
    except InputError as error:
        return found.skip(name, str(error))
    if image.size != (entry["width"], entry["height"]):
        said = f"{entry['width']} x {entry['height']}"
        return found.skip(name, f"it has {image.width} x {image.height} pixels, but its annotations say {said}")
    boxes = tuple(_within(_box(one), image.size) for one in objects)
    captions = tuple(index.cats[one["category_id"]]["name"] for one in objects)
    found.photos.append(Photo(name, image, boxes, captions))
    found.sizes.append(tuple(size_class(one["area"]) for one in objects))


def _usable(found: Coco, index: Any, entry: Mapping[str, Any], one: Mapping[str, Any], min_box_area: Pixels) -> bool:
    """Whether an object can be steered to; if not, it is counted or named."""
    if one.get("iscrowd"):
        found.crowds += 1
        return False
    fault = _fault(index, entry, one)
    if fault:
        found.skip(f"object {one['id']} of {_name(entry)}", fault)
        return False
    left, top, right, bottom = _box(one)
    small = (right - left) * (bottom - top) < min_box_area
    found.below += small
    return not small


def _fault(index: Any, entry: Mapping[str, Any], one: Mapping[str, Any]) -> str | None:
    """What is wrong with an object, if anything is."""
    numbers = one["bbox"]
    if not isinstance(numbers, list) or [isinstance(number, int | float) for number in numbers] != [True] * 4:
        return f"its box {numbers} is not four numbers"
    left, top, right, bottom = _box(one)
    if not (left < right and top < bottom):
        return f"its box {numbers} is empty"
    if not (left < entry["width"] and top < entry["height"] and right > 0 and bottom > 0):
        return f"its box {numbers} lies outside the picture"
    if one["category_id"] not in index.cats:
        return f"its category {one['category_id']} is not among the categories of the file"
    return None


def _name(entry: Mapping[str, Any]) -> str:
    return str(PurePosixPath(entry["file_name"]).with_suffix(""))


def _box(one: Mapping[str, Any]) -> Box:
    """Left, top, right, bottom of COCO's left, top, width, height."""
    left, top, width, height = one["bbox"]
    return left, top, left + width, top + height


def _within(box: Box, size: tuple[int, int]) -> Box:
    """What of a box lies in the picture: roundings reach over its edge."""
    left, top, right, bottom = box
    return max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])


@cache
def _meanings(groups: tuple[tuple[str, ...], ...]) -> dict[str, str]:
    """From each form of each word of a group to the first word, the name."""
    return {form: _plain(words[0]) for words in groups for word in words for form in _forms(_plain(word))}


def _forms(word: str) -> Iterator[str]:
    """The word and whatever its plural may look like."""
    yield from (word, f"{word}s", f"{word}es")
    for end, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves")):
        if word.endswith(end):
            yield word.removesuffix(end) + plural


def _mentions(words: Sequence[str], meant: Mapping[str, str]) -> Iterator[str]:
    """The names that a text mentions, in its order; of the known words that begin at one place the longest."""
    longest = max(form.count(" ") + 1 for form in meant)
    start = 0
    while start < len(words):
        phrases = [" ".join(words[start : start + length]) for length in range(longest, 0, -1)]
        known = next((phrase for phrase in phrases if phrase in meant), None)
        if known:
            yield meant[known]
        start += known.count(" ") + 1 if known else 1


def _plain(text: str) -> str:
    """Only the words, in lower case, one blank between two."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))
