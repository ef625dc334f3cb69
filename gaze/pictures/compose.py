"""Panels to a strip, as the code of the paper (arXiv 2606.14703) puts them together."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image, ImageDraw

from gaze.pictures.strips import Strip, Unread
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import ImageLike, open_image, opened, upright_size

HEIGHT = 256
WIDTH_STEP = 32
GAP = 6
WIDEST = 200
"""The side ratio above which the model's image processor refuses a picture."""


def compose(name: str, panels: Sequence[ImageLike], captions: Sequence[str] = ()) -> Strip:
    """A strip of the panels, each brought to a height of 256 pixels (Lanczos) and the width `panel_width`.

    Opaque panels give the pixels of the paper's code. Transparency is composited on white, where that code shows
    whatever colour lies under it.

    Raises InputError without panels, for a number of captions that is not theirs, for panels so flat that the strip
    would be 200 times as wide as high, and for pictures as `open_image`.
    """
    strip = arrange(name, panels, captions)
    return Strip(name, strip.image, strip.widths, strip.captions)


def arrange(name: str, panels: Sequence[ImageLike], captions: Sequence[str] = ()) -> Unread:
    """As `compose`, but of files only the headers are read: what is wrong with the pixels is raised when they are."""
    if not panels or len(captions) not in (0, len(panels)):
        raise InputError(
            f"{name} has {len(panels)} panels and {len(captions)} captions: give one caption to each, or none"
        )
    widths = tuple(panel_width(*_size(panel)) for panel in panels)
    if sum(widths) > WIDEST * HEIGHT:
        raise InputError(f"{name} would make a strip of {sum(widths)} x {HEIGHT} pixels: its panels are too flat")

    def read() -> Image.Image:
        sizes = [(width, HEIGHT) for width in widths]
        lanczos = Image.Resampling.LANCZOS
        return side_by_side([open_image(one).resize(size, lanczos) for one, size in zip(panels, sizes, strict=True)])

    return Unread(name, read, widths, HEIGHT, tuple(captions))


def panel_width(width: int, height: int) -> int:
    """The width in a strip of a panel of this size: in proportion, whole pixels, then the nearest multiple of 32.

    Half-way cases go to the even multiple; at least 32. So the seams of a strip fall between image tokens of 32 pixels.
    """
    proportional = width * HEIGHT // height
    return WIDTH_STEP * max(1, round(proportional / WIDTH_STEP))


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """RGB images of one height edge to edge, with a white bar of 6 pixels painted *over* each seam: no width is added."""
    *seams, width = accumulate(image.width for image in images)
    strip = Image.new("RGB", (width, images[0].height), "white")
    for image, left in zip(images, [0, *seams], strict=True):
        strip.paste(image, (left, 0))
    draw = ImageDraw.Draw(strip)
    for seam in seams:
        draw.rectangle((seam - GAP // 2, 0, seam + GAP // 2 - 1, strip.height - 1), fill="white")
    return strip


def permuted(strip: Strip, order: Sequence[int]) -> Strip:
    """The same panels and captions in another order: place i holds the panel that stood at `order[i]`, from 0.

    The panels are cut out of the strip, with what its bars left of them, and joined with new bars.

    Raises InputError unless `order` names each panel once.
    """
    if sorted(order) != list(range(len(strip))):
        raise InputError(f"the order {list(order)} must name each of the panels 0 to {len(strip) - 1} once")
    return Unread(
        strip.name,
        lambda: side_by_side([strip.crop(panel) for panel in order]),
        tuple(strip.widths[panel] for panel in order),
        strip.size[1],
        tuple(strip.captions[panel] for panel in order) if strip.captions else (),
    )


def _size(image: ImageLike) -> tuple[int, int]:
    """Width and height of what `open_image` gives, from the header if it is a file."""
    if isinstance(image, Image.Image | np.ndarray):
        return open_image(image).size
    with opened(image) as file:
        return upright_size(file)
