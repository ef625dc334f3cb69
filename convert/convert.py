"""Conversion in both directions: one tensor in memory at a time, and a result that is there whole or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from qwen3vl_jax.files.write import new_folder
from qwen3vl_jax.load.checkpoint import SIDE_FILES, Checkpoint
from qwen3vl_jax.load.orbax_files import LazyArray, is_orbax, write_orbax
from qwen3vl_jax.load.safetensors_files import write_safetensors
from qwen3vl_jax.load.source import open_checkpoint, resolve
from qwen3vl_jax.sharding import split_axis
from qwen3vl_jax.weights import Tensor, tensors

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in all, as stored in the source."""


def convert(src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None) -> None:
    """Hugging Face to Orbax, or Orbax to Hugging Face, whichever `src` is not; arguments as for `to_orbax`."""
    folder = resolve(src)
    (to_hf if is_orbax(folder) else to_orbax)(folder, dst, dtype, progress)


def to_orbax(
    src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None
) -> None:
    """Writes the folder `dst`: `params/` for Orbax, one array per tensor, beside config, tokenizer and processor files.

    Args:
      src: a folder of either format or a hub name.
      dtype: to store everything in; None keeps every tensor bit for bit.

    Raises InputError for a source that is not a whole Qwen3-VL, a `dst` that exists and a disk that is full; `dst` is
    then absent.
    """
    with new_folder(Path(dst).absolute()) as folder:
        checkpoint = _opened(src, dtype, progress)
        leaves = {
            name: LazyArray(
                tensor.flax_shape, checkpoint.dtypes[name], partial(checkpoint.read, tensor), split_axis(tensor.pattern)
            )
            for name, tensor in tensors(checkpoint.config).items()
        }
        write_orbax(folder, leaves)
        _copy_side_files(checkpoint.folder, folder, dtype)


def to_hf(src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None) -> None:
    """Writes the folder `dst` as Hugging Face does, for `from_pretrained`; arguments and errors as for `to_orbax`."""
    with new_folder(Path(dst).absolute()) as folder:
        checkpoint = _opened(src, dtype, progress)
        declared = tensors(checkpoint.config)
        parts = {name: (tensor.shape, checkpoint.dtypes[name]) for name, tensor in declared.items()}
        write_safetensors(folder, parts, lambda name: declared[name].to_hf(checkpoint.read(declared[name])))
        _copy_side_files(checkpoint.folder, folder, dtype)


def _opened(src: str | Path, dtype: DTypeLike | None, progress: Progress | None) -> Checkpoint:
    """The source as it shall be written: cast while reading, and counted."""
    checkpoint = open_checkpoint(src)
    sizes = {name: checkpoint.dtypes[name].itemsize * int(np.prod(shape)) for name, shape in checkpoint.shapes.items()}
    total, done = sum(sizes.values()), 0

    def read(tensor: Tensor) -> np.ndarray:
        nonlocal done
        array = checkpoint.read(tensor)
        done += sizes[tensor.name]
        if progress is not None:
            progress(done, total)
        return array if dtype is None else array.astype(jnp.dtype(dtype))

    dtypes = checkpoint.dtypes if dtype is None else dict.fromkeys(checkpoint.dtypes, jnp.dtype(dtype))
    return replace(checkpoint, read=read, dtypes=dtypes)


def _copy_side_files(src: Path, dst: Path, dtype: DTypeLike | None) -> None:
    for name in SIDE_FILES:
        if (src / name).is_file():
            shutil.copyfile(src / name, dst / name)
    # Last, because a folder without it is no checkpoint.
    config = (src / "config.json").read_text(encoding="utf-8")
    if dtype is not None:
        config = json.dumps(_with_dtype(json.loads(config), jnp.dtype(dtype).name), indent=2) + "\n"
    (dst / "config.json").write_text(config, encoding="utf-8")


def _with_dtype(raw: Any, dtype: str) -> Any:
    """transformers loads weights in the dtype that its config names, on any level and under either key."""
    if not isinstance(raw, dict):
        return raw
    return {key: dtype if key in ("dtype", "torch_dtype") else _with_dtype(value, dtype) for key, value in raw.items()}
