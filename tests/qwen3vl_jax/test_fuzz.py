"""Spoiled settings, tokenizers, templates, pictures and videos: nothing but InputError, or what can be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import ImageSettings, open_image, opened, orientation, patchify
from qwen3vl_jax.processing import CHAT_TEMPLATE, Processor
from qwen3vl_jax.processing.chat_template import saved_template
from qwen3vl_jax.processing.videos import Video, VideoSettings, patchify_video

from ..spoiling import Edit, edits, fuzz, mutations, spoiled

CHECKPOINT = Path(__file__).parents[2] / "gaze" / "testbed" / "checkpoint"
FORMATS = ["png", "jpg", "webp", "gif", "avif", "dds", "jp2", "tiff", "bmp", "ico", "tga", "ppm"]
EXIF = ["png", "jpg", "webp", "tiff", "avif"]
MOVING = ["gif", "webp", "png", "tiff", "avif"]
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "t"}]},
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a processor reads, in each of the forms that it may have."""
    folder = tmp_path_factory.mktemp("processors")
    names = ["config", "preprocessor_config", "tokenizer", "tokenizer_config"]
    for form in ("files", "named", "listed", "pieces"):
        (folder / form).mkdir()
        for name in names:
            shutil.copy(CHECKPOINT / f"{name}.json", folder / form)
    shutil.copy(CHECKPOINT / "chat_template.jinja", folder / "files")
    write(folder / "named" / "chat_template.json", {"chat_template": {"default": CHAT_TEMPLATE, "other": "x"}})
    pixels = read(CHECKPOINT / "preprocessor_config.json")
    video = {"fps": 2, "min_frames": 2, "max_frames": 4, "do_sample_frames": True}
    write(folder / "files" / "video_preprocessor_config.json", pixels | video)
    write(folder / "named" / "processor_config.json", {"image_processor": pixels, "video_processor": pixels | video})
    tokenizer = read(CHECKPOINT / "tokenizer_config.json")
    listed = [{"name": "default", "template": CHAT_TEMPLATE}, {"name": "other", "template": "x"}]
    write(folder / "listed" / "tokenizer_config.json", tokenizer | {"chat_template": listed})
    write(folder / "listed" / "special_tokens_map.json", {"eos_token": {"content": "<|im_end|>", "lstrip": False}})
    model = read(folder / "pieces" / "tokenizer.json")
    write(folder / "pieces" / "vocab.json", model["model"]["vocab"])
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["model"]["merges"]]
    (folder / "pieces" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = {str(token["id"]): token for token in model["added_tokens"]}
    write(folder / "pieces" / "tokenizer_config.json", tokenizer | {"added_tokens_decoder": added})
    (folder / "pieces" / "tokenizer.json").unlink()
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, raw: Any) -> None:
    path.write_text(json.dumps(raw))


def use(folder: Path) -> bool:
    """Everything that is done with a processor before the model runs."""
    processor = Processor.load(folder)
    text = processor.render(MESSAGES)
    batch = processor([text + " é <|im_end|>"], [[PICTURE]], [[Video(np.stack([PICTURE] * 4))]])
    assert batch.images is not None
    assert np.isfinite(np.asarray(batch.images.patches)).all()
    tokens = np.asarray(batch.prompt.tokens)
    assert tokens.min() >= 0
    assert tokens.max() < processor.config.text.vocab_size
    assert isinstance(processor.decode(tokens[0]), str)
    return True


def members(folder: Path, suffix: str = "") -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(suffix))


@fuzz(400, nightly=7_000)
@given(st.integers(0), edits())
def test_any_byte_of_a_processor(checkpoints: Path, number: int, edit: Edit) -> None:
    paths = members(checkpoints)
    path = paths[number % len(paths)]
    spoiled(path.parent, path, edit, use)


@fuzz(400, nightly=7_000)
@given(st.integers(0), mutations())
def test_any_value_of_a_processor(checkpoints: Path, number: int, mutate: Callable[[Any], Any]) -> None:
    paths = [path for path in members(checkpoints, ".json") if path.name != "vocab.json"]
    path = paths[number % len(paths)]
    spoiled(path.parent, path, lambda before: json.dumps(mutate(json.loads(before))).encode(), use)


@fuzz(300, nightly=4_000)
@given(st.sampled_from(["Config", "ImageSettings", "VideoSettings"]), mutations())
def test_any_value_of_the_settings(tmp_path: Path, kind: str, mutate: Callable[[Any], Any]) -> None:
    """Without the processor around them, which refuses most of what is odd."""
    readers = {"Config": Config.load, "ImageSettings": ImageSettings.load, "VideoSettings": VideoSettings.load}
    names = {"Config": "config.json", "VideoSettings": "video_preprocessor_config.json"}
    name = names.get(kind, "preprocessor_config.json")
    source = CHECKPOINT / ("config.json" if kind == "Config" else "preprocessor_config.json")

    def load(folder: Path) -> object:
        found = readers[kind](folder)
        return found if kind == "Config" or kind == "VideoSettings" else finite(found)

    (tmp_path / name).write_bytes(source.read_bytes())
    spoiled(tmp_path, tmp_path / name, lambda before: json.dumps(mutate(json.loads(before))).encode(), load)


def finite(settings: Any) -> bool:
    patches, _ = patchify(PICTURE, settings)
    assert np.isfinite(patches).all()
    return True


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each format, turned by EXIF where that is kept, and several that move."""
    folder = tmp_path_factory.mktemp("pictures")
    image = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a description", 72.0
    for form in FORMATS:
        image.save(folder / f"still.{form}")
    for form in EXIF:
        image.save(folder / f"turned.{form}", exif=exif)
    for form, mode in (("png", "RGBA"), ("png", "P"), ("png", "LA"), ("gif", "P"), ("webp", "RGBA"), ("jpg", "CMYK")):
        image.convert(mode).save(folder / f"{mode}.{form}")
    return folder


@pytest.fixture(scope="module")
def animations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animations")
    frames = [Image.fromarray(np.roll(PICTURE, turn, axis=1)) for turn in range(4)]
    for form in MOVING:
        frames[0].save(folder / f"moving.{form}", save_all=True, append_images=frames[1:], duration=40)
    (folder / "frames").mkdir()
    for number, frame in enumerate(frames):
        frame.save(folder / "frames" / f"{number}.png")
    return folder


def look(path: Path) -> bool:
    with opened(path) as file:
        assert 1 <= orientation(file) <= 8
    picture = open_image(path)
    assert picture.mode == "RGB"
    patches, _ = patchify(picture, ImageSettings(min_pixels=4096))
    assert np.isfinite(patches).all()
    return True


def watch(path: Path) -> bool:
    clip = patchify_video(Video(path.parent if path.parent.name == "frames" else path), VideoSettings())
    assert np.isfinite(clip.patches).all()
    assert np.isfinite(clip.seconds).all()
    return bool(clip.timestamps())


@fuzz(600, nightly=7_000)
@given(st.integers(0), st.integers(0), st.booleans(), edits())
def test_any_byte_of_a_picture(pictures: Path, number: int, other: int, joined: bool, edit: Edit) -> None:
    paths = members(pictures)
    path, more = paths[number % len(paths)], paths[other % len(paths)].read_bytes()

    def change(before: bytes) -> bytes:
        return edit(before[: len(before) // 2] + more[len(more) // 2 :] if joined else before)

    spoiled(pictures, path, change, lambda _: look(path))


@fuzz(200, nightly=2_000)
@given(st.integers(0), edits())
def test_any_byte_of_a_video(animations: Path, number: int, edit: Edit) -> None:
    paths = members(animations)
    path = paths[number % len(paths)]
    spoiled(animations, path, edit, lambda _: watch(path))


def test_unspoiled(checkpoints: Path, pictures: Path, animations: Path) -> None:
    assert all(use(folder) for folder in sorted(checkpoints.iterdir()))
    assert all(look(path) for path in members(pictures))
    assert all(watch(path) for path in members(animations))


@pytest.mark.parametrize("name", [["default"], {}, None, 1])
def test_templates_whose_name_is_no_text(tmp_path: Path, name: object) -> None:
    write(tmp_path / "chat_template.json", {"chat_template": [{"name": name, "template": CHAT_TEMPLATE}]})
    with pytest.raises(InputError, match="none that is called"):
        saved_template(tmp_path, None)
