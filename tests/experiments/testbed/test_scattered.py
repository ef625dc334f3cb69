from collections import Counter

import numpy as np
import pytest

from experiments.testbed.draw import COLOUR_JITTER, RGB
from experiments.testbed.lessons import held_out
from experiments.testbed.scattered import HEIGHT, LEAST_BOX, WIDTH, draw_held_out, draw_photos, draw_scattered
from experiments.testbed.shapes import SHAPES


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [draw_scattered(rng) for _ in range(80)]


def test_pictures_have_two_to_five_things_each_of_its_own_colour_and_shape(scenes):
    counts = Counter(len(things) for _, things in scenes)
    assert set(counts) == {2, 3, 4, 5}
    assert all(image.size == (WIDTH, HEIGHT) for image, _ in scenes)
    for _, things in scenes:
        assert len({thing.colour for thing in things}) == len({thing.shape for thing in things}) == len(things)
    assert {thing.shape for _, things in scenes for thing in things} == set(SHAPES)


def test_all_size_classes_are_common_and_none_is_too_small_for_the_paper(scenes):
    every = [thing for _, things in scenes for thing in things]
    counts = Counter(thing.size for thing in every)
    assert min(counts[size] for size in ("small", "medium", "large")) > len(every) / 12
    for thing in every:
        left, top, right, bottom = thing.box
        assert (right - left) * (bottom - top) >= max(LEAST_BOX, thing.area)
        assert thing.size == ("small" if thing.area < 1024 else "medium" if thing.area < 9216 else "large")


def test_no_two_things_share_a_cell_or_overlap(scenes):
    for _, things in scenes:
        assert np.sum([thing.cells for thing in things], axis=0).max() == 1
        assert all(thing.cells.any() for thing in things)
        canvas = np.zeros((2 * HEIGHT, 2 * WIDTH), int)
        for thing in things:
            left, top, right, bottom = (round(2 * edge) for edge in thing.box)
            canvas[top:bottom, left:right] += 1
        assert canvas.max() == 1


def test_a_box_is_tight_and_holds_its_colour(scenes):
    for image, things in scenes:
        pixels = np.asarray(image, np.int32)
        background = pixels[0, 0]
        outside = np.ones(pixels.shape[:2], bool)
        for thing in things:
            left, top, right, bottom = thing.box
            part = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
            outside[part] = False
            inside = pixels[part]
            drawn = (inside != background).any(axis=2)
            assert drawn[[0, -1]].any(axis=1).all()
            assert drawn[:, [0, -1]].any(axis=0).all()
            near = (np.abs(inside - np.array(RGB[thing.colour])) <= COLOUR_JITTER).all(axis=2)
            assert near.sum() > 0.25 * thing.area
        assert (pixels[outside] == background).all()


def test_photos_repeat_with_seed_and_purpose_only():
    one, same, other = draw_photos(1, "a", 2), draw_photos(1, "a", 2), draw_photos(1, "b", 2)
    assert [photo.image.tobytes() for photo in one] == [photo.image.tobytes() for photo in same]
    assert one[0].image.tobytes() != other[0].image.tobytes()
    assert one[0].name == "a-1-0"
    assert len(one[0].boxes) == len(one[0].captions) == len(one[0])


def test_photo_regions_are_the_things_cells_the_largest_first():
    photo = draw_photos(1, "a", 1, draw_scattered)[0]
    _, things = draw_scattered(np.random.default_rng([1, 0, *b"a"]))
    things = sorted(things, key=lambda thing: -thing.area)
    assert photo.captions == tuple(thing.caption for thing in things)
    assert (photo.cells((8, 12), 2) == np.stack([thing.cells.ravel() for thing in things])).all()


def test_held_out_things_have_the_colours_that_training_never_gave_them():
    rng = np.random.default_rng(3)
    for _ in range(20):
        _, things = draw_held_out(rng)
        assert 2 <= len(things) == len({thing.colour for thing in things}) == len({thing.shape for thing in things})
        assert all(held_out(thing) for thing in things)
    assert not all(held_out(thing) for thing in draw_scattered(rng)[1])
