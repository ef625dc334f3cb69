"""Strips of many sizes: few shapes, little waste, and the same numbers as one by one."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gaze.discovery.scores import panel_attention
from gaze.heads import HeadSet
from gaze.pictures.padding_buckets import Shape, buckets, chunks, shapes
from gaze.pictures.strips import Strip
from gaze.steering import engine as asking
from gaze.steering.engine import GenerationOptions, Request, _pieces
from gaze.steering.masks import schedule
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.generation.continuous_batching import FREE
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load

QUESTIONS = [f"What is happening in panel {number} of the comic strip?" for number in (1, 2, 3)]
WIDTHS = (64, 96, 128, 224, 96, 64)


def cost(sizes: list[int], bounds: tuple[int, ...]) -> int:
    return sum(min(bound for bound in bounds if bound >= size) for size in sizes)


@pytest.mark.parametrize("seed", range(5))
def test_buckets_waste_the_least(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 12, 20).tolist()
    found = tuple(buckets(sizes, 3))
    every = [some for count in (1, 2, 3) for some in itertools.combinations(sorted(set(sizes)), count)]
    assert cost(sizes, found) == min(cost(sizes, some) for some in every if max(some) == max(sizes))


def test_few_sizes_need_no_padding() -> None:
    assert buckets([5, 9, 5], 3) == [5, 9]


def test_chunks_hold_every_strip_once() -> None:
    small, large = Shape(16, 10, 5), Shape(64, 22, 5)
    made = [*chunks([large, small, large, large, small], 2)]
    assert made == [(small, [1, 4]), (large, [0, 2]), (large, [3])]


@pytest.fixture(scope="module")
def library() -> tuple:
    return load(CHECKPOINT, "float32")


@pytest.fixture(scope="module")
def strips() -> list[Strip]:
    """Three panels each, of four sizes."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (64, 3 * width, 3), np.uint8) for width in WIDTHS]
    return [Strip.even(str(number), Image.fromarray(array), 3) for number, array in enumerate(pixels)]


def test_a_mixed_corpus_has_at_most_three_shapes(
    library: tuple, strips: list[Strip], decoder_traces: Callable[[int], None]
) -> None:
    fits = shapes(library[1], strips, [[library[1].chat(question) for question in QUESTIONS]] * len(strips))
    assert len(set(fits)) == 3
    panel_attention.clear_cache()
    decoder_traces(3 * 2)  # once for the prefixes, once for the questions
    mixed = asking.discover(*library, strips, QUESTIONS, batch=3)
    with pytest.raises(AssertionError, match="traced > 6 times"):
        asking.discover(*library, strips[:1], QUESTIONS)
    decoder_traces(100)
    alone = np.concatenate([asking.discover(*library, [strip], QUESTIONS) for strip in strips])
    np.testing.assert_allclose(mixed, alone, atol=1e-5, rtol=0)


def test_answers_do_not_depend_on_what_else_is_asked(library: tuple, strips: list[Strip]) -> None:
    """Mixed sizes, heads, schedules, rows, strengths, all at once; and every answer by itself."""
    model, processor = library
    shape = (model.config.text.num_hidden_layers, model.config.text.num_attention_heads)
    low, high = HeadSet(((1, 2),)).to_mask(*shape), HeadSet(((4, 3), (4, 7))).to_mask(*shape)
    requests = [asking.unsteered(model, number) for number in range(len(strips))]
    requests += [Request(number, high, schedule([(0, number % 3)])) for number in range(len(strips))]
    requests += [
        Request(2, high, schedule([(1, 1)])),
        Request(3, low, schedule([(0, 0), (3, 2)], steps=5), strength=5.0),
    ]
    requests += [
        Request(4, high, schedule([(0, 2)]), query_positions=rows) for rows in ("text", "answer", "decoded", "prompt")
    ]
    requests += [Request(5, high, schedule([(0, 1)]), mode="max_suppress_all", bias="replace")]
    question = "What is happening in this panel of the comic strip?"
    settings = GenerationOptions(Sampling.make(), max_new=6, batch=8, strips=3)
    combined = asking.answers(model, processor, strips, question, requests, settings)
    for ask, tokens in zip(requests, combined, strict=True):
        (alone,) = asking.answers(model, processor, strips, question, [ask], settings)
        np.testing.assert_array_equal(tokens, alone)
    assert len({tuple(tokens.tolist()) for tokens in combined}) > 3


def test_pieces_hold_every_ask_once_and_begin_where_they_must() -> None:
    shape = Shape(16, 10, 5)
    heads = {first: np.eye(6, 2, -first, np.float32) for first in (1, 4)}
    requests = [
        Request(0, heads[4], schedule([(0, 1)])),
        Request(0, heads[1], schedule([(0, 1)]), query_positions="text"),
    ]
    requests += [Request(1, heads[4], schedule([(1, 1)])), Request(1, heads[1], schedule([(0, 1)]))]

    def pieces(copies: int, room: int) -> list:
        return [(start, first, names.tolist()) for start, first, names in _pieces(rows, requests, copies, shape, room)]

    rows = [[0, 1], [2, 3]]
    assert pieces(1, 64) == [(0, 4, [[0], [2]]), (0, 1, [[FREE], [3]]), (10, 1, [[1], [FREE]])]
    assert pieces(2, 64) == [(0, 1, [[0, FREE], [2, 3]]), (10, 1, [[1, FREE], [FREE, FREE]])]
    # Where there is room for one at a time; what reads no more than the last words may be wider.
    assert pieces(2, 16)[:2] == pieces(1, 64)[:2]
    assert pieces(2, 16)[2:] == pieces(2, 64)[1:]
