"""`images` against transformers' `Qwen2VLImageProcessorPil`, bit for bit."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference_resize

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import (
    IMAGE_DEFAULTS,
    ImageSettings,
    open_image,
    opened,
    orientation,
    patchify,
    smart_resize,
    upright_size,
)

SMALL = dict(
    patch_size=16, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 64 * 64, "longest_edge": 256 * 256}
)
MODES = [
    "RGB",
    "RGBA",
    "L",
    "LA",
    "P",
    "P with transparency",
    "L with transparency",
    "RGB with transparency",
    "1",
    "CMYK",
]


def picture(seed, mode="RGB", size=None):
    """A random PIL image; sizes range from tiny to wide."""
    rng = np.random.default_rng(seed)
    width, height = size or (int(side) for side in rng.integers(3, 400, 2))
    base = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8))
    kind, transparent = mode.split()[0], "transparency" in mode
    image = base.convert(kind) if "A" in kind else base.convert("RGB").convert(kind)
    if transparent:
        image.info["transparency"] = {"P": bytes(rng.integers(0, 256, 256, np.uint8)), "L": 7, "RGB": (1, 2, 3)}[kind]
    return image


def reference(image, **settings):
    processor = Qwen2VLImageProcessorPil(**{**SMALL, **settings})
    out = processor(image, return_tensors="np")
    return out["pixel_values"], tuple(out["image_grid_thw"][0, 1:].tolist())


def assert_equal(image, settings=None, **reference_settings):
    patches, grid = patchify(image, settings or ImageSettings.from_dict(SMALL))
    want_patches, want_grid = reference(image, **reference_settings)
    assert grid == want_grid
    assert patches.dtype == want_patches.dtype == np.float32
    np.testing.assert_array_equal(patches, want_patches)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES)
def test_patches_equal_transformers_in_every_mode(mode, seed):
    assert_equal(picture(seed, mode))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (48, 48), (80, 112), (2000, 11), (641, 479), (1500, 900)])
def test_patches_equal_transformers_at_odd_sizes(size):
    assert_equal(picture(0, size=size))


def test_patches_equal_transformers_with_the_official_bounds():
    bounds = {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}}
    assert_equal(picture(1, size=(300, 200)), ImageSettings(), image_mean=[0.5] * 3, image_std=[0.5] * 3, **bounds)


def test_patches_equal_transformers_with_other_means_frames_and_filter():
    other = dict(
        patch_size=14, temporal_patch_size=3, image_mean=[0.48, 0.45, 0.41], image_std=[0.27, 0.26, 0.28], resample=2
    )
    assert_equal(picture(2), ImageSettings.from_dict({**SMALL, **other}), **other)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_uint8_arrays_are_pictures(channels):
    array = np.random.default_rng(3).integers(0, 256, (90, 70, *channels), np.uint8)
    patches, grid = patchify(array, ImageSettings.from_dict(SMALL))
    want_patches, want_grid = reference(np.atleast_3d(array))
    assert grid == want_grid
    np.testing.assert_array_equal(patches, want_patches)


def test_transparent_pixels_are_white():
    array = np.zeros((8, 8, 4), np.uint8)
    assert np.asarray(open_image(array)).min() == 255


def test_files_are_turned_as_their_exif_says(tmp_path):
    image = picture(4, size=(40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    image.convert("RGB").save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").size == (20, 40)
    assert open_image(str(tmp_path / "turned.png")).mode == "RGB"


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(turn, form, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / f"turned.{form}"
    picture(4, size=(40, 20)).convert("RGB").save(path, exif=exif)
    with Image.open(path) as file:
        wanted = ImageOps.exif_transpose(file).convert("RGB")
    np.testing.assert_array_equal(open_image(path), wanted)
    with opened(path) as file:
        assert orientation(file) == turn
        assert upright_size(file) == wanted.size
    assert wanted.size == ((20, 40) if turn >= 5 else (40, 20))
    stored = open_image(path, upright=False)
    assert stored.size == (40, 20)
    picture(4, size=(40, 20)).convert("RGB").save(path)
    np.testing.assert_array_equal(stored, open_image(path))


@pytest.mark.parametrize("turn", [0, 9, 65_535])
def test_orientations_without_meaning_leave_pixels_as_they_are(turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(4, size=(40, 20)).convert("RGB").save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        open_image(tmp_path / "turned.png"), open_image(tmp_path / "turned.png", upright=False)
    )


def test_an_open_file_that_is_cut_off_is_an_error(tmp_path):
    picture(6, size=(99, 99)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    with Image.open(tmp_path / "cut.png") as file, pytest.raises(InputError, match="cannot be read as an image"):
        open_image(file)


def test_a_picture_that_unpacks_to_more_than_pillow_opens_is_an_error(tmp_path):
    header = b"P5 60000 60000 255\n"  # 3.6 billion pixels
    (tmp_path / "bomb.pgm").write_bytes(header + bytes(1000))
    with pytest.raises(InputError, match="decompression bomb"):
        open_image(tmp_path / "bomb.pgm")


def test_smart_resize_equals_transformers():
    rng = np.random.default_rng(5)
    for height, width in np.exp(rng.uniform(0, 9, (2000, 2))).astype(int).tolist():
        if max(height, width) <= 200 * min(height, width):
            bounds = (32, 256 * 256, 1024 * 1024)
            assert smart_resize(height, width, *bounds) == reference_resize(height, width, *bounds)


@pytest.mark.parametrize(
    ("before", "after"),
    [((200, 300), (224, 320)), ((1000, 1000), (992, 992)), ((48, 48), (256, 256)), ((4097, 4100), (4096, 4096))],
)
def test_smart_resize_rounds_halves_to_even(before, after):
    assert smart_resize(*before, 32, 65_536, 16_777_216) == after


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (0, 5)])
def test_extreme_sides_are_an_error(size):
    with pytest.raises(InputError, match="side ratio"):
        smart_resize(*size, 32, 65_536, 16_777_216)


HUB = {"size": {"shortest_edge": 1024, "longest_edge": 4096}, "patch_size": 8, "image_mean": [0.1, 0.2, 0.3]}
TOP = {"min_pixels": 1024, "max_pixels": 4096, "patch_size": 8, "image_mean": [0.1, 0.2, 0.3]}
BOTH = {**TOP, "size": {"min_pixels": 5, "max_pixels": 6}}


@pytest.mark.parametrize("raw", [HUB, TOP, BOTH])
def test_dialects_of_the_settings_agree(raw, tmp_path):
    want = ImageSettings(
        patch_size=8, min_pixels=1024, max_pixels=4096, mean=(0.1, 0.2, 0.3), std=IMAGE_DEFAULTS["std"]
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
    assert ImageSettings.load(tmp_path) == want
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": raw}))
    assert ImageSettings.load(tmp_path) == want


def test_settings_saved_by_transformers_are_read(tmp_path):
    Qwen2VLImageProcessorPil(**{**SMALL, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}).save_pretrained(tmp_path)
    assert ImageSettings.load(tmp_path) == ImageSettings(min_pixels=64 * 64, max_pixels=256 * 256)


def test_a_folder_without_settings_means_the_official_ones(tmp_path):
    assert ImageSettings.load(tmp_path) == ImageSettings()


@pytest.mark.parametrize("left_out", ["size", "image_mean", "image_std", "patch_size", "merge_size", "rescale_factor"])
def test_what_a_file_leaves_out_is_as_in_transformers(left_out, tmp_path):
    raw = {
        "size": {"shortest_edge": 64 * 64, "longest_edge": 256 * 256},
        "image_mean": [0.1] * 3,
        "image_std": [0.2] * 3,
    }
    raw |= {"patch_size": 16, "merge_size": 2, "rescale_factor": 1 / 255}
    del raw[left_out]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
    patches, grid = patchify(picture(3), ImageSettings.load(tmp_path))
    wanted = Qwen2VLImageProcessorPil(**raw)(picture(3), return_tensors="np")
    np.testing.assert_array_equal(patches, wanted["pixel_values"])
    assert grid == tuple(wanted["image_grid_thw"][0, 1:].tolist())


@pytest.mark.parametrize(
    "raw",
    [
        {"size": 448}, {"size": [448, 448]}, {"image_std": [0.5, 0, 0.5]}, {"image_std": 0}, {"image_mean": "0.5"},
        {"image_mean": [0.5, 0.5]}, {"patch_size": 16.0}, {"patch_size": True}, {"min_pixels": -1}, {"resample": 99},
        {"image_std": 1e-320}, {"image_mean": 1e300}, {"min_pixels": 2**40}, {"merge_size": 1000},
        {"size": {"shortest_edge": True}},
        {"rescale_factor": 1e-320}, {"rescale_factor": 0}, {"rescale_factor": float("inf")},
        [], "text", None, {"do_resize": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_other_types_are_an_error(raw):
    with pytest.raises(InputError):
        ImageSettings.from_dict(raw)


def test_settings_that_skip_a_step_are_an_error():
    with pytest.raises(InputError, match="do_resize"):
        ImageSettings.from_dict({"do_resize": False})


def test_broken_settings_are_an_error(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a settings file"):
        ImageSettings.load(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture_are_an_error(array):
    with pytest.raises(InputError, match="uint8 of shape"):
        open_image(array)


def test_files_that_are_no_picture_are_an_error(tmp_path):
    with pytest.raises(InputError, match="no image at"):
        open_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="cannot be read"):
        open_image(tmp_path / "text.png")
    picture(6, size=(99, 99)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    with pytest.raises(InputError, match="cannot be read"):
        open_image(tmp_path / "cut.png")
    with pytest.raises(InputError, match="cannot be read"):
        open_image(tmp_path)


def test_pixels_of_sixteen_bits_are_an_error():
    with pytest.raises(InputError, match="8 bits"):
        open_image(Image.fromarray(np.full((4, 4), 60_000, np.uint16)))
