"""Rows that give their slots to the next requests: the same answers as in a batch that waits for its slowest."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jaxtyping import Array, Float32

from qwen3vl_jax.cache import BATCH_AXIS
from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation import continuous_batching
from qwen3vl_jax.generation.batch_axes import batch_axes
from qwen3vl_jax.generation.continuous_batching import FREE, Prefilled, run
from qwen3vl_jax.generation.decoding import begin, generate, vocabulary
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Prompt

from ...toys import Toy, batch_rows, encode, make_row

NEW, ROWS, BATCHES = 12, 8, 4


@pytest.fixture(scope="module")
def prompt(toy: Toy) -> tuple:
    """32 prompts about one picture, which stop at different tokens."""
    rows = [make_row([(4, 4)], words=5, seed=seed) for seed in range(ROWS * BATCHES)]
    images, prompt = batch_rows([rows[0]._replace(tokens=row.tokens) for row in rows], toy.config)
    return encode(toy.model, images), prompt


@pytest.fixture(scope="module")
def sampling(toy: Toy, prompt: tuple) -> Sampling:
    """Stops at common tokens, so that answers are of many lengths."""
    said = np.asarray(generate(toy.model, prompt[1], prompt[0], None, Sampling.make(), KEY, max_new=NEW).tokens)
    common = np.argsort(-np.bincount(said[:, 1:].reshape(-1)))[:6]
    return Sampling.make(stop=common.tolist())


KEY = jax.random.key(0)


@struct.dataclass
class Looking:
    """A plan with its batch axis in front, as continuous batching wants it: every head, at all steps."""

    keys: Float32[Array, "batch key"]

    def at(self, step: Any, slots: int) -> Edits:
        del step
        heads = jnp.ones((4, 1, 4), jnp.float32)
        return Edits(steer=Steer(heads, self.keys[:, :slots], jnp.zeros((1,), bool)))


def looking(prompt: Prompt) -> Looking:
    length = prompt.tokens.shape[1]
    keys = 3 * np.random.default_rng(0).normal(size=(len(prompt.tokens), length + NEW))
    keys[:, length:] = 0  # an answer's slots are used in turn
    return Looking(jnp.asarray(keys, jnp.float32))


@jax.jit
def start(model, prompt, vision, plan, sampling, limit):
    output = model(prompt, vision, edits=plan.at(0, prompt.tokens.shape[1]))
    keys = jax.random.split(KEY, len(limit))
    return begin(model, output, vocabulary(model, prompt), sampling, keys, limit, max_new=NEW)


def batches(toy: Toy, prompt: tuple, sampling: Sampling, order: np.ndarray, limit: int = NEW) -> Iterator[Prefilled]:
    vision, rows = prompt
    plan = looking(rows)
    for names in order.reshape(-1, ROWS):
        some, steered = jax.tree.map(lambda leaf, names=names: leaf[np.maximum(names, 0)], (rows, plan))
        limits = jnp.where(names == FREE, 1, limit)
        yield Prefilled(start(toy.model, some, vision, steered, sampling, limits), steered, names)


@pytest.fixture(scope="module")
def want(toy: Toy, prompt: tuple, sampling: Sampling) -> list[np.ndarray]:
    vision, rows = prompt
    made = generate(toy.model, rows, vision, looking(rows), sampling, KEY, max_new=NEW)
    return [row[:length] for row, length in zip(np.asarray(made.tokens), np.asarray(made.length), strict=True)]


def check(answers: list, want: list[np.ndarray], names: list[int]) -> None:
    said = dict(answers)
    assert sorted(said) == sorted(names)
    assert len(answers) == len(names)
    for name in names:
        np.testing.assert_array_equal(said[name], want[name])


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_equals_one_batch(shards: int, toy: Toy, prompt: tuple, sampling: Sampling, want: list) -> None:
    assert len({len(answer) for answer in want}) > 3
    order = np.arange(ROWS * BATCHES, dtype=np.int32)
    check([*run(toy.model, batches(toy, prompt, sampling, order), sampling, shards)], want, order.tolist())


def test_fillers_say_nothing(toy: Toy, prompt: tuple, sampling: Sampling, want: list) -> None:
    order = np.arange(2 * ROWS, dtype=np.int32)
    order[[3, 4, 9, 15]] = FREE
    names = order[order != FREE].tolist()
    check([*run(toy.model, batches(toy, prompt, sampling, order), sampling)], want, names)


def test_a_slow_row_does_not_hold_up_the_rest(
    toy: Toy, prompt: tuple, sampling: Sampling, want: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that stop at once make way: fewer steps than batches times the longest answer."""
    steps = []
    once = continuous_batching._advance

    def counted(model, batch, *rest):
        before = int(batch.state.step.max())
        after = yield from once(model, batch, *rest)
        steps.append(int(after.state.step.max()) - before)
        return after

    monkeypatch.setattr(continuous_batching, "_advance", counted)
    order = np.argsort([-len(answer) for answer in want]).astype(np.int32).reshape(ROWS, BATCHES).T.reshape(-1)
    check([*run(toy.model, batches(toy, prompt, sampling, order), sampling)], want, order.tolist())
    waiting = sum(max(len(want[name]) for name in names) for names in order.reshape(-1, ROWS))
    assert sum(steps) < waiting


def test_a_limit_ends_an_answer(toy: Toy, prompt: tuple, sampling: Sampling, want: list) -> None:
    order = np.arange(ROWS, dtype=np.int32)
    said = dict(run(toy.model, batches(toy, prompt, sampling, order, limit=3), sampling))
    for name in order.tolist():
        np.testing.assert_array_equal(said[name], want[name][:3])


def test_batch_axes_are_those_that_count_rows(toy: Toy, prompt: tuple, sampling: Sampling) -> None:
    """Declared, and true: an array of a batch twice as large is twice as long there, and nowhere else."""
    order = np.arange(ROWS, dtype=np.int32)
    (small,) = batches(toy, prompt, sampling, order)
    state = small.state
    large = state.cache.fork(2, 0)
    axes = batch_axes(state.cache)
    assert axes == [1, 1, 0, None, 0]
    for axis, one, two in zip(axes, jax.tree.leaves(state.cache), jax.tree.leaves(large), strict=True):
        assert two.shape == tuple(n * (1 + (place == axis)) for place, n in enumerate(one.shape))
    assert batch_axes(small.plan) == [0]
    rest = [*jax.tree.leaves(state)][len(axes) :]
    assert batch_axes(state)[len(axes) :] == [0] * len(rest)
    assert all(leaf.shape[0] == ROWS for leaf in rest)


@struct.dataclass
class SharedKeys(Looking):
    """A plan that is the same for all rows, and says so."""

    keys: Float32[Array, "1 key"] = struct.field(metadata={BATCH_AXIS: None})


def test_a_plan_that_all_rows_share(toy: Toy, prompt: tuple, sampling: Sampling) -> None:
    order = np.arange(2 * ROWS, dtype=np.int32)
    keys = looking(prompt[1]).keys[:1]

    def steered(plan: Any) -> list[Prefilled]:
        own = Looking(jnp.repeat(keys, ROWS, axis=0))
        return [one._replace(plan=plan or own) for one in batches(toy, prompt, sampling, order)]

    said = dict(run(toy.model, steered(SharedKeys(keys)), sampling))
    each = dict(run(toy.model, steered(None), sampling))
    for name in order.tolist():
        np.testing.assert_array_equal(said[name], each[name])


def test_batches_that_do_not_fit(toy: Toy, prompt: tuple, sampling: Sampling) -> None:
    order = np.arange(ROWS, dtype=np.int32)
    (batch,) = batches(toy, prompt, sampling, order)
    for given, how, said in [
        (batch._replace(requests=order[:-1]), {}, "should have 7 rows on axis"),
        (batch._replace(plan=Looking(batch.plan.keys[:1])), {}, "should have 8 rows on axis 0"),
        (batch, {"shards": 3}, "8 rows do not fit 8 slots in 3 parts"),
        (batch, {"rows": 4}, "8 rows do not fit 4 slots"),
    ]:
        with pytest.raises(InputError, match=said):
            next(run(toy.model, [given], sampling, **how))
