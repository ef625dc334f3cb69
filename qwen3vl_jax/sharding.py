"""One model over many devices: rows of a batch over the mesh's data axis, heads and widths over its model axis.

Weights and inputs carry their shardings and XLA derives the rest, so that the model itself knows of no mesh.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops.parsing import ParsedExpression
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.layers import Weight

AXES = ("data", "model")
RULES = {name: "model" for name in ("vocab", "heads", "kv", "mlp", "hidden")}
"""Logical axis to mesh axis; one that is not named here, or that the mesh axis does not divide, stays whole."""


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` rows of `model` neighbouring devices, by default over those of all processes.

    Raises InputError unless there are as many; a process by itself may leave some unused.
    """
    there = jax.devices() if devices is None else list(devices)
    alone = len({device.process_index for device in there}) == 1
    wanted = data * model
    if min(data, model) < 1 or wanted > len(there) or (wanted < len(there) and not alone):
        raise InputError(
            f"a mesh of data={data}, model={model} takes {wanted} devices and there are {len(there)}; "
            f"give sizes whose product is {len(there)}."
        )
    grid = mesh_utils.create_device_mesh((data, model), there[:wanted], allow_split_physical_axes=True)
    # Rows do not talk to each other, so they may stand in any order; in this one a process holds neighbouring rows.
    rows = sorted(grid, key=lambda row: sorted(device.process_index for device in row))
    return Mesh(np.stack(rows), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def shardings(model: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """How each tensor of a model (or of its `nnx.state`, real or abstract) lies on the mesh: the same tree of shardings."""

    def of(param: Weight) -> Any:
        return param.replace(sharding(param.pattern, param.sizes, mesh, len(param.shape)))

    return jax.tree.map(of, model, is_leaf=lambda node: isinstance(node, Weight))


def sharding(
    pattern: str, sizes: Mapping[str, int], mesh: Mesh | AbstractMesh, ndim: int | None = None
) -> NamedSharding:
    """How a declared tensor (see `layers.weight`) lies on the mesh; of `ndim` axes those in front are its layers, whole."""
    names = _names(pattern)
    axes: list[str | None] = [None] * ((ndim or len(names)) - len(names))
    for name in names:
        axis = RULES.get(name)
        whole = axis is None or axis in axes or sizes[name] % mesh.shape[axis] > 0
        axes.append(None if whole else axis)
    return NamedSharding(mesh, P(*axes))


def split_axis(pattern: str) -> int | None:
    """Which axis of a declared tensor a mesh would split first, None if none."""
    return next((place for place, name in enumerate(_names(pattern)) if name in RULES), None)


def mesh_of(model: PyTree) -> Mesh | None:
    """The mesh on which the arrays of a model lie; None if they lie on a single device outside of any."""
    mesh: Mesh | None = getattr(jax.tree.leaves(model)[0].sharding, "mesh", None)
    return mesh


def local_rows(mesh: Mesh | None, rows: int) -> slice:
    """Which of a batch's `rows`, a multiple of the data axis, this process has to provide; without a mesh all of them."""
    if mesh is None:
        return slice(0, rows)
    parts = _by_row(mesh).addressable_devices_indices_map((rows,)).values()
    ends = [part[0].indices(rows) for part in parts if part]
    return slice(min(start for start, *_ in ends), max(stop for _, stop, _ in ends))


def spread(tree: PyTree, mesh: Mesh | None, rows: int) -> PyTree:
    """Host arrays that hold this process's `local_rows` of a batch as arrays over the data axis.

    The leading axis of a leaf may count rows or several things per row, the same number for each.
    """
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    mine = local_rows(mesh, rows)
    by_row = _by_row(mesh)

    def place(leaf: Any) -> jax.Array:
        local = np.asarray(leaf)
        shape = (len(local) * rows // (mine.stop - mine.start), *local.shape[1:])
        placed: jax.Array = jax.make_array_from_process_local_data(by_row, local, shape)
        return placed

    return jax.tree.map(place, tree)


def across(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Host arrays that every process holds whole as arrays over the data axis, or on all devices where it does not fit."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def place(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        split = whole.ndim > 0 and len(whole) % mesh.shape["data"] == 0
        onto = _by_row(mesh) if split else NamedSharding(mesh, P())
        return jax.make_array_from_callback(whole.shape, onto, lambda index: whole[index])

    return jax.tree.map(place, tree)


def fetch(tree: PyTree) -> PyTree:
    """Arrays as numpy arrays, whole, on every process; all processes have to call it together."""

    def whole(leaf: Any) -> np.ndarray:
        near = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return np.asarray(leaf if near else multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(whole, tree)


def _names(pattern: str) -> list[str]:
    """Our side's axes; one that several are flattened into goes by the first of them, which a mesh can split."""
    return [group[0] for group in ParsedExpression(pattern.split("->")[1]).composition]


def _by_row(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P("data"))
