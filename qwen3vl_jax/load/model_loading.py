"""From a checkpoint of either format to a model in memory; what every command's `--model` goes through."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Shaped

from qwen3vl_jax.load.checkpoint import Checkpoint, Index, checked_dtype
from qwen3vl_jax.load.source import open_checkpoint, resolve
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.weights import Tensor, assemble


def load(src: str | Path, dtype: DTypeLike | None = None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """The model and its processor from a folder `qwen3vl-convert` wrote, a Hugging Face folder or a hub name.

    Args:
      dtype: of the parameters, float32, bfloat16 or float16; None as for `compute_dtype`.
      mesh: to lay the model over (see `qwen3vl_jax.sharding`); None for a single device.

    Raises InputError if anything of it is missing or does not fit.
    """
    checked_dtype(dtype)
    folder = resolve(src)
    processor = Processor.load(folder)
    return load_model(folder, dtype, mesh), processor


def load_model(src: str | Path, dtype: DTypeLike | None = None, mesh: Mesh | None = None) -> Qwen3VL:
    """The model alone; needs no tokenizer. Peak memory is the model (its part, on a mesh) and about one tensor."""
    wanted = checked_dtype(dtype)
    checkpoint = open_checkpoint(src)

    def read(tensor: Tensor, index: Index = ...) -> Shaped[np.ndarray, "..."]:
        # A copy, because on a CPU the model would otherwise go on living in the memory-mapped file.
        return np.array(checkpoint.read(tensor, index))

    return assemble(checkpoint.config, read, wanted or compute_dtype(checkpoint, mesh), mesh)


def compute_dtype(checkpoint: Checkpoint, mesh: Mesh | None = None) -> np.dtype:
    """What to compute in unless told otherwise: on a CPU float32, elsewhere as stored (see `Checkpoint.dtype`)."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return np.dtype(np.float32) if platform == "cpu" else checkpoint.dtype
