"""`sampling` against the logits processors of transformers, and the frequencies that come out."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen3vl_jax.generation.sampling import Sampling, choose, penalise, truncate

BATCH, VOCAB = 5, 60
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(3 * RNG.normal(size=(BATCH, VOCAB)), jnp.float32)
ROWS = RNG.integers(0, VOCAB, (BATCH, 30))
SEEN = jnp.asarray(np.stack([np.isin(np.arange(VOCAB), row) for row in ROWS]))


def by_transformers(temperature: float, top_k: int, top_p: float, penalty: float) -> np.ndarray:
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)])
    if top_k:
        steps.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    return steps(torch.tensor(ROWS), torch.tensor(np.asarray(LOGITS))).numpy()


@jax.jit
def scores(logits, seen, sampling):
    return truncate(penalise(logits, seen, sampling), sampling)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_scores_equal_transformers(penalty: float) -> None:
    kept = set()
    for temperature, top_k, top_p in product([0.7, 1.0, 1.9], [0, 1, 7, VOCAB, 2 * VOCAB], [0.05, 0.5, 0.9, 1.0]):
        sampling = Sampling.make((), temperature, top_k, top_p, penalty)
        got = np.asarray(scores(LOGITS, SEEN, sampling))
        np.testing.assert_allclose(got, by_transformers(temperature, top_k, top_p, penalty), rtol=1e-6, atol=1e-6)
        kept.add(int(np.isfinite(got).sum()))
    assert {BATCH, BATCH * VOCAB} < kept  # from one token a row to all of them


def test_the_same_in_bfloat16() -> None:
    """Low-precision logits are widened before anything is done to them."""
    logits = LOGITS.astype(jnp.bfloat16)
    sampling = Sampling.make(temperature=0.7, top_p=0.9)
    keys = jax.random.split(jax.random.key(1), BATCH)
    wide = choose(logits.astype(jnp.float32), SEEN, sampling, keys)
    np.testing.assert_array_equal(choose(logits, SEEN, sampling, keys), wide)


def test_greedy_takes_the_largest_penalised_score() -> None:
    sampling = Sampling.make(repetition_penalty=5.0)
    want = by_transformers(1.0, 0, 1.0, 5.0).argmax(axis=-1)
    np.testing.assert_array_equal(choose(LOGITS, SEEN, sampling, jax.random.split(jax.random.key(0), BATCH)), want)
    assert (want != LOGITS.argmax(axis=-1)).any()


@pytest.mark.parametrize(
    "settings", [dict(temperature=1.0), dict(temperature=1.7, top_k=4), dict(temperature=0.8, top_p=0.7)]
)
def test_frequencies_follow_the_scores(settings: dict) -> None:
    draws, logits = 20_000, LOGITS[:1, :8]
    sampling = Sampling.make(**settings)
    keys = jax.random.split(jax.random.key(0), draws)
    seen = jnp.zeros((1, 8), bool)
    drawn = jax.jit(jax.vmap(lambda key: choose(logits, seen, sampling, key[None])[0]))(keys)
    share = np.bincount(drawn, minlength=8) / draws
    want = np.asarray(jax.nn.softmax(truncate(logits, sampling)[0]))
    assert (share[want == 0] == 0).all()
    assert (np.abs(share - want) <= 5 * np.sqrt(want * (1 - want) / draws)).all()


def test_rows_are_drawn_apart() -> None:
    logits = jnp.zeros((64, VOCAB), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 64)
    drawn = choose(logits, jnp.zeros((64, VOCAB), bool), Sampling.make(temperature=1.0), keys)
    assert len(np.unique(drawn)) > 20
    # With its own key: alone a row is what it is among others.
    alone = choose(logits[:1], jnp.zeros((1, VOCAB), bool), Sampling.make(temperature=1.0), keys[5:6])
    assert alone[0] == drawn[5]
