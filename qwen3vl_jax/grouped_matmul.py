"""Matrix products of rows that come in groups, each group with a matrix of its own.

TPUs have a kernel for it, `jax.lax.ragged_dot`. Elsewhere that multiplies every row by every matrix, so there the rows go
tile by tile, a tile being some rows of one group.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

TILE = 16
BY_ROWS = lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
"""Rows are what is summed over, and a group has its own sum."""


@jax.custom_vjp
def grouped_matmul(
    rows: Float[Array, "row in"], weights: Float[Array, " group in out"], sizes: Int[Array, " group"]
) -> Float[Array, "row out"]:
    """The first `sizes[0]` rows times `weights[0]`, the next `sizes[1]` times `weights[1]`, ...; no row is left over.

    Under `vmap` with shared weights the rows of all examples are grouped together. Reverse differentiation only.
    """
    product: Array = _matmul(rows, weights, sizes)
    return product


def _forward(rows: Array, weights: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _matmul(rows, weights, sizes), (rows, weights, sizes)


def _backward(kept: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    rows, weights, sizes = kept
    return _matmul(cotangent, weights.swapaxes(1, 2), sizes), _outer(rows, cotangent, sizes), None


grouped_matmul.defvjp(_forward, _backward)


@jax.custom_batching.custom_vmap
def _matmul(rows: Array, weights: Array, sizes: Array) -> Array:
    product: Array = lax.platform_dependent(rows, weights, sizes, tpu=lax.ragged_dot, default=_tiled_matmul)
    return product


@_matmul.def_vmap
def _(examples: int, batched: Sequence[bool], rows: Array, weights: Array, sizes: Array) -> tuple[Array, bool]:
    if batched[1]:
        rows, weights, sizes = _side_by_side(examples, batched, rows, weights, sizes)
        return _matmul(rows, weights, sizes).reshape(examples, -1, weights.shape[2]), True
    rows = rows if batched[0] else _repeated(rows, examples)
    sizes = sizes if batched[2] else _repeated(sizes, examples)
    groups = jnp.arange(sizes.shape[1])
    numbers = jax.vmap(lambda sizes: jnp.repeat(groups, sizes, total_repeat_length=rows.shape[1]))(sizes)
    order = jnp.argsort(numbers.reshape(-1))
    product = _matmul(rows.reshape(-1, rows.shape[2])[order], weights, sizes.sum(axis=0))
    return jnp.zeros_like(product).at[order].set(product).reshape(*rows.shape[:2], -1), True


@jax.custom_batching.custom_vmap
def _outer(left: Array, right: Array, sizes: Array) -> Array:
    """The sum of a group's outer products [group, in, out] of rows [row, in] and rows [row, out]."""
    products: Array = lax.platform_dependent(left, right, sizes, tpu=_ragged_outer, default=_tiled_outer)
    return products


@_outer.def_vmap
def _(examples: int, batched: Sequence[bool], *given: Array) -> tuple[Array, bool]:
    outer = _outer(*_side_by_side(examples, batched, *given))
    return outer.reshape(examples, -1, *outer.shape[1:]), True


def _side_by_side(examples: int, batched: Sequence[bool], *given: Array) -> list[Array]:
    """Examples as so many more groups: the first example's, then the second's, ..."""
    full = [x if is_batched else _repeated(x, examples) for x, is_batched in zip(given, batched, strict=True)]
    return [x.reshape(-1, *x.shape[2:]) for x in full]


def _repeated(x: Array, examples: int) -> Array:
    return jnp.broadcast_to(x, (examples, *x.shape))


def _tiled_matmul(rows: Array, weights: Array, sizes: Array) -> Array:
    count, place = _tiles(sizes)
    padded = jnp.pad(rows, ((0, TILE), (0, 0)))

    def write(number: Array, out: Array) -> Array:
        group, start, _ = place(number)
        tile = lax.dynamic_slice_in_dim(padded, start, TILE) @ weights[group]
        # What this writes after the last row of its group, the tiles that follow write again.
        return lax.dynamic_update_slice_in_dim(out, tile, start, axis=0)

    product: Array = lax.fori_loop(0, count, write, jnp.zeros((len(padded), weights.shape[2]), rows.dtype))
    return product[: len(rows)]


def _tiled_outer(left: Array, right: Array, sizes: Array) -> Array:
    count, place = _tiles(sizes)
    padded = [jnp.pad(rows, ((0, TILE), (0, 0))) for rows in (left, right)]

    def add(number: Array, out: Array) -> Array:
        group, start, own = place(number)
        one, other = (lax.dynamic_slice_in_dim(rows, start, TILE) for rows in padded)
        return out.at[group].add(jnp.where(own[:, None], one, 0).T @ other)

    products: Array = lax.fori_loop(0, count, add, jnp.zeros((len(sizes), left.shape[1], right.shape[1]), left.dtype))
    return products


def _ragged_outer(left: Array, right: Array, sizes: Array) -> Array:
    return lax.ragged_dot_general(left, right, sizes, BY_ROWS)


def _tiles(sizes: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """How many tiles there are, and of each its group, its first row and which of its rows belong to the group."""
    tiles = (sizes + TILE - 1) // TILE
    last, end = jnp.cumsum(tiles), jnp.cumsum(sizes)

    def place(number: Array) -> tuple[Array, Array, Array]:
        group = jnp.searchsorted(last, number, side="right")
        start = end[group] - sizes[group] + (number - last[group] + tiles[group]) * TILE
        return group, start, start + jnp.arange(TILE) < end[group]

    return last[-1], place
