"""Continuous batching: a row whose answer has ended gives its slot to the next request, so that none holds up the rest."""

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, PyTree, Shaped

from qwen3vl_jax.checks import require_type
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.batch_axes import batch_axes
from qwen3vl_jax.generation.decoding import Plan, ReadingPlan, State, decode
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import fetch

FREE = -1
READY = 4
"""Slots are refilled when one in so many is free: a refill costs about a step, however many rows it takes in."""


Answer = tuple[int, Int32[np.ndarray, " token"]]
"""The number of a request, and the tokens of its answer."""


class Prefilled(NamedTuple):
    """Rows whose prompts have been read.

    Attributes:
      state: of all rows.
      plan: what steers them, None for nothing; its arrays have a batch axis where their fields declare it (`batch_axes`).
      requests: the number of the request that each row answers, from 0; `FREE` for rows that only fill the shape.
    """

    state: State
    plan: Plan | ReadingPlan | None
    requests: Int32[np.ndarray, " row"]


def run(
    model: Qwen3VL, batches: Iterable[Prefilled], sampling: Sampling, shards: int = 1, rows: int | None = None
) -> Iterator[Answer]:
    """Generates the answers to all requests, each yielded with its number as soon as it has ended.

    Rows go to slots in the same of `shards` equal parts of the running batch, so that a mesh's devices exchange nothing.

    Args:
      batches: prefilled when their turn comes, all of as many rows.
      rows: how many slots the running batch has, by default as many as the first batch has rows.

    Raises:
      InputError: for arguments of other types, and a batch whose arrays or parts do not fit its requests.
    """
    require_type("model", model, Qwen3VL, "a Qwen3VL")
    require_type("sampling", sampling, Sampling, "a Sampling, as `Sampling.make` gives it")
    running: Prefilled | None = None
    for batch in batches:
        _check(batch, shards, rows)
        waiting = batch.requests.copy().reshape(shards, -1)
        if running is None:
            state, plan = _widen((batch.state, batch.plan), shards, rows or waiting.size)
            room = (rows or waiting.size) // shards - waiting.shape[1]
            requests = np.pad(waiting, ((0, 0), (0, room)), constant_values=FREE)
            running = Prefilled(state, plan, requests.reshape(-1))
            continue
        while (waiting != FREE).any():
            # Slots are wanted only in parts where requests wait.
            wanted = np.broadcast_to((waiting != FREE).any(axis=1)[:, None], (shards, len(running.requests) // shards))
            count = min(int(wanted.sum()) // READY, int((waiting != FREE).sum()))
            running = yield from _advance(model, running, sampling, wanted.reshape(-1), max(count, 1))
            requests = running.requests.copy().reshape(shards, -1)
            slots = _free_slots(requests, waiting)
            shard, row = np.nonzero(slots < requests.shape[1])
            requests[shard, slots[shard, row]] = waiting[shard, row]
            waiting[shard, row] = FREE
            state, plan = _refill((running.state, running.plan), (batch.state, batch.plan), slots)
            running = Prefilled(state, plan, requests.reshape(-1))
    if running is not None:
        yield from _advance(model, running, sampling, np.ones(running.requests.shape, bool), len(running.requests))


def _check(batch: Prefilled, shards: int, rows: int | None) -> None:
    require_type("a batch", batch, Prefilled, "a Prefilled")
    count = len(batch.requests)
    if shards < 1 or count % shards or (rows is not None and (rows % shards or rows < count)):
        raise InputError(
            f"batches of {count} rows do not fit {rows or count} slots in {shards} parts: give a number of slots that is at "
            "least as large, and numbers of both that the parts divide"
        )
    given = batch.state, batch.plan
    for leaf, axis in zip(jax.tree.leaves(given), batch_axes(given), strict=True):
        if axis is not None and (leaf.ndim <= axis or leaf.shape[axis] != count):
            raise InputError(
                f"an array of a batch has shape {list(leaf.shape)}, but should have {count} rows on axis {axis}: give each "
                "row its own, or declare the axis with the field (see `qwen3vl_jax.generation.batch_axes`)"
            )


def _advance(
    model: Qwen3VL, running: Prefilled, sampling: Sampling, wanted: Bool[np.ndarray, " row"], count: int
) -> Generator[Answer, None, Prefilled]:
    """Decodes until `count` of the wanted slots are free; yields the answers that have ended, returns the batch without."""
    taken, busy = (running.requests != FREE) & wanted, np.int32(wanted.sum() - count)
    state = _decode(model, running.state, running.plan, sampling, taken, busy)
    done, tokens, length = fetch((state.done, state.tokens, state.length))
    requests = running.requests.copy()
    for row in np.flatnonzero(done & (requests != FREE)):
        yield int(requests[row]), tokens[row, : length[row]]
        requests[row] = FREE
    return Prefilled(state, running.plan, requests)


# The state is donated: it holds the cache, and without that two of them would exist at once.
@partial(jax.jit, donate_argnames="state")
def _decode(
    model: Qwen3VL,
    state: State,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    taken: Array,
    busy: Int32[Array, ""],
) -> State:
    def more(state: State) -> Array:
        return jnp.sum(taken & ~state.done) > busy

    return jax.lax.while_loop(more, lambda state: decode(model, state, plan, sampling), state)


def _free_slots(
    running: Int32[np.ndarray, "shard slot"], waiting: Int32[np.ndarray, "shard row"]
) -> Int32[np.ndarray, "shard row"]:
    """The free slot that each row of a batch takes; one after the last for those that take none."""
    slots = np.full(waiting.shape, running.shape[1], np.int32)
    for taken, free, rows in zip(slots, running == FREE, waiting != FREE, strict=True):
        count = min(free.sum(), rows.sum())
        taken[np.flatnonzero(rows)[:count]] = np.flatnonzero(free)[:count]
    return slots


@partial(jax.jit, static_argnums=(1, 2))
def _widen(batch: PyTree, shards: int, rows: int) -> PyTree:
    """Rows repeated until there are as many as slots: a free slot is computed too, and must hold something valid."""

    def widen(axis: int, leaf: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        split = _by_shard(leaf, axis, shards)
        repeated = jnp.take(split, np.arange(rows // shards) % split.shape[axis + 1], axis=axis + 1)
        return repeated.reshape(*leaf.shape[:axis], rows, *leaf.shape[axis + 1 :])

    return _map_batched(widen, batch)


@partial(jax.jit, donate_argnums=0)
def _refill(running: PyTree, batch: PyTree, slots: Int32[Array, "shard row"]) -> PyTree:
    """Takes rows of a batch into slots of the running one; what all rows share stays as it is."""

    def refill(axis: int, old: Shaped[Array, "..."], new: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        split, rows = (_by_shard(leaf, axis, len(slots)) for leaf in (old, new))

        def put(old: Array, new: Array, slots: Array) -> Array:
            return old.at[(slice(None),) * axis + (slots,)].set(new, mode="drop")

        return jax.vmap(put, (axis, axis, 0), axis)(split, rows, slots).reshape(old.shape)

    return _map_batched(refill, running, batch)


def _map_batched(change: Callable[..., Array], tree: PyTree, *others: PyTree) -> PyTree:
    """`change(batch axis, leaf, leaves of the others...)` of every array with a batch axis, the rest as it is in `tree`."""
    axes, structure = batch_axes(tree), jax.tree.structure(tree)
    leaves = zip(*map(jax.tree.leaves, (tree, *others)), strict=True)
    changed = [some[0] if axis is None else change(axis, *some) for axis, some in zip(axes, leaves, strict=True)]
    return jax.tree.unflatten(structure, changed)


def _by_shard(leaf: Shaped[Array, "..."], axis: int, shards: int) -> Shaped[Array, "..."]:
    """Its rows as so many equal parts, which are counted on `axis` then."""
    return leaf.reshape(*leaf.shape[:axis], shards, -1, *leaf.shape[axis + 1 :])
