"""Checks of arguments: shapes wherever a function is called, traced or not, and values where they are known on the host."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown


def require_type(name: str, value: object, wanted: type | tuple[type, ...], hint: str) -> None:
    """Raises InputError unless an argument is of a type; what arguments in the wrong order run into first."""
    if not isinstance(value, wanted):
        raise InputError(f"{name} is of type {type(value).__name__}, but should be {hint}")


def require_shape(name: str, value: Any, axes: Mapping[str, int | None], ones: str = "") -> None:
    """Raises InputError unless an array has these axes.

    Args:
      name: of the argument.
      axes: the length of each axis by its name; None for any length.
      ones: names of the axes that may have length 1 instead, as they are the same for all.
    """
    may_be_one = ones.split()
    shape = np.shape(value)
    fits = len(shape) == len(axes) and all(
        wanted is None or found == wanted or (found == 1 and axis in may_be_one)
        for found, (axis, wanted) in zip(shape, axes.items(), strict=True)
    )
    if not fits:
        lengths = ", ".join(_axis(axis, wanted, axis in may_be_one) for axis, wanted in axes.items())
        raise InputError(f"{name} has shape {list(shape)}, but should have [{lengths}]")


def require_count(name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raises InputError unless an argument is a whole number of at least `low` and, where that is given, at most `high`."""
    if (
        not isinstance(value, int | np.integer)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value > high)
    ):
        upto = "" if high is None else f" to {high}"
        raise InputError(f"{name} is {shown(value)}, but should be a whole number from {low}{upto}")


def require_range(name: str, value: Any, low: int, high: int, hint: str) -> None:
    """Raises InputError if any of some integers lies outside of `low` to `high` - 1. Does nothing while tracing."""
    if known(value) and np.size(value):
        numbers = np.asarray(value)
        least, most = int(numbers.min()), int(numbers.max())
        if least < low or most >= high:
            raise InputError(
                f"{name} holds {least if least < low else most}, but should hold {low} to {high - 1}: {hint}"
            )


def require_finite(name: str, tree: PyTree) -> None:
    """Raises InputError if any number on the host is not finite: a result that would pass for a finding.

    Args:
      tree: numpy arrays that must hold numbers everywhere.
    """
    for place, leaf in _leaves(tree):
        bad = int(np.size(leaf) - np.isfinite(np.asarray(leaf)).sum())
        if bad:
            raise InputError(
                f"{name}{place} has {bad} of {np.size(leaf)} numbers that are not finite: the weights may be damaged, or the "
                "dtype too narrow for them"
            )


def known(value: Any) -> bool:
    """Whether the numbers of an array can be looked at: not while tracing, nor on devices of other processes."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def _axis(name: str, wanted: int | None, or_one: bool) -> str:
    length = "any" if wanted is None else str(wanted)
    return f"{name}: {length}" + (" or 1" if or_one and wanted != 1 else "")


def _leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path), leaf
