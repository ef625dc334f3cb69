"""`videos` against transformers' `Qwen3VLVideoProcessor`, of which only the calls into torchvision are replaced."""

import importlib
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import IMAGE_DEFAULTS, ImageSettings
from qwen3vl_jax.processing.videos import Video, VideoSettings, patchify_video, sample, smart_resize

# The package itself offers a stub in its place where torchvision is missing.
reference_module = importlib.import_module("transformers.models.qwen3_vl.video_processing_qwen3_vl")
OFFICIAL = dict(
    size={"shortest_edge": 4096, "longest_edge": 25_165_824},
    image_mean=[0.5] * 3,
    image_std=[0.5] * 3,
    cap_pixels_per_frame=False,
)
SMALL = {**OFFICIAL, "size": {"shortest_edge": 4 * 64 * 64, "longest_edge": 20 * 128 * 128}}


class Resample(TorchvisionBackend):
    """Stands where torchvision would: resampling in PIL, normalising in torch."""

    def resize(self, image, size, resample, **_):
        frames = image.flatten(0, 1).permute(0, 2, 3, 1).numpy()
        resized = [Image.fromarray(frame).resize((size.width, size.height), int(resample)) for frame in frames]
        return torch.tensor(np.stack(resized)).permute(0, 3, 1, 2).unflatten(0, image.shape[:2])

    def normalize(self, image, mean, std, **_):
        return (image - torch.as_tensor(mean)[:, None, None]) / torch.as_tensor(std)[:, None, None]


class PilVideoProcessor(reference_module.Qwen3VLVideoProcessor, Resample):
    """The real one; in its order of methods `Resample` comes just before the torchvision backend."""

    def convert_to_rgb(self, video):
        return video


def frames(count, height=70, width=100, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def reference(video, rate, **settings):
    """Patches, grid (time, rows, cols) and the times in the prompt."""
    processor = PilVideoProcessor(**{**SMALL, **settings})
    metadata = [VideoMetadata(total_num_frames=len(video), fps=rate)]
    out = processor([video], video_metadata=metadata, return_metadata=True, return_tensors="pt")
    (found,) = out["video_metadata"]
    seconds = Qwen3VLProcessor._calculate_timestamps(
        None, found.frames_indices, found.fps, processor.temporal_patch_size
    )
    return out["pixel_values_videos"].numpy(), out["video_grid_thw"][0].tolist(), seconds


def assert_equal(video, rate, **settings):
    clip = patchify_video(Video(video, rate), VideoSettings.from_dict({**SMALL, **settings}))
    patches, grid, seconds = reference(video, rate, **settings)
    assert [len(clip.seconds), *clip.grid] == grid
    assert clip.patches.dtype == np.float32
    np.testing.assert_allclose(clip.patches.reshape(patches.shape), patches, atol=2e-7, rtol=0)
    np.testing.assert_array_equal(clip.seconds, seconds)


@pytest.mark.parametrize("fps", [None, 1, 2.0, 29.97])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 30, 61])
def test_clips_equal_transformers(count, fps):
    assert_equal(frames(count), fps)


@pytest.mark.parametrize("size", [(9, 11), (33, 400), (300, 17), (257, 255)])
def test_clips_equal_transformers_at_odd_sizes(size):
    assert_equal(frames(7, *size), 3)


def test_clips_equal_transformers_with_other_settings():
    assert_equal(frames(40), 8, fps=3, min_frames=6, max_frames=9)
    assert_equal(frames(6, 200, 300), 2, cap_pixels_per_frame=True, max_video_tokens=12)
    assert_equal(frames(9), 4, patch_size=14, temporal_patch_size=3, image_mean=[0.48, 0.45, 0.41], resample=2)


def test_patches_hold_their_own_two_frames():
    """Without transformers: every patch, pixel by pixel, where no resizing is needed."""
    video = frames(5, 64, 96)
    clip = patchify_video(Video(video, 2), VideoSettings(min_pixels=1))
    assert (clip.patches.shape, clip.grid) == ((3, 24, 1536), (4, 6))
    assert re.findall(r"<([\d.]+) seconds>", clip.timestamps()) == ["0.2", "1.2", "2.0"]
    for time, pair in enumerate([(0, 1), (2, 3), (4, 4)]):
        for number, rows in enumerate(clip.patches[time]):
            block, inside = divmod(number, 4)
            row, col = block // 3 * 2 + inside // 2, block % 3 * 2 + inside % 2
            want = video[list(pair), 16 * row : 16 * row + 16, 16 * col : 16 * col + 16].transpose(3, 0, 1, 2)
            np.testing.assert_allclose(rows, want.reshape(-1) / 127.5 - 1, atol=2e-7, rtol=0)


def test_sampling_equals_transformers():
    rng = np.random.default_rng(1)
    processor = PilVideoProcessor(**OFFICIAL)
    for count in [2, 3, 4, 5, *rng.integers(2, 5000, 300).tolist()]:
        for fps in (24, float(rng.uniform(0.5, 60))):
            want = processor.sample_frames(VideoMetadata(total_num_frames=count, fps=fps), fps=2)
            np.testing.assert_array_equal(sample(count, fps, VideoSettings()), want)
    assert sample(4000, 1, VideoSettings()).size == 768
    np.testing.assert_array_equal(sample(7, 24, VideoSettings(fps=None)), np.arange(7))


@pytest.mark.parametrize("cap", [False, True])
def test_sizes_equal_transformers(cap):
    rng = np.random.default_rng(2)
    raw = {**OFFICIAL, "cap_pixels_per_frame": cap, "max_video_tokens": 100}
    processor, settings = PilVideoProcessor(**raw), VideoSettings.from_dict(raw)
    for height, width, count in np.exp(rng.uniform(1, 8, (2000, 3))).astype(int).tolist():
        if max(height, width) <= 150 * min(height, width):
            rows, cols = (side // 16 for side in smart_resize(count, height, width, settings))
            patches = processor.get_num_of_video_patches(count, height, width)
            assert math.ceil(count / 2) * rows * cols == patches


def test_still_frames_are_a_still_picture():
    """Both slices of the patch alike, as in a picture."""
    still = np.repeat(frames(1), 4, axis=0)
    values = patchify_video(Video(still), VideoSettings()).patches.reshape(2, -1, 3, 2, 16, 16)
    np.testing.assert_array_equal(values[:, :, :, 0], values[:, :, :, 1])
    moving = patchify_video(Video(frames(4)), VideoSettings()).patches.reshape(2, -1, 3, 2, 16, 16)
    assert np.abs(moving[:, :, :, 0] - moving[:, :, :, 1]).max() > 1


def as_array(pictures, _):
    return pictures


def as_list(pictures, _):
    return [Image.fromarray(picture) for picture in pictures]


def as_folder(pictures, folder):
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"frame{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    return folder


def as_webp(pictures, folder):
    first, *rest = as_list(pictures, folder)
    first.save(folder / "a.webp", save_all=True, append_images=rest, duration=250, lossless=True)
    return str(folder / "a.webp")


def as_png(pictures, folder):
    first, *rest = as_list(pictures, folder)
    first.save(folder / "a.png", save_all=True, append_images=rest, duration=250)
    return folder / "a.png"


@pytest.mark.parametrize("form", [as_array, as_list, as_folder, as_webp, as_png])
def test_every_form_of_a_video_is_the_same(form, tmp_path):
    """Eleven frames, of which ten are read: 10 comes after 9 in a folder."""
    video = frames(11)
    want = patchify_video(Video(video, 2.2), VideoSettings())
    got = patchify_video(Video(form(video, tmp_path), 2.2), VideoSettings())
    np.testing.assert_array_equal(got.patches, want.patches)
    np.testing.assert_array_equal(got.seconds, want.seconds)
    assert len(got.seconds) == 5


def test_frame_rates(tmp_path):
    """Given, else from the file, else 24."""
    video, settings = frames(12), VideoSettings(fps=None)
    last = lambda frames, fps=None: patchify_video(Video(frames, fps), settings).seconds[-1]  # noqa: E731
    assert last(video) == 10.5 / 24
    assert last(as_webp(video, tmp_path)) == last(as_png(video, tmp_path)) == 10.5 / 4
    assert last(as_png(video, tmp_path), 1) == 10.5
    gif = [Image.fromarray(frame) for frame in video]
    gif[0].save(tmp_path / "a.gif", save_all=True, append_images=gif[1:], duration=500)
    assert last(tmp_path / "a.gif") == 10.5 / 2


def test_settings_are_read(tmp_path):
    raw = {**SMALL, "fps": 4, "min_frames": 2, "max_frames": 8, "patch_size": 8}
    want = VideoSettings(
        patch_size=8, min_pixels=4 * 64 * 64, max_pixels=20 * 128 * 128, fps=4, min_frames=2, max_frames=8
    )
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(raw))
    assert VideoSettings.load(tmp_path) == want
    (tmp_path / "video_preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": raw}))
    assert VideoSettings.load(tmp_path) == want
    assert VideoSettings.from_dict({"do_sample_frames": False}).fps is None
    assert VideoSettings.from_dict({"cap_pixels_per_frame": True}).frame_cells == 768
    with pytest.raises(InputError, match="do_resize"):
        VideoSettings.from_dict({"do_resize": False})


def test_without_settings_pictures_say_how_to_cut(tmp_path):
    assert VideoSettings.load(tmp_path) == VideoSettings() == VideoSettings.from_dict(OFFICIAL)
    raw = {"patch_size": 8, "image_mean": [0.1, 0.2, 0.3], "size": {"shortest_edge": 5, "longest_edge": 6}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
    assert VideoSettings.load(tmp_path) == VideoSettings(patch_size=8, mean=(0.1, 0.2, 0.3), std=IMAGE_DEFAULTS["std"])
    assert ImageSettings.load(tmp_path).max_pixels == 6


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (Video(frames(1)), "1 frames"),
        (Video([]), "at least 2"),
        (Video(frames(4).astype(np.float32)), "uint8 of shape"),
        (Video(frames(4)[0]), "uint8 of shape"),
        (Video(frames(4).transpose(0, 3, 1, 2)), "uint8 of shape"),
        (Video([*frames(2), *frames(2, 32, 32)]), r"one size .* \(32, 32\) and \(100, 70\)"),
        (Video(frames(4, 1, 201)), "side ratio"),
        (Video(frames(4, 0, 20)), "20 x 0 pixels"),
        (Video(frames(4), 0), "0 frames per second"),
        (Video(frames(4), float("nan")), "frames per second"),
        (Video("missing.gif"), "no image at"),
        (Video(["missing.png"] * 4), "no image at"),
    ],
    ids=str,
)
def test_videos_that_cannot_be_used_are_errors(video, message):
    with pytest.raises(InputError, match=message):
        patchify_video(video, VideoSettings())


def test_files_that_hold_no_video_are_errors(tmp_path):
    with pytest.raises(InputError, match="0 frames"):
        patchify_video(Video(tmp_path), VideoSettings())
    (tmp_path / "text.gif").write_text("not a video")
    with pytest.raises(InputError, match="cannot be read"):
        patchify_video(Video(tmp_path / "text.gif"), VideoSettings())
    Image.fromarray(frames(1)[0]).save(tmp_path / "still.png")
    with pytest.raises(InputError, match="1 frames"):
        patchify_video(Video(tmp_path / "still.png"), VideoSettings())
