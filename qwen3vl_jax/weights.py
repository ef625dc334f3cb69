"""Every tensor of a checkpoint, derived from the module tree: there is no second table of names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from qwen3vl_jax.config import Config
from qwen3vl_jax.layers import Weight, shape_of
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import sharding

# Attributes that hold stacked modules; the layer number follows them in a name.
STACKS = ("layers", "blocks", "deepstack_merger_list")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file.

    Attributes:
      name: its Hugging Face name.
      path: the attribute path of the parameter in `Qwen3VL`.
      layer: its index in a stacked parameter, None if the parameter is not stacked.
      pattern, sizes: the einops way from the file's layout to ours, and the length of every axis in it. `a | b -> ours`
        allows a file two layouts, told apart by its shape; if it fits both it is the first, as in transformers.
    """

    name: str
    path: tuple[str, ...]
    layer: int | None
    pattern: str
    sizes: dict[str, int]

    @property
    def layouts(self) -> dict[tuple[int, ...], str]:
        """What a file may hold: the shape, and the names of its axes."""
        layouts: dict[tuple[int, ...], str] = {}
        for names in self.pattern.split("->")[0].split("|"):
            layouts.setdefault(shape_of(names, self.sizes), names)
        return layouts

    @property
    def shape(self) -> tuple[int, ...]:
        """In a file that we write: the last of the layouts, which is the hub's."""
        return list(self.layouts)[-1]

    @property
    def flax_shape(self) -> tuple[int, ...]:
        """In the model, without a layer axis."""
        return shape_of(self._ours, self.sizes)

    @property
    def _ours(self) -> str:
        return self.pattern.split("->")[1]

    def to_flax(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """From any of the layouts."""
        return rearrange(array, f"{self.layouts[array.shape]} -> {self._ours}", **self.sizes)

    def to_hf(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        return rearrange(array, f"{self._ours} -> {self.layouts[self.shape]}", **self.sizes)


@lru_cache(maxsize=4)
def tensors(config: Config) -> Mapping[str, Tensor]:
    """All tensors of a checkpoint of this shape, by Hugging Face name, in the order of the module tree."""
    found: dict[str, Tensor] = {}
    for path, param in _flat(_abstract(config, jnp.float32)):
        stacked = next((i for i, part in enumerate(path) if part in STACKS), None)
        for layer in [None] if stacked is None else range(param.shape[0]):
            parts = list(path)
            if stacked is not None:
                parts.insert(stacked + 1, str(layer))
            name = ".".join(parts)
            found[name] = Tensor(name, path, layer, param.pattern, dict(param.sizes))
    return MappingProxyType(found)


def assemble(
    config: Config, read: Callable[..., Shaped[Array | np.ndarray, "..."]], dtype: DTypeLike, mesh: Mesh | None = None
) -> Qwen3VL:
    """Builds the model from `read(tensor)`, which gives one tensor in our layout; layers are stacked slice by slice.

    On a mesh every process only asks for what its own devices hold: `read(tensor, index)` gives the part that the slices
    of `index` cut out. Peak memory is the model, or a process's part of it, and about one tensor: each slice is written
    into a donated stack on the devices.
    """
    model = _abstract(config, dtype)
    listed: dict[tuple[str, ...], list[Tensor]] = {}
    for tensor in tensors(config).values():
        listed.setdefault(tensor.path, []).append(tensor)
    filled: dict[Any, Any] = {}
    for path, param in _flat(model):
        if listed[path][0].layer is None:
            value = _place(listed[path][0], read, mesh).astype(dtype)
        else:
            onto = None if mesh is None else sharding(param.pattern, param.sizes, mesh, len(param.shape))
            value = jnp.zeros(param.shape, dtype, device=onto)
            for number, tensor in enumerate(listed[path]):
                value = _put(value, _place(tensor, read, mesh).astype(dtype), number)
        filled[path] = param.replace(value)
    nnx.update(model, nnx.from_flat_state(filled))
    return model


def disassemble(model: Qwen3VL) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The model's tensors by Hugging Face name, in the file's layout."""
    params = {path: np.asarray(param[...]) for path, param in _flat(model)}
    return {
        name: tensor.to_hf(params[tensor.path] if tensor.layer is None else params[tensor.path][tensor.layer])
        for name, tensor in tensors(model.config).items()
    }


def _abstract(config: Config, dtype: DTypeLike) -> Qwen3VL:
    return nnx.eval_shape(lambda: Qwen3VL(config, nnx.Rngs(0), dtype))


def _flat(model: Qwen3VL) -> list[tuple[tuple[str, ...], Weight]]:
    return [(tuple(map(str, path)), param) for path, param in nnx.to_flat_state(nnx.state(model, Weight))]


def _place(tensor: Tensor, read: Callable[..., Shaped[Array | np.ndarray, "..."]], mesh: Mesh | None) -> Array:
    """One tensor on its devices, what several of them hold read once."""
    if mesh is None:
        return jnp.asarray(read(tensor))
    parts: dict[str, Array | np.ndarray] = {}

    def part(index: Any) -> Any:
        if str(index) not in parts:
            parts[str(index)] = read(tensor, index)
        return parts[str(index)]

    return jax.make_array_from_callback(tensor.flax_shape, sharding(tensor.pattern, tensor.sizes, mesh), part)


@jax.jit(donate_argnums=0)
def _put(stack: Array, part: Array, number: int | Array) -> Array:
    return stack.at[number].set(part)
