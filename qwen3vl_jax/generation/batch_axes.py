"""Which axis of each array of a pytree counts the rows of a batch: declared beside the field, the first where nothing is."""

from dataclasses import fields, is_dataclass

import jax
from jaxtyping import PyTree

from qwen3vl_jax.cache import BATCH_AXIS

Axis = int | None
"""None for an array that all rows share."""


def batch_axes(tree: PyTree, axis: Axis = 0) -> list[Axis]:
    """The batch axis of every leaf, in the order of `jax.tree.leaves`.

    A field says so as `struct.field(metadata={BATCH_AXIS: 1})`, for all that it holds.
    """
    if is_dataclass(tree):
        declared = [one for one in fields(tree) if one.metadata.get("pytree_node", True)]
        children = [(getattr(tree, one.name), one.metadata.get(BATCH_AXIS, axis)) for one in declared]
    else:
        children = [(child, axis) for child in jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)]
        if len(children) == 1 and children[0][0] is tree:
            return [axis]
    return [found for child, its_axis in children for found in batch_axes(child, its_axis)]
