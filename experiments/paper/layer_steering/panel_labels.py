"""Letters on panels: a probe of reading order whose answer is one token and tells nothing of the story."""

from collections.abc import Sequence
from itertools import accumulate
from string import ascii_uppercase

from PIL import Image, ImageDraw, ImageFont

from gaze.pictures.strips import Strip
from qwen3vl_jax.errors import InputError

LETTERS = ascii_uppercase[:8]
"""What the panels of a strip of six or fewer carry."""

# Shares of a panel's height: of 64 pixels a label takes those from 4 to 20, out of reach of a white seam of 3.
SIDE = 1 / 4
INSET = 1 / 16
SCALE = 4


def letters_for(panels: int) -> str:
    """Returns the letters that panels draw from: at least two more than there are panels, so that none has to occur."""
    return ascii_uppercase[: max(len(LETTERS), panels + 2)]


def label_panels(strip: Strip, labels: Sequence[str]) -> Strip:
    """The strip with a bold letter on a small white square in the top left corner of each panel.

    Everything but the picture stays. Raises InputError unless there is one label per panel.
    """
    if len(labels) != len(strip):
        raise InputError(f"a strip of {len(strip)} panels needs as many labels, got {len(labels)}")
    image = strip.image.convert("RGB")
    side, inset = round(SIDE * image.height), round(INSET * image.height)
    for left, label in zip(accumulate(strip.widths, initial=0), labels, strict=False):
        image.paste(_square(label, side), (left + inset, inset))
    return Strip(strip.name, image, strip.widths, strip.captions)


def _square(label: str, side: int) -> Image.Image:
    """A white square of `side` pixels with a dark border and one letter, drawn larger and averaged down."""
    large = side * SCALE
    square = Image.new("RGB", (large, large), "white")
    draw = ImageDraw.Draw(square)
    draw.rectangle((0, 0, large - 1, large - 1), outline="black", width=max(SCALE, large // 16))
    font = ImageFont.load_default(0.8 * large)
    draw.text((large / 2, large / 2), label, "black", font, anchor="mm", stroke_width=large / 40)
    return square.reduce(SCALE)
