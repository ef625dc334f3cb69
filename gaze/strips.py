"""Comic strips: one picture, its panels side by side, and what each of them shows."""

from dataclasses import dataclass
from itertools import pairwise

from PIL import Image


@dataclass(frozen=True)
class Strip:
    """A picture whose panels stand from left to right.

    Attributes:
      widths: of the panels in pixels; they add up to the width of the picture.
      captions: one per panel if they are known, else empty.
    """

    name: str
    image: Image.Image
    widths: tuple[int, ...]
    captions: tuple[str, ...] = ()

    @classmethod
    def even(cls, name: str, image: Image.Image, panels: int) -> "Strip":
        """A picture cut into `panels` columns of (nearly) equal width."""
        edges = [round(image.width * number / panels) for number in range(panels + 1)]
        return cls(name, image, tuple(right - left for left, right in pairwise(edges)))
