"""Videos to patch rows and timestamps: what transformers' `Qwen3VLVideoProcessor` computes, in PIL and numpy."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from pydantic import Field

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reading, shown, validate
from qwen3vl_jax.images import (
    Area,
    ImageLike,
    ImageSettings,
    PixelsFile,
    common_settings,
    cut,
    open_image,
    opened,
    settings_files,
)

VIDEO_PAD = "<|video_pad|>"
"""What stands for a whole video in a rendered conversation, and for each of its merged cells in a prompt."""

DEFAULT_RATE = 24.0
"""Frames per second of a video that does not say, as transformers assumes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """A silent video.

    Attributes:
      frames: a uint8 array [frame, height, width, 3], a list of pictures, an animated GIF, WebP or PNG file, or a
        folder with one picture file per frame (ordered by name, numbers by value).
      fps: frames per second; None takes what an animated file says of its first frame, and else 24.
    """

    frames: np.ndarray | Sequence[ImageLike] | str | os.PathLike[str]
    fps: int | float | None = None


VIDEO_DEFAULTS: dict[str, Any] = dict(min_pixels=128 * 32 * 32, max_pixels=32 * 32 * 768)
"""Of transformers' `Qwen3VLVideoProcessor`, where they differ from what the official checkpoints state."""


class VideoFile(PixelsFile, total=False):
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    min_frames: Area | None
    max_frames: Area | None
    do_sample_frames: bool | None
    cap_pixels_per_frame: bool | None
    max_video_tokens: Area | None


@dataclasses.dataclass(frozen=True)
class VideoSettings(ImageSettings):
    """How a checkpoint wants its videos. The defaults are those of the official Qwen3-VL checkpoints.

    `min_pixels` and `max_pixels` bound the volume (frames x height x width) of the resized video. `fps` frames per
    second are taken, `min_frames` to `max_frames` in all; None takes every frame. `frame_cells`, if given, also bounds
    the merged cells of a single frame.
    """

    min_pixels: int = 4096
    max_pixels: int = 25_165_824
    fps: int | float | None = 2
    min_frames: int = 4
    max_frames: int = 768
    frame_cells: int | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "VideoSettings":
        """Reads `processor_config.json` (its `video_processor`) or `video_preprocessor_config.json`.

        Without either, patches and normalisation are those of the checkpoint's pictures, the rest is official.
        """
        raw, path = settings_files(folder, "video_processor", "video_preprocessor_config.json")
        if raw is not None:
            return cls.from_dict(raw, path)
        shared = dataclasses.asdict(ImageSettings.load(folder))
        return cls(**{name: value for name, value in shared.items() if name not in ("min_pixels", "max_pixels")})

    @classmethod
    def from_dict(cls, raw: object, source: object = "the video settings") -> "VideoSettings":
        """Reads `video_preprocessor_config.json`; raises InputError like `ImageSettings.from_dict`."""
        file = validate(raw, source, "a settings file of videos", VideoFile)
        found: dict[str, Any] = {
            name: value for name in ("fps", "min_frames", "max_frames") if (value := file.get(name)) is not None
        }
        if file.get("do_sample_frames") is False:
            found["fps"] = None
        if file.get("cap_pixels_per_frame"):
            found["frame_cells"] = file.get("max_video_tokens") or 768
        return cls(**VIDEO_DEFAULTS | common_settings(file) | found)


class Clip(NamedTuple):
    """A video as the model sees it: one entry per temporal patch, all of one grid (rows, cols) in patches."""

    patches: Float[np.ndarray, "time patch pixel"]
    grid: tuple[int, int]
    seconds: Float[np.ndarray, " time"]

    def timestamps(self) -> str:
        """The text that takes the place of the video's placeholder: every temporal patch after its time.

        As `Qwen3VLProcessor.replace_video_token` of transformers 5, but with one placeholder for all cells of a patch.
        """
        return "".join(f"<{second:.1f} seconds><|vision_start|>{VIDEO_PAD}<|vision_end|>" for second in self.seconds)


def patchify_video(video: Video, settings: VideoSettings) -> Clip:
    """Samples, resizes, normalises and cuts a video; an odd last frame is repeated.

    Frames are resampled as pictures are, in PIL: transformers' torchvision differs by up to two grey levels where sizes
    change, and not at all where they do not. The time of a temporal patch is the mean of its first and its last frame's.
    Raises InputError like `images.open_image` for each frame, and for fewer frames than a temporal patch has (two), frames
    of several sizes, an extreme side ratio or an impossible frame rate.
    """
    count, rate, read = _source(video)
    chosen = sample(count, rate, settings)
    kind, each = Image.Resampling(settings.resample), settings.temporal_patch_size
    if len(chosen) < each:
        raise InputError(f"a video of {len(chosen)} frames cannot be used: give at least {each}")
    pictures = read(chosen)
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise InputError(f"the frames of a video must have one size (width, height), got {sizes[0]} and {sizes[1]}")
    height, width = smart_resize(len(pictures), sizes[0][1], sizes[0][0], settings)
    resized = [np.asarray(picture.resize((width, height), kind)) for picture in pictures]
    pixels = _whole(np.stack(resized), each)
    patches = np.stack([cut(frames, settings).reshape(-1, 3 * each * settings.patch_size**2) for frames in pixels])
    seconds = _whole(chosen / rate, each)
    grid = (height // settings.patch_size, width // settings.patch_size)
    return Clip(patches, grid, (seconds[:, 0] + seconds[:, -1]) / 2)


def sample(count: int, rate: int | float, settings: VideoSettings) -> Int[np.ndarray, " frame"]:
    """Which of `count` frames at `rate` a second are read: evenly spread, as `Qwen3VLVideoProcessor.sample_frames`."""
    if settings.fps is None:
        return np.arange(count)
    wanted = int(count / rate * settings.fps)
    wanted = min(max(wanted, settings.min_frames), settings.max_frames, count)
    return np.linspace(0, count - 1, wanted).round().astype(int)


def smart_resize(frames: int, height: int, width: int, settings: VideoSettings) -> tuple[int, int]:
    """The (height, width) that frames are resized to: multiples of `settings.factor`, the volume within bounds.

    Follows `smart_resize` and `resize` of transformers' `video_processing_qwen3_vl.py`. Raises InputError for empty
    frames and a side ratio above 200.
    """
    factor, most = settings.factor, settings.max_pixels
    if settings.frame_cells is not None:
        share = min(settings.frame_cells * factor**2, most // frames)
        most = frames * max(share, int(settings.min_pixels * 1.05))
    if 0 < min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise InputError(f"frames of {width} x {height} pixels cannot be used: the side ratio must be at most 200")
    rows, cols = round(height / factor), round(width / factor)
    volume = round(frames / settings.temporal_patch_size) * settings.temporal_patch_size * rows * cols * factor**2
    if volume > most:
        shrink = math.sqrt(frames * height * width / most)
        rows, cols = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif volume < settings.min_pixels:
        enlarge = math.sqrt(settings.min_pixels / (frames * height * width))
        rows, cols = (math.ceil(side * enlarge / factor) for side in (height, width))
    return rows * factor, cols * factor


Read = Callable[[Int[np.ndarray, " frame"]], list[Image.Image]]


def _source(video: Video) -> tuple[int, int | float, Read]:
    """How many frames there are, how many a second, and what opens some of them as RGB."""
    frames, rate = video.frames, video.fps
    known = isinstance(rate, Real) and not isinstance(rate, bool)
    if rate is not None and not (known and 0 < rate < math.inf):
        raise InputError(f"a video cannot have {shown(rate)} frames per second: give a positive number, or None")
    if isinstance(frames, np.ndarray) and (frames.ndim != 4 or frames.dtype != np.uint8):
        raise InputError(
            f"a video array must be uint8 of shape [frame, height, width, 3], got {frames.dtype} of shape {frames.shape}"
        )
    if isinstance(frames, str | os.PathLike):
        path = Path(frames)
        if not os.path.isdir(path):
            return _animation(path, rate)
        frames = _pictures(path)
    if not isinstance(frames, np.ndarray | Sequence):
        raise InputError(f"a video is an array, a list of pictures, a file or a folder, not a {type(frames).__name__}")
    return len(frames), rate or DEFAULT_RATE, lambda chosen: [open_image(frames[index]) for index in chosen]


def _animation(path: Path, rate: int | float | None) -> tuple[int, int | float, Read]:
    def read(chosen: Int[np.ndarray, " frame"]) -> list[Image.Image]:
        with opened(path) as file:
            return [_seek(file, int(index)) for index in chosen]

    with opened(path) as file:
        file.load()  # only then does WebP know
        milliseconds = file.info.get("duration")
        return getattr(file, "n_frames", 1), rate or (1000 / milliseconds if milliseconds else DEFAULT_RATE), read


def _seek(file: Image.Image, frame: int) -> Image.Image:
    file.seek(frame)
    return open_image(file)


def _pictures(folder: Path) -> list[Path]:
    """The picture files of a folder in the order of their names, in which 10 comes after 9."""
    known = Image.registered_extensions()
    with reading(folder, "a folder of frames"):
        found = [path for path in folder.iterdir() if path.suffix.lower() in known]
    return sorted(found, key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])


def _whole(frames: np.ndarray, each: int) -> np.ndarray:
    """Groups of `each` frames, the last frame repeated where they do not come out even."""
    padded = np.concatenate([frames, np.repeat(frames[-1:], -len(frames) % each, axis=0)])
    return padded.reshape(-1, each, *frames.shape[1:])
