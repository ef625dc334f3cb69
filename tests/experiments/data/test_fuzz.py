"""Files of pictures with boxes and of comics, spoiled at random: what is read is a value or an InputError in one line."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.data.coco import read_coco
from experiments.data.comics import Comics, PanelFolders, RawPages
from qwen3vl_jax.errors import InputError

from ...spoiling import Edit, edits, fuzz, mutations, spoiled

Mutate = Callable[[Any], Any]


def box(left: float, top: float, width: float, height: float, number: int, image: int) -> dict[str, Any]:
    area = width * height
    return {"id": number, "image_id": image, "category_id": 18, "bbox": [left, top, width, height], "area": area}


INSTANCES = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in (1, 2)],
    "annotations": [box(3, 4, 40, 30, 1, 1), box(0, 0, 50.5, 33, 2, 2)],
    "categories": [{"id": 18, "name": "dog"}],
}
CAPTIONS = list("abcdef")
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val")
    for number in (1, 2):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg", exif=EXIF)
    (folder / "instances.json").write_text(json.dumps(INSTANCES))
    return folder


def read_photos(folder: Path) -> Sequence[str]:
    found = read_coco(folder / "instances.json", folder)
    for photo, sizes in zip(found.photos, found.sizes, strict=True):
        assert len(photo) == len(photo.captions) == len(sizes) >= 1
        for left, top, right, bottom in photo.boxes:
            assert 0 <= left < right <= photo.image.width
            assert 0 <= top < bottom <= photo.image.height
    assert all(why.isprintable() for _, why in found.skipped)
    return sorted(photo.name for photo in found.photos)


@pytest.fixture(scope="module")
def comics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("comics")
    for comic in ("listed", "texts"):
        (root / comic).mkdir()
        for number in range(1, 7):
            Image.new("RGB", (8 + number, 9), (number, 0, 0)).save(root / comic / f"p{number}.png")
    for number in range(1, 7):
        (root / "texts" / f"p{number}.txt").write_text("it is there")
    (root / "listed" / "captions.json").write_text(json.dumps(CAPTIONS))
    return root


def read_strip(collection: Comics, name: str) -> tuple[str, ...]:
    strip = collection.open(name)
    assert strip.image.size == strip.size
    assert len(strip) == 6
    assert len(strip.captions) in (0, 6)
    return strip.captions


def read_comic(folder: Path) -> tuple[str, ...]:
    return read_strip(PanelFolders(folder.parent), folder.name)


def test_the_sound_files_are_read(photos: Path, comics: Path) -> None:
    assert read_photos(photos) == ["1", "2"]
    assert read_comic(comics / "listed") == tuple(CAPTIONS)
    assert read_comic(comics / "texts") == ("it is there",) * 6


@fuzz(80, nightly=3_000)
@given(mutations())
def test_annotations_of_other_values(photos: Path, mutate: Mutate) -> None:
    spoiled(photos, photos / "instances.json", lambda raw: json.dumps(mutate(json.loads(raw))).encode(), read_photos)


@fuzz(120, nightly=3_000)
@given(edits())
def test_annotations_of_other_bytes(photos: Path, edit: Edit) -> None:
    spoiled(photos, photos / "instances.json", edit, read_photos)


@fuzz(120, nightly=3_000)
@given(st.sampled_from(["1.jpg", "2.jpg"]), edits())
def test_photos_of_other_bytes(photos: Path, name: str, edit: Edit) -> None:
    spoiled(photos, photos / name, edit, read_photos)


@fuzz(120, nightly=3_000)
@given(mutations(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_captions_of_other_values(comics: Path, mutate: Mutate, encoding: str) -> None:
    comic = comics / "listed"
    spoiled(
        comic, comic / "captions.json", lambda raw: json.dumps(mutate(json.loads(raw))).encode(encoding), read_comic
    )


@fuzz(120, nightly=4_000)
@given(st.integers(0), edits())
def test_any_byte_of_a_comic(comics: Path, number: int, edit: Edit) -> None:
    paths = sorted(path for path in comics.rglob("*") if path.is_file())
    path = paths[number % len(paths)]
    spoiled(path.parent, path, edit, read_comic)


NAMES = st.from_regex(r"0{0,2}[0-3]_[0-9]\.(png|PNG|jpg|webp|txt)|[\w٣ .-]{1,9}", fullmatch=True)


@fuzz(40, nightly=1_500)
@given(
    st.dictionaries(NAMES.filter(lambda name: name.strip(".")), st.none() | edits(), max_size=8),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_pages_of_other_names_and_bytes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, Edit | None], seed: int, wanted: int
) -> None:
    root = tmp_path_factory.mktemp("raw")
    (root / "comic").mkdir()
    for number in range(8):
        Image.new("RGB", (4, 5), (number, 0, 0)).save(root / "comic" / f"1_{number}.png")
    known = (root / "comic" / "1_1.png").read_bytes()
    for name, edit in files.items():
        (root / "comic" / name).write_bytes(edit(known) if edit else known)
    collection = RawPages(root, seed, wanted)
    for name in collection.names:
        with suppress(InputError):
            read_strip(collection, name)
