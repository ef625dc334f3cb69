"""What is in COCO's pictures, by its files of instances and captions, for CHAIR."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from gaze.hallucination.chair import true_objects
from gaze.hallucination.chair_words import ChairRules
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json, reading, shown

INSTANCES, CAPTIONS = "instances", "captions"
HINT = "give a folder with files such as instances_val2014.json and captions_val2014.json"
MOST_BYTES = 2**31
BOTH = "give a file that lists both"

Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]


class ImageName(TypedDict):
    id: Id
    file_name: Name


class Thing(TypedDict):
    """An object of a picture."""

    image_id: Id
    category_id: Id


class Told(TypedDict):
    """A reference caption."""

    image_id: Id
    caption: str


class CategoryName(TypedDict):
    id: Id
    name: Name


class InstancesFile(TypedDict):
    images: list[ImageName]
    annotations: list[Thing]
    categories: list[CategoryName]


class CaptionsFile(TypedDict):
    images: list[ImageName]
    annotations: list[Told]


@dataclass(frozen=True)
class CocoTruth:
    """The objects of each picture by the name of its file.

    Attributes:
      untold: pictures without a reference caption, whose objects are those of the instances alone.
    """

    objects: Mapping[str, frozenset[str]]
    untold: int


def read_truth(folder: Path, rules: ChairRules) -> CocoTruth:
    """Reads all `instances*.json` and `captions*.json` of a folder, as the original reads those of train and val.

    Raises InputError that names the file for one that is not COCO's, that contradicts itself, or has a category that the
    rules do not know; and for a folder that lacks one of the two.
    """
    with reading(folder, "a folder of annotations", HINT):
        paths = {kind: sorted(folder.glob(f"{kind}*.json")) for kind in (INSTANCES, CAPTIONS)}
    for kind, found in paths.items():
        if not found:
            raise InputError(f"{folder} holds no {kind}*.json: {HINT}")
    categories: dict[str, set[str]] = {}
    captions: dict[str, list[str]] = {}
    for path in paths[INSTANCES]:
        _add_instances(path, categories, rules)
    for path in paths[CAPTIONS]:
        _add_captions(path, captions)
    objects = {name: true_objects(rules, sorted(named), captions.get(name, ())) for name, named in categories.items()}
    if not objects:
        raise InputError(f"{folder} describes no picture: {HINT}")
    return CocoTruth(objects, sum(not captions.get(name) for name in objects))


def _add_instances(path: Path, categories: dict[str, set[str]], rules: ChairRules) -> None:
    raw = read_json(path, "an instances file of COCO", InstancesFile, HINT, MOST_BYTES)
    names = _names(raw["images"], path)
    known = {one["id"]: one["name"] for one in raw["categories"]}
    if strange := next((name for name in known.values() if name not in rules.objects), None):
        raise InputError(f"{path} has a category {shown(strange)}: give annotations with COCO's 80 categories")
    for name in names.values():
        categories.setdefault(name, set())
    for one in raw["annotations"]:
        if one["image_id"] not in names or one["category_id"] not in known:
            raise InputError(f"{path} has an object of image {one['image_id']}, category {one['category_id']}: {BOTH}")
        categories[names[one["image_id"]]].add(known[one["category_id"]])


def _add_captions(path: Path, captions: dict[str, list[str]]) -> None:
    raw = read_json(path, "a captions file of COCO", CaptionsFile, HINT, MOST_BYTES)
    names = _names(raw["images"], path)
    for one in raw["annotations"]:
        if one["image_id"] not in names:
            raise InputError(f"{path} has a caption of image {one['image_id']}: {BOTH}")
        captions.setdefault(names[one["image_id"]], []).append(one["caption"])


def _names(images: list[ImageName], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for one in images:
        if names.setdefault(one["id"], one["file_name"]) != one["file_name"]:
            raise InputError(f"{path} has several images of the id {one['id']}: give each its own")
    if len({*names.values()}) < len(names):
        twice = next(name for name in names.values() if [*names.values()].count(name) > 1)
        raise InputError(f"{path} has several images of the name {shown(twice)}: give each its own")
    return names
