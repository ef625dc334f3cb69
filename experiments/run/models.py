"""What `--model` and `--dtype` mean, the same for every command."""

import hashlib
import math
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Int32

from gaze.testbed import CHECKPOINT
from qwen3vl_jax.load.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.sharding import fetch

TESTBED = "testbed"
SAMPLES = 1024


def open_model(name: str, dtype: str | None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """The testbed, a folder or a hub name; computes in float32 on a CPU and else as stored, unless `dtype` says."""
    wanted: DTypeLike | None = dtype or ("float32" if jax.default_backend() == "cpu" else None)
    return load(source(name), wanted, mesh)


def source(name: str) -> str | Path:
    return CHECKPOINT if name == TESTBED else name


def revision(model: Qwen3VL) -> str:
    """Twelve hex digits that tell these weights from others, whatever file they came from and on whatever mesh they lie.

    A hash of 1,024 values of each.
    """
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(model)
    samples = fetch(_take([leaf for _, leaf in leaves], [_places(leaf.shape) for _, leaf in leaves]))
    for (path, leaf), sample in zip(leaves, samples, strict=True):
        digest.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode() + sample.astype(np.float32).tobytes())
    return digest.hexdigest()[:12]


def _places(shape: tuple[int, ...]) -> tuple[Int32[np.ndarray, " sample"], ...]:
    """Where the values stand, spread evenly, axis by axis."""
    size = math.prod(shape)
    flat = np.arange(0, size, max(size // SAMPLES, 1))[:SAMPLES]
    return tuple(axis.astype(np.int32) for axis in np.unravel_index(flat, shape))


@jax.jit
def _take(leaves: list[Array], places: list[tuple[Array, ...]]) -> list[Array]:
    return [leaf[place] for leaf, place in zip(leaves, places, strict=True)]
