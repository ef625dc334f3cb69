"""A active of rows that decode together: a row that has finished gives its place to the next, so that none holds up the rest."""

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, PyTree, Shaped

from qwen3vl_jax.generation.decoding import Plan, State, decode
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import fetch

FREE = -1
CACHE = 5
"""Axes of the keys and values of a cache, where layers stand before rows."""
READY = 4
"""Rows are replaced when one in so many is free: taking in a few at a time would cost more than it saves."""


Answer = tuple[int, Int32[np.ndarray, " token"]]
"""Whose it is, and its tokens."""


class Prefilled(NamedTuple):
    """Rows whose prompts have been read.

    Attributes:
      state: of all rows.
      plan: what steers them, its leaves with a leading batch axis; None for none.
      names: whose answer each row is, from 0; `FREE` for rows that only fill the shape.
    """

    state: State
    plan: Plan | None
    names: Int32[np.ndarray, " row"]


def run(
    model: Qwen3VL, batches: Iterable[Prefilled], sampling: Sampling, shards: int = 1, rows: int | None = None
) -> Iterator[Answer]:
    """Generates the answers of all batches, each yielded with its name as soon as it is done.

    Rows of a batch go to places in the same of `shards` equal parts of the active, so that a mesh's devices exchange nothing.

    Args:
      rows: how many places the active has, by default as many as the first batch has rows.
    """
    active: Prefilled | None = None
    for batch in batches:
        waiting = batch.names.copy().reshape(shards, -1)
        if active is None:
            state, plan = _widen((batch.state, batch.plan), shards, rows or waiting.size)
            room = (rows or waiting.size) // shards - waiting.shape[1]
            names = np.pad(waiting, ((0, 0), (0, room)), constant_values=FREE)
            active = Prefilled(state, plan, names.reshape(-1))
            continue
        while (waiting != FREE).any():
            # Places are wanted only where rows wait.
            wanted = np.broadcast_to((waiting != FREE).any(axis=1)[:, None], (shards, len(active.names) // shards))
            count = min(int(wanted.sum()) // READY, int((waiting != FREE).sum()))
            active = yield from _advance(model, active, sampling, wanted.reshape(-1), max(count, 1))
            names = active.names.copy().reshape(shards, -1)
            places = _places(names, waiting)
            shard, row = np.nonzero(places < names.shape[1])
            names[shard, places[shard, row]] = waiting[shard, row]
            waiting[shard, row] = FREE
            state, plan = _refill((active.state, active.plan), (batch.state, batch.plan), places)
            active = Prefilled(state, plan, names.reshape(-1))
    if active is not None:
        yield from _advance(model, active, sampling, np.ones(active.names.shape, bool), len(active.names))


def _advance(
    model: Qwen3VL, active: Prefilled, sampling: Sampling, wanted: Bool[np.ndarray, " row"], count: int
) -> Generator[Answer, None, Prefilled]:
    """Decodes until `count` of the wanted places are free; yields the answers that are done, returns the active without."""
    taken, busy = (active.names != FREE) & wanted, np.int32(wanted.sum() - count)
    state = _decode(model, active.state, active.plan, sampling, taken, busy)
    done, tokens, length = fetch((state.done, state.tokens, state.length))
    names = active.names.copy()
    for row in np.flatnonzero(done & (names != FREE)):
        yield int(names[row]), tokens[row, : length[row]]
        names[row] = FREE
    return Prefilled(state, active.plan, names)


@partial(jax.jit, donate_argnames="state")
def _decode(
    model: Qwen3VL, state: State, plan: Plan | None, sampling: Sampling, taken: Array, busy: Int32[Array, ""]
) -> State:
    def more(state: State) -> Array:
        return jnp.sum(taken & ~state.done) > busy

    return jax.lax.while_loop(more, lambda state: decode(model, state, plan, sampling), state)


def _places(
    active: Int32[np.ndarray, "shard place"], waiting: Int32[np.ndarray, "shard row"]
) -> Int32[np.ndarray, "shard row"]:
    """The free place of the active that each row of a batch takes; one behind the last for those that take none."""
    places = np.full(waiting.shape, active.shape[1], np.int32)
    for taken, free, rows in zip(places, active == FREE, waiting != FREE, strict=True):
        count = min(free.sum(), rows.sum())
        taken[np.flatnonzero(rows)[:count]] = np.flatnonzero(free)[:count]
    return places


@partial(jax.jit, static_argnums=(1, 2))
def _widen(batch: PyTree, shards: int, rows: int) -> PyTree:
    """Rows repeated until they fill a active."""

    def widen(leaf: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        if leaf.ndim == 0:
            return leaf
        split, axis = _by_shard(leaf, shards)
        repeated = jnp.take(split, np.arange(rows // shards) % split.shape[axis + 1], axis=axis + 1)
        return repeated.reshape(*leaf.shape[:axis], rows, *leaf.shape[axis + 1 :])

    return jax.tree.map(widen, batch)


@partial(jax.jit, donate_argnums=0)
def _refill(active: PyTree, batch: PyTree, places: Int32[Array, "shard row"]) -> PyTree:
    """Takes rows of a batch into a active; what is the same for all rows stays as it is."""

    def refill(old: Shaped[Array, "..."], new: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        if old.ndim == 0:
            return old
        (split, axis), (rows, _) = (_by_shard(leaf, len(places)) for leaf in (old, new))

        def put(old: Array, new: Array, places: Array) -> Array:
            return old.at[(slice(None),) * axis + (places,)].set(new, mode="drop")

        return jax.vmap(put, (axis, axis, 0), axis)(split, rows, places).reshape(old.shape)

    return jax.tree.map(refill, active, batch)


def _by_shard(leaf: Shaped[Array, "..."], shards: int) -> tuple[Shaped[Array, "..."], int]:
    """Its rows as so many equal parts, and on which axis the parts are now."""
    axis = 1 if leaf.ndim == CACHE else 0
    return leaf.reshape(*leaf.shape[:axis], shards, -1, *leaf.shape[axis + 1 :]), axis
