import numpy as np
import pytest
from PIL import Image

from experiments.paper.layer_steering.panel_labels import LETTERS, label_panels
from gaze.pictures.strips import Strip
from qwen3vl_jax.errors import InputError


def plain(*widths, height=64):
    colours = [(200, 10 * number, 90) for number in range(len(widths))]
    image = Image.new("RGB", (sum(widths), height))
    left = 0
    for width, colour in zip(widths, colours, strict=True):
        image.paste(colour, (left, 0, left + width, height))
        left += width
    return Strip("plain", image, widths, tuple(f"panel {number}" for number in range(len(widths))))


def test_a_label_lies_in_the_corner_of_its_panel_and_nowhere_else():
    strip = plain(64, 64, 64)
    labelled = label_panels(strip, "ABC")
    changed = (np.asarray(labelled.image) != np.asarray(strip.image)).any(axis=2)
    rows, cols = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows.min(), rows.max()) == (4, 19)
    assert cols.tolist() == [left + x for left in (0, 64, 128) for x in range(4, 20)]
    assert (labelled.name, labelled.widths, labelled.captions) == (strip.name, strip.widths, strip.captions)


def test_labels_grow_with_the_panels_of_any_strip():
    strip = plain(500, 300, height=400)
    changed = (np.asarray(label_panels(strip, "HH").image) != np.asarray(strip.image)).any(axis=2)
    assert np.flatnonzero(changed.any(axis=1))[[0, -1]].tolist() == [25, 124]
    assert (changed[:, 25:125] == changed[:, 525:625]).all()


def test_a_label_is_dark_on_white_within_a_dark_border():
    square = np.asarray(label_panels(plain(64), "C").image.convert("L"))[4:20, 4:20]
    assert square[[0, -1]].max() < 100
    assert square[:, [0, -1]].max() < 100
    assert (square[1:-1, 1:-1] > 200).mean() > 0.4
    assert 0.1 < (square[1:-1, 1:-1] < 100).mean() < 0.5


def test_each_letter_looks_its_own():
    squares = [np.asarray(label_panels(plain(64), letter).image.convert("L"), np.int32) for letter in LETTERS]
    for number, one in enumerate(squares):
        assert all((np.abs(one - other) > 100).sum() >= 8 for other in squares[:number])


def test_the_strip_itself_is_left_alone():
    strip = plain(64, 64)
    before = np.asarray(strip.image).copy()
    label_panels(strip, "AB")
    assert (np.asarray(strip.image) == before).all()


def test_labels_must_be_as_many_as_panels():
    with pytest.raises(InputError, match="2 panels needs as many labels, got 3"):
        label_panels(plain(64, 64), "ABC")
