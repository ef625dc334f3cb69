"""Pictures to patch rows: what transformers' `Qwen2VLImageProcessorPil` computes, in PIL and numpy."""

import dataclasses
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image
from pydantic import Field
from typing_extensions import TypedDict

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import open_regular, read_json, reading, validate

MOST_PICTURE_BYTES = 2**30
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings pixels upright, by the orientation that EXIF states."""

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
"""What counts as a picture: a file, a PIL image, or a uint8 array [height, width(, 1 | 3 | 4)]."""
PICTURE_TYPES = (str, os.PathLike, Image.Image, np.ndarray)


IMAGE_DEFAULTS: dict[str, Any] = dict(
    patch_size=14,
    min_pixels=56 * 56,
    max_pixels=28 * 28 * 1280,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""Of transformers' `Qwen2VLImageProcessor`, where they differ from what the official checkpoints state."""


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """How a checkpoint wants its pictures. The defaults are those of the official Qwen3-VL checkpoints.

    `min_pixels` and `max_pixels` bound the area (height x width) of the resized picture; `mean` and `std` apply to
    values in [0, 1]; `resample` is PIL's code of the filter (3 = bicubic).
    """

    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 65_536
    max_pixels: int = 16_777_216
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale_factor: float = 1 / 255
    resample: int = 3

    @classmethod
    def load(cls, folder: str | Path) -> "ImageSettings":
        """Reads `processor_config.json` (its `image_processor`) or `preprocessor_config.json`.

        Without either, the settings are the official ones; what a file leaves out is as in transformers' own class.
        """
        raw, path = settings_files(folder, "image_processor", "preprocessor_config.json")
        return cls() if raw is None else cls.from_dict(raw, path)

    @classmethod
    def from_dict(cls, raw: object, source: object = "the image settings") -> "ImageSettings":
        """Reads the dialects of `preprocessor_config.json`: areas as `min_pixels` or as `size.shortest_edge`.

        Raises InputError for values of other types or without meaning, and if a step is switched off that the model cannot do
        without.
        """
        found = common_settings(validate(raw, source, "a settings file of pictures", PixelsFile))
        return cls(**IMAGE_DEFAULTS | found)

    @property
    def factor(self) -> int:
        """Side of a merged cell in pixels: what both sides of a resized picture are multiples of."""
        return self.patch_size * self.merge_size


HINT = "give a PNG, JPEG or WebP file"


def open_image(image: ImageLike, upright: bool = True) -> Image.Image:
    """Opens a picture as RGB; transparency is composited on white.

    Args:
      upright: whether a file's EXIF rotation is applied; where boxes were drawn on the pixels as stored, it must not be.

    Raises InputError for a missing or unreadable file, an array that is not uint8 of a picture's shape, and pixels
    of more than 8 bits (PIL would clip them silently).
    """
    if isinstance(image, np.ndarray):
        return _rgb(_from_array(image))
    if isinstance(image, Image.Image):
        with reading("the picture", "an image"):  # PIL reads the pixels of a file only now
            return _rgb(image)
    with opened(image) as file:
        stated = orientation(file)
        file.load()
        left = orientation(file)  # Pillow turns a TIFF itself when it loads it, and then says so
        if upright:
            return _rgb(_turned(file, left))
        return _rgb(file if left == stated else _turned(file, {6: 8, 8: 6}.get(stated, stated)))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """A picture file, open for reading; whatever goes wrong with it inside becomes an InputError."""
    with open_regular(path, "an image", HINT, MOST_PICTURE_BYTES) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a decoder about a file that it reads all the same
        with Image.open(file) as picture:
            yield picture


def orientation(file: Image.Image) -> int:
    """How a picture is turned, from 1 (not at all) to 8, by its EXIF; 1 where that is not to be read or has no meaning."""
    try:
        found = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of metadata that is spoiled, beside pixels that are sound
        return 1
    return found if found in TURNS else 1


def upright_size(file: Image.Image) -> tuple[int, int]:
    """Width and height of a picture file once it is turned as its EXIF says, from its header alone."""
    width, height = file.size
    swapped = orientation(file) >= 5 and file.format != "TIFF"  # of which Pillow gives the size when turned
    return (height, width) if swapped else (width, height)


def _turned(file: Image.Image, turn: int) -> Image.Image:
    # Not `ImageOps.exif_transpose`, which also writes the EXIF anew, and fails where one field of it is odd.
    method = TURNS[turn]
    return file if method is None else file.transpose(method)


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (height, width) a picture is resized to: multiples of `factor`, about the same shape, area within bounds.

    Follows `smart_resize` of transformers' Qwen2-VL image processor, whose rounding of halves to even is Python's.
    Raises InputError for an empty picture or a side ratio above 200.
    """
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise InputError(f"an image of {width} x {height} pixels cannot be used: the side ratio must be at most 200")
    rows, cols = round(height / factor), round(width / factor)
    area = rows * cols * factor**2
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, cols = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif area < min_pixels:
        enlarge = math.sqrt(min_pixels / (height * width))
        rows, cols = (math.ceil(side * enlarge / factor) for side in (height, width))
    return rows * factor, cols * factor


def patchify(image: ImageLike, settings: ImageSettings) -> tuple[Float[np.ndarray, "patch pixel"], tuple[int, int]]:
    """Resizes, normalises and cuts a picture; returns its patch rows and its grid (rows, cols) in patches.

    Patches come in merge-block order (block row, block column, row in block, column in block); the pixels of a patch
    in the order (channel, frame, row, column), a still picture filling every frame. Bit-equal to transformers'
    `Qwen2VLImageProcessorPil` on the same PIL image. Raises InputError like `open_image` and `smart_resize`.
    """
    rgb = open_image(image)
    height, width = smart_resize(rgb.height, rgb.width, settings.factor, settings.min_pixels, settings.max_pixels)
    pixels = np.asarray(rgb.resize((width, height), Image.Resampling(settings.resample)))
    still = cut(pixels[None], settings)
    rows = np.repeat(still, settings.temporal_patch_size, axis=2).reshape(len(still), -1)
    return rows, (height // settings.patch_size, width // settings.patch_size)


def cut(
    frames: UInt8[np.ndarray, "frame height width 3"], settings: ImageSettings
) -> Float[np.ndarray, "patch 3 frame row col"]:
    """Cuts frames of one resized size into normalised patches, in merge-block order."""
    patch, merge = settings.patch_size, settings.merge_size
    count, height, width, _ = frames.shape
    blocks = frames.reshape(count, height // patch // merge, merge, patch, width // patch // merge, merge, patch, 3)
    blocks = blocks.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(-1, 3, count, patch, patch)
    return np.stack([levels[blocks[:, channel]] for channel, levels in enumerate(_levels(settings))], axis=1)


def _levels(settings: ImageSettings) -> Float[np.ndarray, "3 256"]:
    """The normalised value of each grey level: 256 roundings in place of one per pixel, and the same ones."""
    scaled = (np.arange(256, dtype=np.float64) * settings.rescale_factor).astype(np.float32)
    mean, std = (np.array(per_channel, np.float32)[:, None] for per_channel in (settings.mean, settings.std))
    return (scaled - mean) / std


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        raise InputError(f"the image has pixels of mode {image.mode}: convert it to 8 bits per channel")
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"an image array must be uint8 of shape [height, width, 3], got {array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(array)


Area = Annotated[int, Field(ge=1, le=2**40)]
Least = Annotated[int, Field(ge=1, le=2**26)]
"""Of an area that every picture is enlarged to: more would not fit in memory."""
Level = Annotated[float, Field(ge=-1e3, le=1e3)]
Levels = Level | Annotated[list[Level], Field(min_length=3, max_length=3)] | None
Spread = Annotated[float, Field(ge=1e-6, le=1e3)]
"""By which levels are divided; far less would be zero in float32."""
Spreads = Spread | Annotated[list[Spread], Field(min_length=3, max_length=3)] | None
Side = Annotated[int, Field(ge=1, le=256)] | None


class SizeFile(TypedDict, total=False):
    shortest_edge: Least | None
    longest_edge: Area | None
    min_pixels: Least | None
    max_pixels: Area | None


class PixelsFile(TypedDict, total=False):
    """What settings files of pictures and of videos both hold, in any of their dialects."""

    do_resize: bool | None
    do_rescale: bool | None
    do_normalize: bool | None
    do_convert_rgb: bool | None
    size: SizeFile | None
    min_pixels: Least | None
    max_pixels: Area | None
    patch_size: Side
    temporal_patch_size: Side
    merge_size: Annotated[int, Field(ge=1, le=16)] | None
    image_mean: Levels
    image_std: Spreads
    rescale_factor: Annotated[float, Field(ge=1e-9, le=1e3)] | None
    resample: Annotated[int, Field(ge=0, le=5)] | None


def settings_files(folder: str | Path, part: str, alone: str) -> tuple[Any, Path]:
    """The settings of pictures or videos, and the file that they stand in: `processor_config.json` (its `part`) or `alone`.

    None if neither is there. Raises InputError for a file that is no JSON object.
    """
    for name in ("processor_config.json", alone):
        path = Path(folder) / name
        if os.path.lexists(path):
            raw = validate(read_json(path, "a settings file"), path, "a settings file", dict)
            if name == alone or raw.get(part) is not None:
                return (raw if name == alone else raw[part]), path
    return None, Path(folder) / alone


def common_settings(raw: PixelsFile) -> dict[str, Any]:
    """The fields of `ImageSettings` that a settings file of pictures or videos gives."""
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if raw.get(step) is False:
            raise InputError(f"the image settings switch {step} off, but Qwen3-VL images need it: set it to true")
    size: SizeFile = raw.get("size") or {}
    found: dict[str, Any] = {
        **{name: raw.get(name) for name in ("patch_size", "temporal_patch_size", "merge_size")},
        "min_pixels": _first(raw.get("min_pixels"), size.get("shortest_edge"), size.get("min_pixels")),
        "max_pixels": _first(raw.get("max_pixels"), size.get("longest_edge"), size.get("max_pixels")),
        "mean": _per_channel(raw.get("image_mean")),
        "std": _per_channel(raw.get("image_std")),
        "rescale_factor": raw.get("rescale_factor"),
        "resample": raw.get("resample"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _per_channel(value: float | list[float] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, list) else (value,) * 3
