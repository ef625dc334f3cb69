"""`alignment`: edges between tokens or not, resized pictures, tokens of panels and boxes."""

import pytest
from PIL import Image

from gaze.pictures.alignment import alignment
from gaze.pictures.strips import Photo, Strip
from qwen3vl_jax.images import ImageSettings

SETTINGS = ImageSettings(min_pixels=1024)


def strip(widths, height=64):
    return Strip("s", Image.new("RGB", (sum(widths), height)), widths)


def test_panels_between_tokens():
    found = alignment(strip((64, 96, 32)), SETTINGS)
    assert (found.resized, found.aligned, found.cell, found.off) == (False, True, 32, (0.0, 0.0))
    assert found.tokens == (4, 6, 2)


def test_an_edge_within_a_token():
    found = alignment(strip((60, 68)), SETTINGS)
    assert found.off == (4.0,)
    assert (found.resized, found.aligned) == (False, False)


def test_edges_are_measured_in_the_processed_picture():
    found = alignment(strip((50, 50), 50), SETTINGS)
    assert found.size == (100, 50)
    assert found.processed == (96, 64)
    assert found.resized
    assert found.off == (pytest.approx(16.0),)


def test_boxes():
    image = Image.new("RGB", (128, 64))
    found = alignment(Photo("p", image, ((0, 0, 64, 64), (70, 10, 79, 20))), SETTINGS)
    assert found.tokens == (4, 1)
    assert found.centreless == 1
    # Across 64, 70 and 79, down 10 and 20; what lies on the rim is left out.
    assert sorted(found.off) == [0.0, 6.0, 10.0, 12.0, 15.0]
    assert not found.aligned


def test_a_single_panel_has_no_edges():
    found = alignment(strip((64,)), SETTINGS)
    assert found.off == ()
    assert found.aligned
