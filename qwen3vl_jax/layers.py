"""The small modules, and the one declaration that each tensor of the checkpoint has.

A tensor is declared where its module is built. The line names its axes: the lengths give its shape, the names are its
logical axes for sharding, the place of the module in the tree is its Hugging Face name, and the einops pattern is the way
from the layout in the file to ours.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from einops.parsing import ParsedExpression
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

Module = TypeVar("Module", bound=nnx.Module)
Axes = Mapping[str, int]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


class Weight(nnx.Param[Array]):
    """A tensor of the checkpoint. Metadata: `pattern` (einops, from the file to us), `sizes` (length of each axis).

    `a | b -> ours` is a tensor that files hold in either of two layouts (see `weights.Tensor`).
    """


def weight(pattern: str, axes: Axes, rngs: nnx.Rngs, dtype: DTypeLike, init: Callable[..., Array]) -> Weight:
    """Declares a tensor, for example `weight("(heads head) embed -> embed (heads head)", ...)`."""
    names = pattern.split("->")[1]
    sizes = {name: axes[name] for name in sorted(ParsedExpression(names).identifiers)}
    return Weight(init(rngs.params(), shape_of(names, sizes), dtype), pattern=pattern, sizes=sizes)


def shape_of(names: str, sizes: Axes) -> tuple[int, ...]:
    """The shape that one side of an einops pattern stands for; parenthesised axes are one dimension."""
    lengths = []
    for group in ParsedExpression(names).composition:
        length = 1
        for name in group:
            length *= sizes[name]
        lengths.append(length)
    return tuple(lengths)


def stack(count: int, build: Callable[[nnx.Rngs], Module], rngs: nnx.Rngs) -> Module:
    """`count` modules as a single one whose tensors have a leading layer axis, ready for `lax.scan`."""
    return nnx.split_rngs(splits=count)(nnx.vmap(build))(rngs)


class Linear(nnx.Module):
    """`y = x W (+ b)` over named axes: `Linear("embed -> heads head")` contracts the trailing axes named on the left.

    One plain matrix [in, out] with several axes flattened into one: the file's `torch.nn.Linear` turned round. `pattern`
    overrides that, and `rows` names the file's rows where they are the outputs in another order.
    """

    def __init__(
        self,
        axes_in_out: str,
        axes: Axes,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        *,
        bias: bool,
        pattern: str | None = None,
        rows: str | None = None,
    ) -> None:
        inputs, outputs = (side.strip() for side in axes_in_out.split("->"))
        self.contracted, self.outputs = len(inputs.split()), tuple(axes[name] for name in outputs.split())
        rows = rows or outputs
        pattern = pattern or f"({rows}) ({inputs}) -> ({inputs}) ({outputs})"
        self.weight = weight(pattern, axes, rngs, dtype, nnx.initializers.normal(0.02))
        self.bias = weight(f"({rows}) -> ({outputs})", axes, rngs, dtype, nnx.initializers.zeros) if bias else None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        kernel = self.weight[...]
        flat = x.reshape(-1, len(kernel)) @ kernel
        flat = flat if self.bias is None else flat + jnp.broadcast_to(self.bias[...], flat.shape)
        if len(self.outputs) > 1:
            # Or XLA for TPU turns the product round for what comes next, and with it a copy of the weights of all layers.
            flat = lax.optimization_barrier(flat)
        return flat.reshape(*x.shape[: x.ndim - self.contracted], *self.outputs)


class Embedding(nnx.Module):
    """A table `[vocab, embed]`, read by row, or from the other side as the output head of a tied model."""

    def __init__(self, pattern: str, axes: Axes, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.weight = weight(pattern, axes, rngs, dtype, nnx.initializers.normal(0.02))

    def __call__(self, index: Int[Array, "*shape"]) -> Float[Array, "*shape embed"]:
        return jnp.take(self.weight[...], index, axis=0)

    def attend(self, x: Float[Array, "*shape embed"]) -> Float[Array, "*shape vocab"]:
        return lax.dot_general(x, self.weight[...], (((x.ndim - 1,), (1,)), ((), ())))


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis: float32 inside, rounded to the input's dtype *before* the scale."""

    def __init__(self, axis: str, axes: Axes, eps: float, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.eps = eps
        self.weight = weight(f"{axis} -> {axis}", axes, rngs, dtype, nnx.initializers.ones)

    def __call__(self, x: Float[Array, "*shape axis"]) -> Float[Array, "*shape axis"]:
        wide = x.astype(jnp.float32)
        normed = wide * lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * jnp.broadcast_to(self.weight[...], x.shape)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis with scale and bias, eps 1e-6: float32 inside, rounded once."""

    def __init__(self, axis: str, axes: Axes, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.weight = weight(f"{axis} -> {axis}", axes, rngs, dtype, nnx.initializers.ones)
        self.bias = weight(f"{axis} -> {axis}", axes, rngs, dtype, nnx.initializers.zeros)

    def __call__(self, x: Float[Array, "*shape axis"]) -> Float[Array, "*shape axis"]:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
        scale, bias = (jnp.broadcast_to(w[...], x.shape).astype(jnp.float32) for w in (self.weight, self.bias))
        return (normed * scale + bias).astype(x.dtype)
