"""Which weights a model in memory has."""

import hashlib
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import fetch

DIGITS = 16

Words = TypeVar("Words", Array, np.ndarray)
Places = list[UInt32[Array | np.ndarray, "..."]]
"""Random numbers for each index of each axis of a tensor, in a shape that broadcasts to its own."""


def model_revision(model: Qwen3VL) -> str:
    """Returns sixteen hex digits that tell these weights from others.

    Every element of every tensor counts. The revision is of the numbers, as float32, and of where they stand: it does not
    depend on the file that they came from, nor on the mesh on which they lie, and bfloat16 weights have the same one loaded
    as bfloat16 and as float32. Weights stored in float32 and rounded to bfloat16 are other numbers and have another one.
    All processes of a mesh have to call it together.
    """
    leaves = jax.tree_util.tree_leaves_with_path(model)
    sums = fetch(_checksums([leaf for _, leaf in leaves], [_places(leaf.shape) for _, leaf in leaves]))
    digest = hashlib.sha256()
    for (path, leaf), pair in zip(leaves, sums, strict=True):
        digest.update(f"{jax.tree_util.keystr(path)}{leaf.shape}{np.asarray(pair).tolist()}".encode())
    return digest.hexdigest()[:DIGITS]


def _places(shape: tuple[int, ...]) -> Places:
    # By a formula, as no generator promises the same numbers for ever.
    axes = [_mixed(np.arange(length, dtype=np.uint32) + np.uint32(at << 27)) for at, length in enumerate(shape, 1)]
    return [np.expand_dims(axis, [*range(at), *range(at + 1, len(shape))]) for at, axis in enumerate(axes)]


@jax.jit
def _checksums(leaves: list[Shaped[Array, "..."]], places: list[Places]) -> list[UInt32[Array, "2"]]:
    """Two sums per leaf over all its elements: of integers, so that it does not matter in which order they are added.

    Each element is mixed with its place, one to one, so that a change of any single element changes the first sum.
    """
    sums = []
    for leaf, axes in zip(leaves, places, strict=True):
        place = sum(axes[1:], jnp.broadcast_to(axes[0], leaf.shape))
        mixed = _mixed(_bits(leaf) + place)
        sums.append(jnp.stack([mixed.sum(dtype=jnp.uint32), (mixed * (place | 1)).sum(dtype=jnp.uint32)]))
    return sums


def _mixed(x: Words) -> Words:
    """The last step of MurmurHash3."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    mixed: Words = x ^ (x >> 16)
    return mixed


def _bits(leaf: Shaped[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Those of the numbers as float32; of bfloat16 they are its own in front, exact on any device."""
    if leaf.dtype == jnp.bfloat16:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint16).astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
