"""`coco`: COCO's files read through pycocotools, the testbed's pictures written as such, and the judge of object names."""

import codecs
import json
import os
import sys
from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import ExifTags, Image

from experiments.data.coco import Instances, names_object, read_coco, size_class
from experiments.data.synonyms import SYNONYMS
from experiments.testbed.coco import write_coco
from experiments.testbed.scattered import draw_held_out
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import TURNS

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}]


def thing(number, image, bbox, area=None, category=18, **more):
    area = bbox[2] * bbox[3] if area is None else area
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": 0, **more}


@pytest.fixture
def folder(tmp_path):
    """Three pictures of 200 x 160 pixels: two with objects, one without."""
    (tmp_path / "val").mkdir()
    for number in (1, 2, 10):
        Image.new("RGB", (200, 160), (number, 0, 0)).save(tmp_path / "val" / f"{number}.jpg")
    return tmp_path


def described(folder, annotations, numbers=(1, 2, 10), **more):
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 200, "height": 160} for number in numbers]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES, **more}))
    return path, folder / "val"


def by_name(found):
    return dict(zip((photo.name for photo in found.photos), zip(found.photos, found.sizes, strict=True), strict=True))


def test_objects_become_regions_with_names_and_sizes(folder, capsys):
    annotations = [
        thing(1, 1, [10, 20, 40, 30], area=1023.9),
        thing(2, 1, [0, 0, 32, 32], category=1),
        thing(3, 2, [50.5, 10, 100, 120], category=44, area=9215.5),
        thing(4, 2, [0, 0, 199, 100.25], category=44, area=9216),
    ]
    found = read_coco(*described(folder, annotations))
    photos = by_name(found)
    assert set(photos) == {"1", "2"}
    photo, sizes = photos["1"]
    assert photo.boxes == ((10, 20, 50, 50), (0, 0, 32, 32))
    assert photo.captions == ("dog", "person")
    assert sizes == ("small", "medium")
    assert photo.image.size == (200, 160)
    photo, sizes = photos["2"]
    assert photo.boxes == ((50.5, 10, 150.5, 130), (0, 0, 199, 100.25))
    assert sizes == ("medium", "large")
    assert (found.empty, found.below, found.crowds, found.skipped) == (1, 0, 0, [])
    assert capsys.readouterr() == ("", "")


def test_small_boxes_and_crowds_are_counted(folder):
    annotations = [
        thing(1, 1, [0, 0, 25, 30]),
        thing(2, 1, [0, 0, 25, 29.9]),
        thing(3, 1, [0, 0, 90, 90], area=10),
        thing(4, 1, [0, 0, 99, 99], iscrowd=1),
        thing(5, 2, [0, 0, 3, 3]),
    ]
    found = read_coco(*described(folder, annotations))
    ((photo, sizes),) = by_name(found).values()
    assert photo.boxes == ((0, 0, 25, 30), (0, 0, 90, 90))
    assert sizes == ("small", "small")
    assert (found.below, found.crowds, found.empty) == (2, 1, 2)
    lower = read_coco(*described(folder, annotations), min_box_area=9)
    assert (lower.below, lower.empty, len(lower.photos)) == (0, 1, 2)


@pytest.mark.parametrize("bbox", [[200, 0, 50, 50], [0, -60, 50, 60], [0, 160.5, 50, 60], [5, 5, 0, 60]])
def test_impossible_boxes_are_named(folder, capsys, bbox):
    found = read_coco(*described(folder, [thing(1, 1, [0, 0, 50, 50]), thing(7, 1, bbox, area=2500)]))
    assert found.photos[0].boxes == ((0, 0, 50, 50),)
    ((name, why),) = found.skipped
    assert name == "object 7 of 1"
    assert why == f"its box {[float(number) for number in bbox]} holds nothing of the picture"
    assert f"skipped {name}: {why}" in capsys.readouterr().err


def test_a_box_over_the_edge_is_cut_there(folder):
    found = read_coco(*described(folder, [thing(1, 1, [-3, 120, 300, 40.5])]))
    assert found.photos[0].boxes == ((0, 120, 200, 160),)
    assert found.photos[0].crop(0).size == (200, 40)


def test_what_counts_is_the_part_of_a_box_within_the_picture(folder):
    found = read_coco(*described(folder, [thing(1, 1, [0, 0, 50, 50]), thing(2, 1, [190, 0, 400, 60])]))
    assert found.photos[0].boxes == ((0, 0, 50, 50),)
    assert found.below == 1


@pytest.mark.parametrize(
    ("part", "field", "value", "place"),
    [
        *(
            ("annotations", "bbox", value, r"annotations\.0\.bbox")
            for value in ([5, 5, 40], "boxy", None, [1, 2, 3, 4, 5])
        ),
        ("annotations", "bbox", [5, 5, 40, "60"], r"annotations\.0\.bbox\.3 is '60'"),
        ("annotations", "bbox", [5, 5, True, 60], r"annotations\.0\.bbox\.2 is True"),
        ("annotations", "bbox", [5, 5, 40, -60], r"annotation 1 in .* no size below 0"),
        ("annotations", "bbox", [float("nan"), 5, 40, 60], "NaN is no number"),
        ("annotations", "bbox", [float("inf"), 5, 40, 60], "Infinity is no number"),
        ("annotations", "bbox", [10**400, 5, 40, 60], r"annotations\.0\.bbox\.0"),
        ("annotations", "area", "900", r"annotations\.0\.area"),
        ("annotations", "area", -1, r"annotations\.0\.area"),
        ("annotations", "iscrowd", 2, r"annotations\.0\.iscrowd"),
        ("annotations", "category_id", 3, "annotation 1 in .* has the category_id 3: give the id of a category"),
        ("annotations", "category_id", [18], r"annotations\.0\.category_id"),
        ("annotations", "image_id", 77, "annotation 1 in .* has the image_id 77: give the id of an image"),
        ("annotations", "id", 2, "several annotations of the id 2"),
        ("images", "id", 2, "several images of the id 2"),
        ("images", "id", 1.0, r"images\.0\.id"),
        ("images", "file_name", "2.jpg", "several images of the name '2'"),
        ("images", "file_name", "2.png", "several images of the name '2'"),
        ("images", "file_name", 5, r"images\.0\.file_name"),
        ("images", "file_name", "", r"images\.0\.file_name"),
        ("images", "file_name", ".", "no name of a file"),
        ("images", "file_name", "1\n.jpg", "no name of a file"),
        ("images", "file_name", "1\0.jpg", "no name of a file"),
        ("images", "file_name", "\ud800.jpg", r"images\.0\.file_name"),
        ("images", "file_name", "9" * 5000, r"images\.0\.file_name"),
        ("images", "width", -200, r"images\.0\.width"),
        ("images", "width", "200", r"images\.0\.width"),
        ("images", "height", 160.5, r"images\.0\.height"),
        ("images", "height", 0, r"images\.0\.height"),
        ("categories", "id", 18, "several categories of the id 18"),
        ("categories", "name", None, r"categories\.0\.name"),
        ("categories", "name", " - ", "category 1 in .* give it a name of words"),
    ],
)
def test_entries_that_are_wrong_are_named(folder, part, field, value, place):
    path, images = described(folder, [thing(1, 1, [0, 0, 50, 50]), thing(2, 1, [0, 0, 60, 60])])
    read_coco(path, images)
    content = json.loads(path.read_text())
    content[part][0][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=place) as caught:
        read_coco(path, images)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        (part, key)
        for part, schema in get_type_hints(Instances).items()
        for key in sorted(get_args(schema)[0].__required_keys__)
    ],
)
def test_what_an_entry_lacks_is_named(folder, part, key):
    path, images = described(folder, [thing(1, 1, [0, 0, 50, 50])])
    content = json.loads(path.read_text())
    del content[part][0][key]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"{part}\.0\.{key} is missing: give one such as"):
        read_coco(path, images)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png", ".."])
def test_file_names_that_leave_the_folder_are_refused(folder, name):
    Image.new("RGB", (200, 160)).save(folder / "secret.png")
    path, images = described(folder, [thing(1, 1, [0, 0, 50, 50])])
    path.write_text(path.read_text().replace("1.jpg", name, 1))
    with pytest.raises(InputError, match="leads out of the folder of pictures"):
        read_coco(path, images)


def test_links_out_of_the_folder_are_not_followed(folder):
    where = described(folder, [thing(number, number, [0, 0, 50, 50]) for number in (1, 2)])
    (folder / "val" / "1.jpg").rename(folder / "secret.jpg")
    (folder / "val" / "1.jpg").symlink_to(folder / "secret.jpg")
    (folder / "val" / "inside.jpg").symlink_to("2.jpg")
    where[0].write_text(where[0].read_text().replace('"2.jpg"', '"inside.jpg"'))
    (folder / "link").symlink_to(folder / "val")
    found = read_coco(where[0], folder / "link")
    assert [photo.name for photo in found.photos] == ["inside"]
    assert "a link that leads out" in dict(found.skipped)["1"]


def test_pipes_are_no_files(folder):
    path, images = described(folder, [thing(number, number, [0, 0, 50, 50]) for number in (1, 2)])
    (images / "1.jpg").unlink()
    os.mkfifo(images / "1.jpg")
    assert "no regular file" in dict(read_coco(path, images).skipped)["1"]
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(InputError, match="no regular file"):
        read_coco(folder / "pipe.json", images)


def test_a_byte_order_mark_changes_nothing(folder):
    path, images = described(folder, [thing(1, 1, [0, 0, 50, 50])])
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_coco(path, images).photos[0].boxes == ((0, 0, 50, 50),)


RED, BLUE = (250, 0, 0), (0, 0, 250)


def turned(path, size, box, turn, as_stored):
    """A blue picture that EXIF turns, with a red rectangle at `box` of the pixels as stored or upright."""
    drawn = Image.new("RGB", size, BLUE)
    left, top, width, height = box
    drawn.paste(RED, (left, top, left + width, top + height))
    stored = drawn if as_stored or turn == 1 else drawn.transpose(BACK[turn])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    stored.save(path, exif=exif)


BACK = {turn: {6: TURNS[8], 8: TURNS[6]}.get(turn, method) for turn, method in TURNS.items()}
"""What turns upright pixels into those that are stored."""


@pytest.mark.parametrize("as_stored", [True, False])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("turn", TURNS)
def test_boxes_lie_on_their_objects_in_turned_pictures(tmp_path, turn, as_stored, suffix):
    size, box = (120, 80), [10, 20, 40, 30]
    turned(tmp_path / f"1.{suffix}", size, box, turn, as_stored)
    images = [{"id": 1, "file_name": f"1.{suffix}", "width": size[0], "height": size[1]}]
    path, _ = described(tmp_path, [thing(1, 1, box)], images=images)
    if turn in (2, 3, 4):
        with pytest.raises(InputError, match="no picture of"):
            read_coco(path, tmp_path)
        return
    (photo,) = read_coco(path, tmp_path).photos
    assert photo.image.size == size
    pixels = np.asarray(photo.image)
    red = np.zeros(pixels.shape[:2], bool)
    red[20:50, 10:50] = True
    assert np.array_equal((pixels == RED).all(-1), red)
    assert np.array_equal(np.asarray(photo.crop(0)), np.full((30, 40, 3), RED))


@pytest.mark.parametrize("turn", TURNS)
def test_where_the_size_does_not_tell_how_a_picture_was_annotated_it_is_skipped(folder, turn):
    turned(folder / "val" / "1.jpg", (99, 99), [10, 20, 40, 30], turn, True)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": w, "height": h} for n, w, h in ((1, 99, 99), (2, 200, 160))]
    found = read_coco(*described(folder, [thing(n, n, [10, 20, 40, 30]) for n in (1, 2)], images=images))
    assert {photo.name for photo in found.photos} == ({"1", "2"} if turn == 1 else {"2"})
    assert [f"orientation {turn}" in why for _, why in found.skipped] == ([] if turn == 1 else [True])


def spoil(path, how):
    match how:
        case "missing":
            path.unlink()
        case "corrupt":
            path.write_bytes(path.read_bytes()[:200])
        case "other size":
            Image.new("RGB", (160, 200)).save(path)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("missing", "there is no image"), ("corrupt", "cannot be read"), ("other size", "has 160 x 200 pixels")],
)
def test_pictures_that_cannot_be_used_are_named_and_replaced(folder, capsys, how, reason):
    where = described(folder, [thing(number, number, [0, 0, 50, 50]) for number in (1, 2, 10)])
    whole = [photo.name for photo in read_coco(*where).photos]
    spoil(folder / "val" / f"{whole[0]}.jpg", how)
    found = read_coco(*where, limit=2)
    assert [photo.name for photo in found.photos] == whole[1:]
    ((name, why),) = found.skipped
    assert name == whole[0]
    assert reason in why
    assert f"skipped {name}" in capsys.readouterr().err


def test_grey_pictures_become_rgb(folder):
    Image.new("L", (200, 160), 77).save(folder / "val" / "1.jpg")
    found = read_coco(*described(folder, [thing(1, 1, [0, 0, 50, 50])]))
    assert found.photos[0].image.getpixel((5, 5)) == (77, 77, 77)


def test_the_seed_decides_the_order_and_the_limit_cuts_it(tmp_path):
    where = write_coco(tmp_path, 0, 9)
    whole = [photo.name for photo in read_coco(*where, seed=1).photos]
    assert [photo.name for photo in read_coco(*where, seed=1, limit=4).photos] == whole[:4]
    assert [photo.name for photo in read_coco(*where, seed=2).photos] != whole
    assert sorted(whole) == [f"{number:06}" for number in range(1, 10)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no instances file of COCO at"),
        ("{", "cannot be read as an instances file of COCO"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is not an instances file of COCO: the whole is"),
        ("{}", "is not an instances file of COCO: images is missing"),
        ('{"images": [], "images": []}', "gives 'images' twice"),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}', "is not an instances file"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "file_name is missing"),
        ('{"images": [], "annotations": [], "categories": []}', "no picture of"),
    ],
)
def test_other_files_are_an_error(folder, content, message, capsys):
    path = folder / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_coco(path, folder / "val")
    assert capsys.readouterr().out == ""


def test_a_missing_folder_of_pictures_is_an_error(folder):
    path, _ = described(folder, [thing(1, 1, [0, 0, 50, 50])])
    with pytest.raises(InputError, match="there is no folder"):
        read_coco(path, folder / "nowhere")
    with pytest.raises(InputError, match=r"File name too long|there is no folder"):
        read_coco(path, folder / ("x" * 5000))
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"no picture of .* with an object of 750 pixels"):
        read_coco(path, folder / "empty")


def test_a_missing_library_names_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(InputError, match="needs the extra `coco`"):
        read_coco(*described(folder, []))


@pytest.mark.parametrize(
    ("area", "size"),
    [(0, "small"), (1023.99, "small"), (1024, "medium"), (9215, "medium"), (9216, "large"), (1e6, "large")],
)
def test_size_classes_are_those_of_coco(area, size):
    assert size_class(area) == size


def test_the_testbed_reads_back_what_it_wrote(tmp_path):
    found = read_coco(*write_coco(tmp_path, 3, 4))
    assert len(found.photos) == 4
    assert found.skipped == []
    for photo, sizes in zip(found.photos, found.sizes, strict=True):
        image, things = draw_held_out(np.random.default_rng([3, int(photo.name) - 1, *b"coco"]))
        assert photo.image == image
        kept = [one for one in things if (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) >= 750]
        assert photo.boxes == tuple(one.box for one in kept)
        assert sizes == tuple(one.size for one in kept)
        for index, one in enumerate(kept):
            assert photo.captions[index] == f"{one.colour} {one.shape}"
            assert names_object(f"A {one.colour} {one.shape}.", photo.captions) == index


@pytest.mark.parametrize(
    ("text", "categories", "index"),
    [
        ("A dog.", ("person", "dog"), 1),
        ("Two DOGS on a couch", ("couch", "dog"), 1),
        ("a dogma about cats", ("dog", "cat"), 1),
        ("nothing of note", ("dog", "cat"), None),
        ("", ("dog",), None),
        ("a dog", (), None),
        ("A young woman with a dog", ("dog", "person"), 1),
        ("several people", ("person",), 0),
        ("a hot dog with mustard", ("dog",), None),
        ("a hot-dog and a dog", ("dog", "hot dog"), 1),
        ("a teddy bear", ("bear", "teddy bear"), 1),
        ("the television remote", ("tv", "remote"), 1),
        ("a flat-screen TV", ("couch", "tv"), 1),
        ("his mobile_phone", ("cell phone",), 0),
        ("the sofa's arm", ("couch",), 0),
        ("benches, knives and scarves", ("knife",), 0),
        ("wine glasses", ("wine glass",), 0),
        ("puppies", ("dog",), 0),
        ("mice", ("mouse",), 0),
        ("a dog", ("dog", "person", "dog"), 0),
        ("red star.", ("blue box", "red star"), 1),
        ("blue star.", ("blue box", "red star"), None),
        ("red star.", ("blue box.", "red star."), 1),
        ("a ball", ("ball",), 0),
        ("a ball", ("sports ball",), 0),
    ],
)
def test_the_first_object_that_is_named(text, categories, index):
    assert names_object(text, categories) == index


def test_synonyms_are_a_choice():
    assert names_object("a man", ("person",), {}) is None
    assert names_object("a chap", ("person",), {"person": ("chap",)}) == 0


def test_the_synonyms_cover_coco_and_none_means_two_things():
    assert len(SYNONYMS) == 80
    assert list(SYNONYMS)[:4] == ["person", "bicycle", "car", "motorcycle"]
    assert list(SYNONYMS)[-1] == "toothbrush"
    for name, words in SYNONYMS.items():
        assert names_object(name, tuple(SYNONYMS)) == list(SYNONYMS).index(name)
        for word in words:
            assert list(SYNONYMS)[names_object(f"one {word} here", tuple(SYNONYMS))] == name
            assert list(SYNONYMS)[names_object(f"two {word}s", tuple(SYNONYMS))] == name
