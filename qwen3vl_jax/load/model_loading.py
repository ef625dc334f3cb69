"""From a checkpoint of either format to a model in memory; what every command's `--model` goes through."""

from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from qwen3vl_jax.load.checkpoint import Index
from qwen3vl_jax.load.source import open_checkpoint, resolve
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.weights import Tensor, assemble


def load(src: str | Path, dtype: DTypeLike | None = None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """The model and its processor from a folder `qwen3vl-convert` wrote, a Hugging Face folder or a hub name.

    Args:
      dtype: of the parameters; None keeps bfloat16 as it is and makes everything else float32.
      mesh: to lay the model over (see `qwen3vl_jax.sharding`); None for a single device.

    Raises InputError if anything of it is missing or does not fit.
    """
    folder = resolve(src)
    processor = Processor.load(folder)
    return load_model(folder, dtype, mesh), processor


def load_model(src: str | Path, dtype: DTypeLike | None = None, mesh: Mesh | None = None) -> Qwen3VL:
    """The model alone; needs no tokenizer. Peak memory is the model (its part, on a mesh) and about one tensor."""
    checkpoint = open_checkpoint(src)

    def read(tensor: Tensor, index: Index = ...) -> np.ndarray:
        # A copy, because on a CPU the model would otherwise go on living in the memory-mapped file.
        return np.array(checkpoint.read(tensor, index))

    return assemble(checkpoint.config, read, dtype or checkpoint.dtype, mesh)
