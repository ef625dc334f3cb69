"""Photographs with boxes, read from COCO's own files, and a judge of the names that a model gives to objects."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NotRequired, get_args

import click
import numpy as np
from PIL import Image
from pydantic import Field
from typing_extensions import TypedDict

from experiments.data.sources import natural
from experiments.data.synonyms import SYNONYMS
from gaze.pictures.regions import Box, Pixels
from gaze.pictures.strips import Photo
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.extras import extra
from qwen3vl_jax.files.read import read_json, reading, shown
from qwen3vl_jax.images import open_image, opened, orientation, upright_size

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = get_args(Size)
SMALL, LARGE = 32**2, 96**2
"""COCO's bounds of the area of an object: medium from 32 x 32 pixels, large from 96 x 96."""
MIN_BOX_AREA = 750
"""Pixels of the smallest box that the paper (arXiv 2606.14703) steers to."""
KIND, HINT = "an instances file of COCO", "give one such as instances_val2017.json"
MOST_BYTES = 2**31
"""Of an annotation file; that of train2017 has 450 million."""

Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Side = Annotated[int, Field(ge=1, lt=2**20)]
Place = Annotated[float, Field(gt=-(2**20), lt=2**20, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]


class ImageEntry(TypedDict):
    """A picture."""

    id: Id
    file_name: Text
    width: Side
    height: Side


class Annotation(TypedDict):
    """An object: `bbox` is left, top, width and height, `area` the pixels of its mask."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: Annotated[list[Place], Field(min_length=4, max_length=4)]
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    iscrowd: NotRequired[Literal[0, 1]]


class Category(TypedDict):
    id: Id
    name: Text


class Instances(TypedDict):
    """What is read of an annotation file."""

    images: list[ImageEntry]
    annotations: list[Annotation]
    categories: list[Category]


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

    All photos are held in memory, about 1 MB each. Raises InputError for an annotation file that is not COCO's, that
    contradicts itself or names pictures outside the folder; for a missing folder, and if nothing is left.
    """
    index = _index(annotations)
    with reading(images, "a folder of pictures"):
        there = images.is_dir()
    if not there:
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


def pycocotools() -> Any:
    """The module that reads COCO; InputError if it is not installed."""
    return extra("pycocotools.coco", "coco", "reading COCO")


def _index(annotations: Path) -> Any:
    """The file as pycocotools' COCO, whose chatter on stdout is kept quiet."""
    library = pycocotools()
    described = read_json(annotations, KIND, Instances, HINT, MOST_BYTES)
    _check(described, annotations)
    with redirect_stdout(io.StringIO()):
        index = library.COCO()
        index.dataset = described
        index.createIndex()
    return index


def _check(described: Instances, source: Path) -> None:
    """Raises InputError for what the types do not show: odd names and boxes, and entries that contradict each other."""
    images, things, categories = described["images"], described["annotations"], described["categories"]
    _require_once([entry["id"] for entry in images], f"{source} has several images of the id")
    _require_once([one["id"] for one in things], f"{source} has several annotations of the id")
    _require_once([category["id"] for category in categories], f"{source} has several categories of the id")
    for entry in images:
        _check_file_name(entry, source)
    # By its name a picture is known to whoever reads the answers.
    _require_once([_name(entry) for entry in images], f"{source} has several images of the name")
    for category in categories:
        if not _plain(category["name"]):
            named = f"category {category['id']} in {source} is called {shown(category['name'])}"
            raise InputError(f"{named}: give it a name of words")
    image_ids, category_ids = {entry["id"] for entry in images}, {category["id"] for category in categories}
    for one in things:
        which = f"annotation {one['id']} in {source}"
        if min(one["bbox"][2:]) < 0:
            raise InputError(f"{which} has the bbox {one['bbox']}: give left, top, width, height, no size below 0")
        if one["image_id"] not in image_ids:
            raise InputError(f"{which} has the image_id {one['image_id']}: give the id of an image in that file")
        if one["category_id"] not in category_ids:
            raise InputError(
                f"{which} has the category_id {one['category_id']}: give the id of a category in that file"
            )


def _check_file_name(entry: ImageEntry, source: Path) -> None:
    name, path = entry["file_name"], PurePosixPath(entry["file_name"])
    which = f"image {entry['id']} in {source} has the file_name {shown(name)}"
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{which}, which leads out of the folder of pictures: give the name of a file inside it")
    if not path.name or not name.isprintable():
        raise InputError(f"{which}, which is no name of a file: give one that can be printed")


def _require_once(values: Sequence[object], fault: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{fault} {shown(value)}: give each its own")
        seen.add(value)


def _add(found: Coco, index: Any, entry: ImageEntry, images: Path, min_box_area: Pixels) -> None:
    """One picture and its objects, if they can be used."""
    name = _name(entry)
    objects = [one for one in index.imgToAnns[entry["id"]] if _usable(found, entry, one, min_box_area)]
    if not objects:
        found.empty += 1
        return
    try:
        image = _annotated(entry, images)
    except InputError as error:
        return found.skip(name, str(error))
    boxes = tuple(_box(one, entry) for one in objects)
    captions = tuple(index.cats[one["category_id"]]["name"] for one in objects)
    found.photos.append(Photo(name, image, boxes, captions))
    found.sizes.append(tuple(size_class(one["area"]) for one in objects))


def _annotated(entry: ImageEntry, images: Path) -> Image.Image:
    """The picture as whoever drew the boxes saw it: upright or as its pixels are stored, which its size tells.

    Raises InputError for a picture that cannot be read, is kept outside the folder, is of another size, or is turned
    without a change of its size, so that nothing tells on which of the two the boxes were drawn.
    """
    path = images / entry["file_name"]
    with reading(path, "an image"):
        if not path.resolve().is_relative_to(images.resolve()):
            raise InputError(f"{path} is a link that leads out of {images}: put the picture there itself")
    with opened(path) as file:
        upright, turn = upright_size(file), orientation(file)
    stored = upright[::-1] if turn >= 5 else upright
    told = entry["width"], entry["height"]
    if told not in (stored, upright):
        raise InputError(
            f"{path} has {stored[0]} x {stored[1]} pixels, but its annotations say {told[0]} x {told[1]}: "
            "give the picture that was annotated"
        )
    if turn > 1 and stored == upright:
        raise InputError(
            f"{path} is turned by its EXIF (orientation {turn}), and its size does not tell whether its boxes are too: "
            "save it without that EXIF, as it was annotated"
        )
    return open_image(path, upright=told == upright)


def _usable(found: Coco, entry: ImageEntry, one: Annotation, min_box_area: Pixels) -> bool:
    """Whether an object can be steered to; if not, it is counted or named."""
    if one.get("iscrowd"):
        found.crowds += 1
        return False
    left, top, right, bottom = _box(one, entry)
    if not (left < right and top < bottom):
        found.skip(f"object {one['id']} of {_name(entry)}", f"its box {one['bbox']} holds nothing of the picture")
        return False
    small = (right - left) * (bottom - top) < min_box_area
    found.below += small
    return not small


def _name(entry: ImageEntry) -> str:
    return str(PurePosixPath(entry["file_name"]).with_suffix(""))


def _box(one: Annotation, entry: ImageEntry) -> Box:
    """Left, top, right, bottom of what lies in the picture: roundings reach over its edge."""
    left, top, width, height = one["bbox"]
    return max(left, 0), max(top, 0), min(left + width, entry["width"]), min(top + height, entry["height"])


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
