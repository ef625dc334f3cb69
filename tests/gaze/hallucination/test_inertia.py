"""What is said of text inertia is what PyTorch shows: attention key by key, masked keys, and a cache that is changed by hand."""

import jax
import numpy as np
import pytest
import torch

from gaze.hallucination.chair_words import chair_rules
from gaze.hallucination.inertia import SAMPLED, dependence, looks, swapped
from gaze.hallucination.word_classes import classified, next_object
from gaze.steering.boosts import image_keys
from gaze.text_spans import token_ends
from qwen3vl_jax.generation.sampling import Sampling

from ...toys import batch_rows, encode, make_row
from . import official
from .conftest import Scene, image_places

ANSWERS = np.random.default_rng(3).integers(11, 240, (2, 6)).astype(np.int32)
LENGTHS = np.array([6, 4], np.int32)
SINK = 0.12  # the toy has no head that gives three tenths to one key


def attention(scene: Scene, number: int) -> np.ndarray:
    """[layer, head, token, key]: of the rows that predict each token of an answer."""
    row = scene.rows[number].more(ANSWERS[number])
    official.Version(scene.toy.reference, row.reference()).read()
    layers = scene.toy.reference.model.language_model.layers
    weights = torch.stack([layer.self_attn.weights[0] for layer in layers]).numpy()
    start = len(scene.rows[number].tokens) - 1
    return weights[:, :, start : start + ANSWERS.shape[1]]


def test_looks_are_those_of_pytorch_key_by_key(scene: Scene) -> None:
    found = jax.device_get(
        looks(scene.toy.model, scene.prompt, scene.vision, image_keys(scene.prompt), ANSWERS, LENGTHS, SINK)
    )
    many = False
    for number, row in enumerate(scene.rows):
        weights, image = attention(scene, number), image_places(row)
        sampled = [1 + round(step * (LENGTHS[number] - 2) / (SAMPLED - 1)) for step in range(SAMPLED)]
        sink = (weights[:, :, sampled] > SINK).mean(axis=2) > 0.5
        many |= bool(sink[:, :, 1:].any())
        sink[:, :, 0] = True
        shown = np.isin(np.arange(weights.shape[-1]), image)
        for token in range(LENGTHS[number]):
            now = weights[:, :, token]
            share = now[..., shown].sum(axis=-1)
            left = np.where(sink, 0, now)
            sees = len(row.tokens) + token
            kept = {
                "share": share,
                "sink_free": left[..., shown].sum(axis=-1) / left.sum(axis=-1),
                "lift": share * sees / len(image),
            }
            for name, wanted in kept.items():
                np.testing.assert_allclose(getattr(found, name)[:, number, token], wanted, atol=1e-4, rtol=1e-3)
    assert many  # some head has a sink beside the first key
    assert np.abs(found.share - found.sink_free).max() > 1e-2


def test_dependence_is_the_divergence_from_a_pass_that_sees_no_picture(scene: Scene) -> None:
    found = np.asarray(dependence(scene.toy.model, scene.prompt, scene.vision, image_keys(scene.prompt), ANSWERS))
    for number, row in enumerate(scene.rows):
        for token in range(ANSWERS.shape[1]):
            written = row.more(ANSWERS[number, :token]).reference()
            logits = [
                official.Version(scene.toy.reference, written, hidden).read() for hidden in ([], image_places(row))
            ]
            whole, blind = (torch.log_softmax(some, dim=-1) for some in logits)
            wanted = float((whole.exp() * (whole - blind)).sum())
            assert found[number, token] == pytest.approx(wanted, abs=2e-4, rel=2e-3)
    assert found.min() > 1e-3
    nothing = np.zeros_like(image_keys(scene.prompt))
    blind = dependence(scene.toy.model, scene.prompt, scene.vision, nothing, ANSWERS)
    assert np.abs(np.asarray(blind)).max() < 1e-5


def test_a_picture_that_changes_in_mid_answer(scene: Scene) -> None:
    """Against transformers' own cache, in which the keys and values of the picture are exchanged by hand."""
    rows = [make_row([(4, 6)], words, seed) for seed, words in ((5, 4), (6, 6))]
    others = [row._replace(pictures=make_row([(4, 6)], seed=50 + n).pictures) for n, row in enumerate(rows)]
    images, prompt = batch_rows(rows, scene.toy.config)
    other, _ = batch_rows(others, scene.toy.config)
    assert images is not None
    assert other is not None
    seen, instead = (encode(scene.toy.model, some) for some in (images, other))
    starts, new = np.array([0, 3], np.int32), 4
    given = (image_keys(prompt), ANSWERS, starts, Sampling.make())
    found = np.asarray(swapped(scene.toy.model, prompt, seen, instead, *given, max_new=new).tokens)
    same = np.asarray(swapped(scene.toy.model, prompt, seen, seen, *given, max_new=new).tokens)
    for number, (row, changed) in enumerate(zip(rows, others, strict=True)):
        for shown, continued in ((changed, found), (row, same)):
            assert continued[number].tolist() == by_hand(scene, row, shown, number, int(starts[number]), new)
    assert (found != same).any()


def by_hand(scene, row, shown, number: int, start: int, new: int) -> list[int]:
    whole = [*row.tokens.tolist(), *ANSWERS[number].tolist()]
    place = len(row.tokens) - 1 + start
    read = row._replace(tokens=np.array(whole[:place], np.int32))
    one, two = (
        official.Version(scene.toy.reference, some.reference()) for some in (read, shown._replace(tokens=read.tokens))
    )
    one.read()
    two.read()
    image = image_places(row)
    for mine, theirs in zip(one.cache.layers, two.cache.layers, strict=True):
        mine.keys[:, :, image] = theirs.keys[:, :, image]
        mine.values[:, :, image] = theirs.values[:, :, image]
    said = [whole[place]]
    while len(said) <= new:
        said.append(int(one.read(said[-1]).argmax()))
    return said[1:]


def test_words_are_classified_by_what_they_name() -> None:
    pieces = ["A", " big", " red", " fire", " hydrant", " stands", " near", " two", " dogs", ".", " Trees", " too", "."]
    text = "".join(pieces)
    ends = token_ends(lambda tokens: "".join(pieces[token] for token in tokens), range(len(pieces)))
    found = classified(text, ends, chair_rules())
    assert [(word.kind, word.object, word.token) for word in found] == [
        ("function", None, 0),
        ("attribute", None, 1),
        ("attribute", None, 2),
        ("object", "fire hydrant", 3),
        ("other", None, 5),
        ("function", None, 6),
        ("attribute", None, 7),
        ("object", "dog", 8),
        ("other", None, 10),
        ("function", None, 11),
    ]
    assert next_object(found, 0) == "fire hydrant"
    assert next_object(found, 4) == "dog"
    assert next_object(found, 9) is None
