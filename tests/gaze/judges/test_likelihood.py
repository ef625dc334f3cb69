"""`judge_likelihood` against transformers' likelihoods, region by region and text by text, and on the testbed."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.run.models import open_model
from experiments.testbed.sparse.strips import draw_strips
from gaze.judges.judge import Failed, Item, Judge, calibrate
from gaze.judges.likelihood import TOKENS, Likelihood, choose, region_bias
from gaze.pictures.strips import Photo, Strip
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.load import model_revision
from qwen3vl_jax.processing.processor import Processor
from tests.toys import IMAGE, make_toy, raw_config

SPECIAL = {
    "<|im_start|>": 245,
    "<|im_end|>": 246,
    "<|vision_start|>": 248,
    "<|vision_end|>": 249,
    "<|image_pad|>": IMAGE,
}
TEXTS = ["red star.", "x", "A longer text, of more tokens than one multiple.", "", "red"]


class Letters:
    """A tokenizer of one token per character."""

    def __call__(self, text, add_special_tokens=True):
        pieces = re.findall(r"<\|\w+\|>|.", text, re.DOTALL)
        return {"input_ids": [SPECIAL.get(piece, ord(piece[0])) for piece in pieces]}

    def apply_chat_template(self, messages, **_):
        [message] = messages
        words = "".join(part.get("text", "<|vision_start|><|image_pad|><|vision_end|>") for part in message["content"])
        return f"<|im_start|>{words}<|im_end|>\n"


def noise(seed, width, height):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


STRIP = Strip("strip", noise(0, 72, 16), (16, 24, 32))
PHOTO = Photo("photo", noise(1, 32, 16), ((0, 0, 8, 16), (8, 0, 32, 16), (16, 4, 32, 12), (0, 0, 32, 16)))


@pytest.fixture(scope="module")
def toy():
    return make_toy(raw_config())


@pytest.fixture(scope="module")
def processor(toy):
    settings = ImageSettings(patch_size=4, min_pixels=8 * 8, max_pixels=40 * 40)
    return Processor(toy.config, settings, Letters())


@pytest.fixture(scope="module")
def judge(toy, processor):
    return Likelihood(toy.model, processor, "toy", question="Which?", rows=4)


@pytest.fixture(scope="module")
def scores(judge):
    return judge.scores([STRIP, PHOTO], [TEXTS, TEXTS[:2]])


def expected(reference, processor, crop, text):
    """Mean log-probability by transformers, of one unpadded row that holds prompt and text."""
    prompt = processor.chat("Which?")
    batch = processor([prompt + text], [[crop]])
    ids = torch.tensor(batch.prompt.tokens).long()
    with torch.no_grad():
        logits = reference(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == IMAGE).long(),
            pixel_values=torch.tensor(batch.images.patches[0]),
            image_grid_thw=torch.tensor([[1, *batch.grids[0].tolist()]]),
        ).logits[0]
    logs = torch.log_softmax(logits, dim=-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    return logs[-len(text) :].mean().item()


def test_scores_are_those_of_transformers(toy, processor, scores):
    for picture, texts, table in zip([STRIP, PHOTO], [TEXTS, TEXTS[:2]], scores, strict=True):
        assert table.shape == (len(texts), len(picture))
        for text, row in zip(texts, table, strict=True):
            want = [expected(toy.reference, processor, picture.crop(r), text) for r in range(len(picture)) if text]
            assert np.allclose(row, want or 0, atol=2e-4), (picture.name, text)


def test_regions_differ_to_the_toy(scores):
    """Else the other tests show nothing."""
    assert np.ptp(scores[0][0]) > 0.05


@pytest.mark.parametrize("rows", [2, 16])
def test_what_is_read_together_changes_nothing(judge, scores, rows):
    """Two rows hold no picture, so each is a group of its own; sixteen hold both."""
    other = dataclasses.replace(judge, rows=rows)
    [photo, strip] = other.scores([PHOTO, STRIP], [TEXTS[1::-1], [*TEXTS[::-1], *map(str, range(9))]])
    assert np.allclose(photo[::-1], scores[1], atol=1e-4)
    assert np.allclose(strip[:5][::-1], scores[0], atol=1e-4)


def test_new_texts_compile_nothing(judge, decoder_traces):
    judge.scores([STRIP], [["a" * TOKENS]])
    decoder_traces(0)
    judge.scores([STRIP], [["b", "other", "", "texts"]])
    judge.scores([dataclasses.replace(STRIP, image=noise(5, 72, 16))], [["c"]])


def test_verdicts_come_in_the_order_of_the_items(judge, scores):
    """Pictures mixed, texts repeated, an empty one; a picture without captions has no bias."""
    sure = dataclasses.replace(judge, margin=0.0)
    items = [Item(STRIP, "x"), Item(PHOTO, "red star."), Item(STRIP, " "), Item(STRIP, "red"), Item(STRIP, " x\n")]
    best = [table.argmax(axis=1) for table in scores]
    assert sure(items) == [best[0][1], best[1][0], None, best[0][4], best[0][1]]
    assert sure([]) == []


def test_the_margin(judge, scores):
    lead = np.diff(np.sort(scores[0][0]))[-1]
    items = [Item(STRIP, "red star.")]
    assert dataclasses.replace(judge, margin=float(lead) + 0.01)(items) == [None]
    assert dataclasses.replace(judge, margin=float(lead) - 0.01)(items) == [scores[0][0].argmax()]


@pytest.mark.parametrize(
    ("scores", "want"),
    [([-1, -2, -1.75], 0), ([-1, -1.25], 0), ([-1, -1.125], None), ([-3], None), ([-2, -1], 1)],
)
def test_choose(scores, want):
    assert choose(np.array(scores, float), 0.25) == want


@pytest.mark.parametrize("broken", [np.nan, -np.inf])
def test_scores_that_are_no_numbers_are_a_failure(broken):
    assert isinstance(choose(np.array([-1.0, broken]), 0.25), Failed)


def test_a_biased_region_is_found_whatever_the_captions_likelihoods():
    rng = np.random.default_rng(0)
    texts, regions, own = rng.normal(size=6) * 3, rng.normal(size=6), np.eye(6) * 5
    found = region_bias(texts[:, None] + regions[None] + own, list("abcdef"))
    assert np.allclose(found, regions - regions.mean())


def test_regions_with_the_same_caption_are_not_held_against_each_other():
    """Both dogs make "dog" likelier; that is no bias."""
    rng = np.random.default_rng(1)
    captions = ["dog", "cup", "dog", "cat", "box"]
    own = np.array([[one == other for other in captions] for one in captions]) * 4.0
    regions = rng.normal(size=5)
    assert np.allclose(region_bias(rng.normal(size=(5, 1)) + regions[None] + own, captions), regions - regions.mean())


def test_what_chance_makes_of_a_few_captions_is_taken_off():
    rng = np.random.default_rng(2)
    tables = rng.normal(size=(500, 6, 6))
    plain = [np.where(np.eye(6), np.nan, table - table.mean(axis=1, keepdims=True)) for table in tables]
    by_chance = np.mean([np.nanmean(table, axis=0).var() for table in plain])
    found = np.mean([region_bias(table, list("abcdef")).var() for table in tables])
    assert found < 0.3 * by_chance


@pytest.mark.parametrize("captions", [[], ["a", "b"], ["a", "a", "a"], ["a", "a", "b"]])
def test_no_bias_where_it_cannot_be_known(captions):
    table = np.random.default_rng(3).normal(size=(len(captions), len(captions) or 4))
    assert np.array_equal(region_bias(table, captions), np.zeros(table.shape[1]))


def test_a_bias_is_subtracted(judge, monkeypatch):
    """Region 3 makes everything likelier by 4; what leads by 2 without it is what the text describes."""
    captions = ("a", "b", "c", "d")
    table = np.vstack([2 * np.eye(4), [[2.0, 0, 0, 0]]]) + np.array([0, 0, 0, 4.0])
    monkeypatch.setattr(Likelihood, "scores", lambda _, pictures, texts: [table[-len(texts[0]) :]])
    strip = Strip("s", noise(0, 32, 8), (8,) * 4)
    assert judge([Item(strip, "t")]) == [3]
    assert judge([Item(dataclasses.replace(strip, captions=captions), "t")]) == [0]


def test_version(judge):
    assert isinstance(judge, Judge)
    assert re.fullmatch("[0-9a-f]{12}", judge.version)
    changed = [dict(question="What?"), dict(margin=0.5), dict(fingerprint="other")]
    assert len({judge.version, *(dataclasses.replace(judge, **change).version for change in changed)}) == 4
    assert dataclasses.replace(judge, rows=7).version == judge.version


@pytest.fixture(scope="module")
def testbed():
    model, processor = open_model("testbed-sparse", "float32")
    return Likelihood(model, processor, model_revision(model))


def test_the_testbed_passes_the_gate(testbed):
    found = calibrate(testbed, draw_strips(1, "calibration", 8))
    assert found.passed, found
    assert found.strangers < 0.35


def test_paraphrase_and_fragments_on_the_testbed(testbed):
    """No caption word for word: the verb left out, so that no exact judge could say."""
    strips = draw_strips(2, "calibration", 8)
    verb = re.compile(r"(?<=\w )\w+ \w+(?= \w+ \w+\.)")
    items = [Item(strip, verb.sub("near", caption)) for strip in strips for caption in strip.captions]
    verdicts = testbed(items)
    right = [verdict == number % 6 for number, verdict in enumerate(verdicts) if verdict is not None]
    assert len(right) > 0.7 * len(items)
    assert np.mean(right) >= 0.9
