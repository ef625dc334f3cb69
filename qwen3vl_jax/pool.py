"""A pool of rows that decode together: a row that has finished gives its place to the next, so that none holds up the rest."""

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, PyTree, Shaped

from qwen3vl_jax.generate import Plan, State, decode
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sampling import Sampling
from qwen3vl_jax.sharding import fetch

FREE = -1
CACHE = 5
"""Axes of the keys and values of a cache, where layers stand before rows."""
READY = 4
"""Rows are replaced when one in so many is free: taking in a few at a time would cost more than it saves."""


Answer = tuple[int, Int32[np.ndarray, " token"]]
"""Whose it is, and its tokens."""


class Wave(NamedTuple):
    """Rows whose prompts have been read, all waves of one shape.

    Attributes:
      state: of all rows.
      plan: what steers them, its leaves with a leading batch axis; None for none.
      names: whose answer each row is, from 0; `FREE` for rows that only fill the shape.
    """

    state: State
    plan: Plan | None
    names: Int32[np.ndarray, " row"]


def drain(model: Qwen3VL, waves: Iterable[Wave], sampling: Sampling, shards: int = 1) -> Iterator[Answer]:
    """Generates the answers of all waves, each yielded with its name as soon as it is done.

    Rows of a wave go to places in the same of `shards` equal parts of the pool, so that a mesh's devices exchange nothing.
    """
    pool: Wave | None = None
    for wave in waves:
        if pool is None:
            pool = wave
            continue
        waiting = wave.names.copy().reshape(shards, -1)
        while (waiting != FREE).any():
            # Places are wanted only where rows wait.
            wanted = np.broadcast_to((waiting != FREE).any(axis=1, keepdims=True), waiting.shape).reshape(-1)
            pool = yield from _advance(model, pool, sampling, wanted, max(int(wanted.sum()) // READY, 1))
            names = pool.names.copy().reshape(shards, -1)
            source = _places(names, waiting)
            places, rows = np.nonzero(source != FREE), source[source != FREE]
            names[places] = waiting[places[0], rows]
            waiting[places[0], rows] = FREE
            state, plan = _refill((pool.state, pool.plan), (wave.state, wave.plan), source)
            pool = Wave(state, plan, names.reshape(-1))
    if pool is not None:
        yield from _advance(model, pool, sampling, np.ones(pool.names.shape, bool), len(pool.names))


def _advance(
    model: Qwen3VL, pool: Wave, sampling: Sampling, wanted: Bool[np.ndarray, " row"], count: int
) -> Generator[Answer, None, Wave]:
    """Decodes until `count` of the wanted places are free; yields the answers that are done, returns the pool without."""
    taken, busy = (pool.names != FREE) & wanted, np.int32(wanted.sum() - count)
    state = _decode(model, pool.state, pool.plan, sampling, taken, busy)
    done, tokens, length = fetch((state.done, state.tokens, state.length))
    names = pool.names.copy()
    for row in np.flatnonzero(done & (names != FREE)):
        yield int(names[row]), tokens[row, : length[row]]
        names[row] = FREE
    return Wave(state, pool.plan, names)


@partial(jax.jit, donate_argnames="state")
def _decode(
    model: Qwen3VL, state: State, plan: Plan | None, sampling: Sampling, taken: Array, busy: Int32[Array, ""]
) -> State:
    def more(state: State) -> Array:
        return jnp.sum(taken & ~state.done) > busy

    return jax.lax.while_loop(more, lambda state: decode(model, state, plan, sampling), state)


def _places(
    pool: Int32[np.ndarray, "shard row"], waiting: Int32[np.ndarray, "shard row"]
) -> Int32[np.ndarray, "shard row"]:
    """For each place of the pool the row of the wave that it takes in, `FREE` for none."""
    source = np.full(pool.shape, FREE, np.int32)
    for places, free, rows in zip(source, pool == FREE, waiting != FREE, strict=True):
        count = min(free.sum(), rows.sum())
        places[np.flatnonzero(free)[:count]] = np.flatnonzero(rows)[:count]
    return source


@partial(jax.jit, donate_argnums=0)
def _refill(pool: PyTree, wave: PyTree, source: Int32[Array, "shard row"]) -> PyTree:
    """Takes rows of a wave into a pool; what is the same for all rows stays as it is."""

    def refill(old: Shaped[Array, "..."], new: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        if old.ndim == 0:
            return old
        axis = 1 if old.ndim == CACHE else 0

        def exchange(old: Array, new: Array, source: Array) -> Array:
            taken = jnp.expand_dims(source != FREE, [n for n in range(old.ndim) if n != axis])
            return jnp.where(taken, jnp.take(new, jnp.maximum(source, 0), axis=axis), old)

        split = (*old.shape[:axis], *source.shape, *old.shape[axis + 1 :])
        mixed = jax.vmap(exchange, (axis, axis, 0), axis)(old.reshape(split), new.reshape(split), source)
        return mixed.reshape(old.shape)

    return jax.tree.map(refill, pool, wave)
