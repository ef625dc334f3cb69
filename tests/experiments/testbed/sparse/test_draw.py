from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from experiments.testbed.draw import COLOUR_JITTER, RGB, compose_strip
from experiments.testbed.scenes import COLOURS, OBJECTS, RELATIONS, SUBJECTS
from experiments.testbed.sparse import draw
from experiments.testbed.sparse.draw import draw_panel, draw_strip
from experiments.testbed.sparse.scenes import COUNT, Scene, draw_scenes, scene


def pixels(image):
    return np.asarray(image, np.int32)


def test_drawing_repeats_with_the_seed_and_varies_without():
    one, same, other = (pixels(draw_panel(scene(77), np.random.default_rng(seed))) for seed in (5, 5, 6))
    assert one.shape == (64, 64, 3)
    assert (one == same).all()
    assert (one != other).any()


def test_strip_has_the_white_bars_of_the_paper_over_its_seams():
    strip = pixels(compose_strip([Image.new("RGB", (64, 64), (10 * k, 0, 0)) for k in range(1, 7)]))
    white = (strip == 255).all(axis=(0, 2))
    assert strip.shape == (64, 384, 3)
    assert np.flatnonzero(white).tolist() == [x for seam in range(64, 384, 64) for x in range(seam - 3, seam + 3)]
    assert (strip[:, 61 + 6, 0] == 20).all()


def test_panels_stand_in_reading_order():
    scenes = draw_scenes(np.random.default_rng(0))
    strip = pixels(draw_strip(scenes, np.random.default_rng(1)))
    rng = np.random.default_rng(1)
    for index, each in enumerate(scenes):
        panel = pixels(draw_panel(each, rng))
        assert (strip[:, 64 * index + 3 : 64 * index + 61] == panel[:, 3:61]).all()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_meaning_lies_under_the_seams(seed):
    """Above the ground, the four columns at each side are plain sky."""
    rng = np.random.default_rng(seed)
    for index in rng.integers(COUNT, size=400):
        panel = pixels(draw_panel(scene(int(index)), rng))[:54]
        assert np.ptp(panel[:, :4], axis=(0, 1)).max() == np.ptp(panel[:, 60:], axis=(0, 1)).max() == 0


def test_colours_stay_apart_from_each_other_and_from_the_backdrop():
    """In any channel-wise jitter, the two nearest colours keep a margin in at least one channel."""
    for one, other in combinations(COLOURS, 2):
        gap = np.abs(np.subtract(RGB[one], RGB[other])).max() - 2 * COLOUR_JITTER
        assert gap > 40, (one, other)
    palest_backdrop = 218 - 30
    assert all(palest_backdrop - min(rgb) - COLOUR_JITTER > 40 for rgb in map(RGB.get, COLOURS))


def test_each_attribute_shows(monkeypatch):
    """With the jitter off, any other value of any one attribute changes many pixels."""
    monkeypatch.setattr(draw, "POSITION_JITTER", 0.0)
    monkeypatch.setattr("experiments.testbed.draw.COLOUR_JITTER", 0)
    sizes = {
        "subject_colour": len(COLOURS),
        "subject": len(SUBJECTS),
        "relation": len(RELATIONS),
        "object_colour": len(COLOURS),
        "object": len(OBJECTS),
    }
    base = {"subject_colour": 0, "subject": 0, "relation": 0, "object_colour": 4, "object": 0}
    for name, size in sizes.items():
        panels = [pixels(draw_panel(Scene(**base | {name: value}), np.random.default_rng(0))) for value in range(size)]
        for one, other in combinations(panels, 2):
            assert (np.abs(one - other).max(axis=-1) > 40).sum() > 50, name
