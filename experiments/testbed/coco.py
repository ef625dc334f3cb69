"""The testbed's pictures without panels as files of COCO: what reads the one reads the other."""

from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.testbed.scattered import Draw, DrawnObject, draw_held_out
from experiments.testbed.scenes import COLOURS
from experiments.testbed.shapes import SHAPES
from qwen3vl_jax.files.write import write_json

CATEGORIES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def write_coco(folder: Path, seed: int, count: int, draw: Draw = draw_held_out) -> tuple[Path, Path]:
    """Draws `count` pictures into a new or empty folder; a category is a colour and a shape.

    Returns:
      The annotations (`instances.json`) and the folder of the pictures (`images`), what `read_coco` takes.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids = numbers(1)
    for number in range(count):
        image, things = draw(np.random.default_rng([seed, number, *b"coco"]))
        entries.append(_entry(number + 1, image))
        annotations += [_annotation(next(ids), number + 1, thing) for thing in things]
        image.save(images / entries[-1]["file_name"])
    categories = [{"id": place, "name": name} for place, name in enumerate(CATEGORIES, start=1)]
    described = {"images": entries, "annotations": annotations, "categories": categories}
    path = folder / "instances.json"
    write_json(path, described)
    return path, images


def _entry(number: int, image: Image.Image) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:06}.png", "width": image.width, "height": image.height}


def _annotation(number: int, image: int, thing: DrawnObject) -> dict[str, Any]:
    left, top, right, bottom = thing.box
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORIES.index(f"{thing.colour} {thing.shape}") + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": thing.area,
        "iscrowd": 0,
    }
