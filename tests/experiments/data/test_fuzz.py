"""Files of pictures with boxes and of comics, spoiled at random: what is read is a value or an InputError in one line."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments.data.coco import Coco, read_coco
from experiments.data.comics import PanelFolders, RawPages
from gaze.pictures.strips import Strip
from qwen3vl_jax.errors import InputError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([-1, 0, 2**31, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf")])
)
NAMES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["../1.jpg", "/1.jpg", "", ".", "1.jpg/", "2.jpg", "a\0", "\ud800", "9" * 5000]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def put(value, path, new):
    """A JSON value with another one at a place; `...` takes away what is there."""
    if not path:
        return {} if new is ... else new
    (key, *rest), items = path, dict(enumerate(value)) if isinstance(value, list) else dict(value)
    if new is ... and not rest:
        del items[key]
    else:
        items[key] = put(items[key], rest, new)
    return [*items.values()] if isinstance(value, list) else items


def spoiled(data, content):
    """Bytes of a file with some of them changed, taken away or put in."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        changed[place : place + data.draw(st.sampled_from([0, 1, 1, 1, 4, 10_000]))] = data.draw(st.binary(max_size=4))
    return bytes(changed)


def outcome(read):
    """What is read, or the sentence that says why not."""
    try:
        return read()
    except InputError as error:
        said = str(error)
    assert said.isprintable()
    return said


def box(left, top, width, height, number, image):
    area = width * height
    return {"id": number, "image_id": image, "category_id": 18, "bbox": [left, top, width, height], "area": area}


INSTANCES = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in (1, 2)],
    "annotations": [box(3, 4, 40, 30, 1, 1), box(0, 0, 50.5, 33, 2, 2)],
    "categories": [{"id": 18, "name": "dog"}],
}
CAPTIONS = list("abcdef")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("val")
    for number in (1, 2):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)).save(
            folder / f"{number}.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"
        )
    return folder


def check_photos(found):
    if isinstance(found, str):
        return
    assert isinstance(found, Coco)
    for photo, sizes in zip(found.photos, found.sizes, strict=True):
        assert len(photo) == len(photo.captions) == len(sizes) >= 1
        for left, top, right, bottom in photo.boxes:
            assert 0 <= left < right <= photo.image.width
            assert 0 <= top < bottom <= photo.image.height


def read_instances(content, photos):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instances.json")
        path.write_bytes(content)
        return outcome(lambda: read_coco(path, photos))


def test_the_sound_files_are_read(photos, tmp_path):
    found = read_instances(json.dumps(INSTANCES).encode(), photos)
    assert sorted(photo.name for photo in found.photos) == ["1", "2"]
    assert found.skipped == []
    write_panels(tmp_path / "comic1")
    assert PanelFolders(tmp_path).open("comic1").captions == tuple(CAPTIONS)


@QUICK
@given(st.data())
def test_annotations_of_other_values(photos, data):
    content = INSTANCES
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from([*places(content)]))
        content = put(content, where, data.draw(st.just(...) | VALUES))
    check_photos(read_instances(json.dumps(content).encode(), photos))


@QUICK
@given(st.data())
def test_annotations_of_other_bytes(photos, data):
    check_photos(read_instances(spoiled(data, json.dumps(INSTANCES).encode()), photos))


@QUICK
@given(st.data())
def test_photos_of_other_bytes(photos, data):
    with tempfile.TemporaryDirectory() as folder:
        for path in photos.iterdir():
            Path(folder, path.name).write_bytes(spoiled(data, path.read_bytes()))
        check_photos(read_instances(json.dumps(INSTANCES).encode(), Path(folder)))


def write_panels(folder):
    folder.mkdir()
    for number in range(1, 7):
        Image.new("RGB", (8 + number, 9), (number, 0, 0)).save(folder / f"p{number}.png")
    (folder / "captions.json").write_text(json.dumps(CAPTIONS))


def check_strip(found):
    if not isinstance(found, str):
        assert isinstance(found, Strip)
        assert len(found) == 6
        assert len(found.captions) in (0, 6)
        assert found.image.size == found.size


@pytest.fixture(scope="module")
def comics(tmp_path_factory):
    root = tmp_path_factory.mktemp("comics")
    write_panels(root / "comic1")
    return root


def read_strip(collection, name):
    def read():
        strip = collection.open(name)
        strip.image.load()
        return strip

    return outcome(read)


@QUICK
@given(st.data())
def test_captions_of_other_values_and_bytes(comics, data):
    changed = put(CAPTIONS, data.draw(st.sampled_from([*places(CAPTIONS)])), data.draw(st.just(...) | VALUES))
    content = json.dumps(changed).encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    path = comics / "comic1" / "captions.json"
    path.write_bytes(spoiled(data, content) if data.draw(st.booleans()) else content)
    check_strip(read_strip(PanelFolders(comics), "comic1"))


@QUICK
@given(st.data())
def test_pages_of_other_names_and_bytes(data):
    names = st.from_regex(r"0{0,2}[0-3]_[0-9]\.(png|PNG|jpg|webp|txt)|[\w٣ .-]{1,9}", fullmatch=True)
    with tempfile.TemporaryDirectory() as folder:
        comic = Path(folder, "comic")
        comic.mkdir()
        for number in range(8):
            Image.new("RGB", (4, 5), (number, 0, 0)).save(comic / f"1_{number}.png")
        for name in data.draw(st.lists(names.filter(lambda name: name.strip(".")), max_size=8)):
            known = (comic / "1_1.png").read_bytes()
            (comic / name).write_bytes(spoiled(data, known) if data.draw(st.booleans()) else known)
        collection = RawPages(Path(folder), data.draw(st.integers(0, 9)), data.draw(st.integers(0, 3)))
        for name in collection.names:
            check_strip(read_strip(collection, name))
