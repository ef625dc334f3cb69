"""Generation against transformers, its stream, its batches, its ends, and that settings compile nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.generation.decoding import Generation, generate, stream
from qwen3vl_jax.generation.sampling import Sampling

from ...toys import Row, Toy, batch_rows, encode, follow, make_row

NEW = 20
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def rows(row: Row) -> list[Row]:
    """Two pictures, one, none: three lengths."""
    return [row, make_row([(2, 8)], words=6, seed=1), make_row([], words=5, seed=2)]


@pytest.fixture(scope="module")
def batch(toy: Toy, rows: list[Row]) -> tuple:
    """The rows as one prompt, and their encoded pictures."""
    images, prompt = batch_rows(rows, toy.config)
    return prompt, encode(toy.model, images)


@pytest.fixture(scope="module")
def greedy(toy: Toy, batch: tuple) -> np.ndarray:
    """Their greedy tokens."""
    generation = generate(toy.model, *batch, None, Sampling.make(), KEY, max_new=NEW)
    assert generation.length.tolist() == [NEW] * 3
    return np.asarray(generation.tokens)


def by_transformers(toy: Toy, row: Row, **settings: float) -> np.ndarray:
    inputs = row.reference()
    with torch.no_grad():
        tokens = toy.reference.generate(
            **inputs, do_sample=False, max_new_tokens=NEW, eos_token_id=None, pad_token_id=0, **settings
        )
    return tokens[0, len(row.tokens) :].numpy()


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.9])
def test_greedy_equals_transformers(penalty: float, toy: Toy, rows: list[Row], batch: tuple) -> None:
    """Rows of a left-padded batch here, one by one there."""
    ours = generate(toy.model, *batch, None, Sampling.make(repetition_penalty=penalty), KEY, max_new=NEW)
    for number, row in enumerate(rows):
        want = by_transformers(toy, row, repetition_penalty=penalty)
        np.testing.assert_array_equal(ours.tokens[number], want)


def test_a_row_alone_gives_the_same(toy: Toy, rows: list[Row], greedy: np.ndarray) -> None:
    images, prompt = batch_rows(rows[1:2], toy.config)
    alone = generate(toy.model, prompt, encode(toy.model, images), None, Sampling.make(), KEY, max_new=NEW)
    np.testing.assert_array_equal(alone.tokens[0], greedy[1])


def test_tokens_are_the_largest_logits_of_a_full_pass(toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
    logits = follow(toy.model, *batch, jnp.asarray(greedy))
    np.testing.assert_array_equal(jnp.argmax(logits[:, :-1], axis=-1), greedy)


@pytest.mark.parametrize("settings", [{}, dict(temperature=1.5, top_k=40, repetition_penalty=1.2)])
def test_stream_equals_generate(settings: dict, toy: Toy, batch: tuple) -> None:
    sampling = Sampling.make(stop=[7], **settings)
    whole = generate(toy.model, *batch, None, sampling, KEY, max_new=NEW)
    steps = list(stream(toy.model, *batch, None, sampling, KEY, max_new=NEW))
    np.testing.assert_array_equal(np.stack([tokens for tokens, _ in steps], axis=1), whole.tokens[:, : len(steps)])
    np.testing.assert_array_equal(np.sum([~done for _, done in steps], axis=0), whole.length)


class TestStop:
    """Stop tokens are taken from what the rows say without any."""

    @staticmethod
    def first(tokens: np.ndarray, stop: list[int]) -> list[int]:
        """Where each row meets its first stop token, NEW if nowhere."""
        return [next((i for i, token in enumerate(row) if token in stop), NEW) for row in tokens.tolist()]

    def run(self, toy: Toy, batch: tuple, stop: list[int]) -> Generation:
        return generate(toy.model, *batch, None, Sampling.make(stop), KEY, max_new=NEW)

    def check(self, generation: Generation, greedy: np.ndarray, stop: list[int]) -> list[int]:
        ends = self.first(greedy, stop)
        assert generation.length.tolist() == ends
        for tokens, want, end in zip(np.asarray(generation.tokens), greedy, ends, strict=True):
            np.testing.assert_array_equal(tokens[:end], want[:end])
            assert (tokens[end:] == want[min(end, NEW - 1)]).all()
        return ends

    def test_a_row_that_stops_disturbs_no_other(self, toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
        only = [token for token in greedy[1].tolist() if token not in greedy[0] and token not in greedy[2]]
        ends = self.check(self.run(toy, batch, only[:1]), greedy, only[:1])
        assert ends[1] < NEW
        assert ends[0] == ends[2] == NEW

    def test_all_rows_stop_early_each_by_its_own_token(self, toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
        """What follows is a row's own stop token, also in the steps that were never run."""
        stop = [int(greedy[0, 5]), int(greedy[1, 3]), int(greedy[2, 7])]
        ends = self.check(self.run(toy, batch, stop), greedy, stop)
        assert max(ends) < 8
        stopped_by = {int(row[end]) for row, end in zip(greedy, ends, strict=True)}
        assert len(stopped_by) > 1

    def test_the_first_token_may_stop(self, toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
        stop = [int(token) for token in greedy[:, 0]]
        assert self.check(self.run(toy, batch, stop), greedy, stop) == [0, 0, 0]
        sampling = Sampling.make(stop)
        assert len(list(stream(toy.model, *batch, None, sampling, KEY, max_new=NEW))) == 1

    def test_stream_says_when_each_row_has_stopped(self, toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
        stop = [int(greedy[0, 5]), int(greedy[1, 3]), int(greedy[2, 7])]
        ends = self.first(greedy, stop)
        steps = list(stream(toy.model, *batch, None, Sampling.make(stop), KEY, max_new=NEW))
        assert len(steps) == max(ends) + 1
        for step, (_, done) in enumerate(steps):
            assert done.tolist() == [step >= end for end in ends]


def test_the_key_decides(toy: Toy, batch: tuple) -> None:
    sampling = Sampling.make(temperature=2.0)
    runs = [generate(toy.model, *batch, None, sampling, jax.random.key(seed), max_new=NEW).tokens for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any(axis=1).all()


def test_one_new_token(toy: Toy, batch: tuple, greedy: np.ndarray) -> None:
    generation = generate(toy.model, *batch, None, Sampling.make(), KEY, max_new=1)
    np.testing.assert_array_equal(generation.tokens, greedy[:, :1])


def test_settings_and_plans_compile_nothing(toy: Toy, batch: tuple, decoder_traces: Callable[[int], None]) -> None:
    prompt, vision = batch
    slots = prompt.tokens.shape[1] + NEW
    rng = np.random.default_rng(0)

    def plan(uniform: bool) -> Edits:
        heads = jnp.asarray(rng.integers(0, 2, (4, 1, 4)), jnp.float32)
        keys = jnp.asarray(rng.normal(size=(3, slots)), jnp.float32)
        return Edits(steer=Steer(heads, keys, jnp.asarray([uniform])))

    def run(edits: Edits, key: int, **settings: float) -> np.ndarray:
        sampling = Sampling.make(stop=[3], **settings)
        return np.asarray(generate(toy.model, prompt, vision, edits, sampling, jax.random.key(key), max_new=NEW).tokens)

    first = run(plan(False), 0)
    decoder_traces(0)
    others = [
        run(plan(True), 0),
        run(plan(False), 1, temperature=1.0),
        run(plan(False), 2, temperature=0.5, top_k=3, top_p=0.5),
        run(plan(False), 3, repetition_penalty=1.5),
    ]
    assert all((first != other).any() for other in others)
