"""Prompts with videos: tokens and positions against transformers' processor, logits, mistakes that must show, decoding."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_utils import VideoMetadata

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.processing.processor import CHAT_TEMPLATE, Processor
from qwen3vl_jax.processing.videos import Video

from ...toys import START, VIDEO, batch_rows, encode, follow, make_row, read
from .test_processor import IMAGES, PilProcessor, assert_tokens_and_positions_equal, save_checkpoint
from .test_videos import SMALL, PilVideoProcessor, frames

LOGITS = 1e-4
MOVING, STILL = {"type": "video"}, {"type": "image"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    PilVideoProcessor(**SMALL).to_json_file(folder / "video_preprocessor_config.json")
    return folder


@pytest.fixture(scope="module")
def processor(folder):
    return Processor.load(folder)


@pytest.fixture(scope="module")
def reference(folder):
    images, videos = Qwen2VLImageProcessorPil(**IMAGES), PilVideoProcessor(**SMALL)
    return PilProcessor(images, AutoTokenizer.from_pretrained(folder), videos, chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def clips():
    sizes = [(10, 70, 100, 8), (5, 64, 64, None), (33, 120, 40, 29.97)]
    return [Video(frames(*size, seed=number), fps) for number, (*size, fps) in enumerate(sizes)]


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(frames(1, 60, 90)[0]), Image.fromarray(frames(1, 200, 40)[0])]


def turn(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


def expect(reference, texts, images, videos):
    """What transformers' processor makes of the same."""
    flat = [video for row in videos for video in row]
    metadata = [VideoMetadata(total_num_frames=len(video.frames), fps=video.fps) for video in flat]
    moving = dict(videos=[video.frames for video in flat], video_metadata=metadata) if flat else {}
    stills = [image for row in images for image in row] or None
    return reference(text=list(texts), images=stills, padding=True, return_tensors="pt", **moving)


def mixtures(pictures, clips):
    """(conversation, pictures, videos): from no video to several, beside pictures on both sides."""
    return [
        (turn(MOVING, "What happens?"), [], clips[:1]),
        (turn("Look: ", MOVING, "and", STILL, "then", MOVING, "Compare."), pictures[:1], clips[1:]),
        (turn(STILL, STILL, MOVING, "Why?"), pictures, clips[2:]),
        (turn("Hello"), [], []),
    ]


@pytest.mark.parametrize("rows", [[0], [1], [2, 3], [3, 1, 0, 2]], ids=str)
def test_batches_equal_transformers(rows, folder, processor, reference, pictures, clips):
    conversations, images, videos = zip(*[mixtures(pictures, clips)[row] for row in rows], strict=True)
    texts = [processor.render(conversation) for conversation in conversations]
    prompt, made, grids = processor(texts, images, videos)
    want = expect(reference, texts, images, videos)
    kinds = want["mm_token_type_ids"].numpy()
    assert_tokens_and_positions_equal(prompt, want, folder)
    np.testing.assert_array_equal(prompt.image_cell >= 0, kinds > 0)
    assert made.patches.shape[0] == len(grids)
    for kind, pixels in ((1, "pixel_values"), (2, "pixel_values_videos")):
        blocks = made.patches.reshape(-1, 4, 1536)[prompt.image_cell[kinds == kind]]
        if kind in kinds:
            np.testing.assert_allclose(blocks.reshape(-1, 1536), want[pixels].numpy(), atol=2e-7, rtol=0)


def test_timestamps_stand_inside_the_marks_of_the_template(processor, clips):
    text = processor.chat("Why?", images=0, videos=1)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n"
    )
    prompt, made, grids = processor([text], videos=[clips[1:2]])
    cells = grids[0].prod() // 4
    frame = lambda seconds: f"<{seconds} seconds><|vision_start|>{'<|video_pad|>' * cells}<|vision_end|>"  # noqa: E731
    assert processor.tokenizer.decode(prompt.tokens[0].tolist()) == text.replace(
        "<|video_pad|>", frame("0.0") + frame("0.1")
    )
    assert len(made.patches) == len(grids) == 2


def test_the_same_video_is_encoded_once(processor, clips, pictures):
    texts = [processor.chat("Why?", images=1, videos=1), processor.chat("Who?", images=0, videos=1)]
    prompt, made, _ = processor(texts, [pictures[:1], []], [clips[:1], clips[:1]])
    stride = made.patches.shape[1] // 4
    first, second = (np.unique(row[row >= 0] // stride).tolist() for row in prompt.image_cell)
    assert first == [0, *second] == [0, 1, 2]


def test_slips_in_the_call_are_errors(processor, clips):
    text, video = processor.chat("Why?", images=0, videos=1), clips[0]
    call = inspect.unwrap(Processor.__call__)  # as users have it: without the run-time type checks of this suite
    wrong = [
        ((text,), [[]], "1 video placeholders, but got 0 videos"),
        ((text,), [[video, video]], "1 video placeholders, but got 2 videos"),
        ((text,), None, "1 video placeholders, but got 0 videos"),
        (("Why?",), [[video]], "0 video placeholders, but got 1 videos"),
        ((text,), [video], "one list per prompt"),
        ((text,), video, "got a single Video"),
        ((text, text), [[video]], "2 prompts and 1 lists of videos"),
        ((text,), [["clip.gif"]], r"give Video\(frames, fps\)"),
        ((text,), [[video.frames]], r"give Video\(frames, fps\)"),
    ]
    for texts, videos, message in wrong:
        with pytest.raises(InputError, match=message):
            call(processor, texts, None, videos)


SHOWN = [(3, 4, 6), (6, 4), (2, 2, 8)]
"""Two videos around a picture."""


def expected(toy, row):
    with torch.no_grad():
        return toy.reference(**row.reference()).logits[0].numpy()


def slices_swapped(row, images, prompt, config):
    pixels = images.patches.reshape(*images.patches.shape[:2], 3, 2, -1)
    return images.replace(patches=pixels[:, :, :, ::-1].reshape(images.patches.shape)), prompt


def frames_that_see_each_other(row, images, prompt, config):
    """The first video as one segment of the vision tower."""
    combined = lambda array: array[:3].reshape(1, -1, *array.shape[2:])  # noqa: E731
    rest = lambda array: np.pad(array[3:], [(0, 0), (0, 2 * array.shape[1]), *[(0, 0)] * (array.ndim - 2)])  # noqa: E731
    fields = ("patches", "valid", "pos_index", "pos_weight", "row_col")
    merged = {name: np.concatenate([f(getattr(images, name)) for f in (combined, rest)]) for name in fields}
    stride = images.patches.shape[1] // 4
    number, cell = np.divmod(prompt.image_cell, stride)
    shifted = np.where(number < 3, prompt.image_cell, (number - 2) * 3 * stride + cell)
    return images.replace(**merged), prompt.replace(image_cell=shifted.astype(np.int32))


def time_as_position(row, images, prompt, config):
    """Temporal patches one step of time apart, as in Qwen2-VL, in place of the text between them."""
    positions, start = prompt.positions.copy(), row.tokens.tolist().index(VIDEO)
    first = positions[0, start].copy()
    for step in range(3):
        here = slice(start + 11 * step, start + 11 * step + 6)
        positions[0, here] = positions[0, start : start + 6] if step else positions[0, here]
        positions[0, here, 0] = first[0] + step
    return images, prompt.replace(positions=positions)


def timestamps_ignored(row, images, prompt, config):
    """The same three words before every temporal patch."""
    tokens = row.tokens.copy()
    starts = np.flatnonzero((tokens[:-1] == START) & (tokens[1:] == VIDEO))
    for start in starts:
        tokens[start - 3 : start] = [1, 2, 3]
    return batch_rows([row._replace(tokens=tokens)], config)


def test_logits_equal_transformers(toy):
    """In one padded batch: a picture between videos, a video, a picture and a video, a video of one temporal patch."""
    rows = [make_row(shown, seed=seed) for seed, shown in enumerate([SHOWN, SHOWN[:1], SHOWN[1:], [(1, 4, 4), (4, 4)]])]
    images, prompt = batch_rows(rows, toy.config)
    logits, _ = read(toy.model, prompt, encode(toy.model, images))
    for row, got in zip(rows, np.asarray(logits), strict=True):
        np.testing.assert_allclose(got[-len(row.tokens) :], expected(toy, row), atol=LOGITS, rtol=0)


@pytest.mark.parametrize("mistake", [slices_swapped, frames_that_see_each_other, time_as_position, timestamps_ignored])
def test_mistakes_show(mistake, toy):
    row = make_row(SHOWN)
    images, prompt = mistake(row, *batch_rows([row], toy.config), toy.config)
    logits, _ = read(toy.model, prompt, encode(toy.model, images))
    assert np.abs(logits[0, -1] - expected(toy, row)[-1]).max() > 100 * LOGITS


def test_decoding_behind_videos_equals_reading_at_once(toy):
    """Rows of different lengths in one padded batch, token by token, against transformers' single rows."""
    rows = [make_row(SHOWN), make_row([(2, 4, 4)], seed=1), make_row([(4, 4)], seed=2)]
    more = np.random.default_rng(3).integers(1, START, (3, 8)).astype(np.int32)
    images, prompt = batch_rows(rows, toy.config, length=90)
    logits = follow(toy.model, prompt, encode(toy.model, images), jnp.asarray(more))
    for row, tokens, got in zip(rows, more, logits, strict=True):
        want = expected(toy, row.more(tokens))[len(row.tokens) - 1 :]
        np.testing.assert_allclose(got, want, atol=LOGITS, rtol=0)
