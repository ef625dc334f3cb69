"""`compose`: panels to strips by the rule of the paper's code, stated here in numpy and fractions."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from gaze.pictures.compose import compose, panel_width, permuted
from gaze.pictures.strips import Strip
from qwen3vl_jax.errors import InputError


def noise(seed, size, mode="RGB"):
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0]) if bands == 1 else (size[1], size[0], bands)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def width_by_the_rule(width, height):
    """Whole pixels at height 256, then the nearest multiple of 32, of two equally near ones the even multiple."""
    proportional = int(Fraction(256 * width, height))
    below, rest = divmod(proportional, 32)
    up = rest > 16 or (rest == 16 and below % 2 == 1)
    return max(32 * (below + up), 32)


def strip_by_the_rule(panels):
    columns = []
    for panel in panels:
        size = (width_by_the_rule(*panel.size), 256)
        columns.append(np.array(panel.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
    want = np.concatenate(columns, axis=1)
    for seam in np.cumsum([column.shape[1] for column in columns])[:-1]:
        want[:, seam - 3 : seam + 3] = 255
    return want


SIZES = [(64, 64), (100, 37), (31, 200), (1, 1), (5, 300), (33, 256), (300, 90)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_strip_is_that_of_the_papers_code(mode):
    panels = [noise(seed, size, mode) for seed, size in enumerate(SIZES)]
    strip = compose("odd", panels, [f"c{number}" for number in range(7)])
    np.testing.assert_array_equal(np.asarray(strip.image), strip_by_the_rule(panels))
    assert strip.widths == tuple(width_by_the_rule(*size) for size in SIZES)
    assert sum(strip.widths) == strip.image.width
    assert (strip.name, strip.captions[6]) == ("odd", "c6")


@pytest.mark.parametrize(
    ("size", "width"),
    [
        ((1024, 1024), 256),
        ((1, 9999), 32),
        ((48, 256), 64),  # a tie: one and a half, two is even
        ((80, 256), 64),  # a tie: two and a half, two is even
        ((161, 512), 64),  # 80.5 pixels: cut off first, else it would be 96
        ((97, 300), 96),
    ],
)
def test_widths_of_known_panels(size, width):
    assert panel_width(*size) == width == width_by_the_rule(*size)


def test_six_square_panels_make_the_papers_picture():
    strip = compose("six", [noise(0, (64, 64))] * 6)
    assert strip.image.size == (1536, 256)
    assert strip.widths == (256,) * 6
    assert strip.captions == ()


def test_transparency_becomes_white_and_a_palette_its_colours():
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    palette = Image.new("RGB", (64, 64), (0, 128, 0)).quantize(4)
    pixels = np.asarray(compose("modes", [clear, palette]).image)
    assert (pixels[:, :256] == 255).all()
    assert (pixels[:, 259:] == (0, 128, 0)).all()


@pytest.mark.parametrize(("panels", "captions"), [(0, 0), (2, 1), (2, 3)])
def test_panels_and_captions_that_do_not_fit_are_an_error(panels, captions):
    with pytest.raises(InputError, match=f"x has {panels} panels and {captions} captions"):
        compose("x", [noise(0, (8, 8))] * panels, ["c"] * captions)


def test_an_unreadable_panel_is_an_error(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="cannot be read as an image"):
        compose("x", [noise(0, (8, 8)), tmp_path / "bad.png"])


def test_a_line_of_pixels_is_no_panel():
    with pytest.raises(InputError, match=r"strip of 512256 x 256 pixels"):
        compose("x", [Image.new("RGB", (2000, 1)), Image.new("RGB", (9, 9))])


def test_permuted_panels_take_their_captions_along():
    panels = [
        Image.new("RGB", size, colour) for size, colour in [((64, 64), "red"), ((96, 64), "lime"), ((32, 64), "blue")]
    ]
    strip = compose("rgb", panels, ["red", "green", "blue"])
    other = permuted(strip, [2, 0, 1])
    assert other.captions == ("blue", "red", "green")
    assert other.widths == (128, 256, 384)
    assert other.name == strip.name
    middles = np.asarray(other.image)[100, [64, 256, 576]].tolist()
    assert middles == [[0, 0, 255], [255, 0, 0], [0, 255, 0]]
    white = (np.asarray(other.image) == 255).all(axis=(0, 2))
    assert white[[125, 130, 381, 386]].all()


def test_permuting_twice_is_back_but_for_the_bars():
    strip = compose("noise", [noise(seed, (64, 64)) for seed in range(4)])
    back = permuted(permuted(strip, [3, 1, 0, 2]), [2, 1, 3, 0])
    for panel in range(4):
        inner = (3, 0, 253, 256)
        assert back.crop(panel).crop(inner) == strip.crop(panel).crop(inner)


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 1], [1, 2, 3], []])
def test_an_order_that_is_none_is_an_error(order):
    strip = Strip("x", Image.new("RGB", (96, 32)), (32, 32, 32))
    with pytest.raises(InputError, match="each of the panels 0 to 2 once"):
        permuted(strip, order)
