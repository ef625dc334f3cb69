"""Conversion in both directions: one tensor in memory at a time, and a result that is there whole or not at all."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Shaped

from convert.orbax_writer import LazyArray, write_orbax
from convert.safetensors_writer import write_safetensors
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json
from qwen3vl_jax.files.write import new_folder, write_json
from qwen3vl_jax.load.checkpoint import SIDE_FILES, Checkpoint, checked_dtype, listed
from qwen3vl_jax.load.digests import tensor_digest, tensor_digests, write_digests
from qwen3vl_jax.load.orbax_files import is_orbax
from qwen3vl_jax.load.source import open_checkpoint, resolve
from qwen3vl_jax.sharding import split_axis
from qwen3vl_jax.weights import Tensor, tensors

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in all, as stored in the source; each counts when read and when read back."""

Write = Callable[[Path, Checkpoint], None]


def convert(src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None) -> None:
    """Hugging Face to Orbax, or Orbax to Hugging Face, whichever `src` is not; arguments as for `to_orbax`."""
    folder = resolve(src)
    (to_hf if is_orbax(folder) else to_orbax)(folder, dst, dtype, progress)


def to_orbax(
    src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None
) -> None:
    """Writes the folder `dst`: `params/` for Orbax, one array per tensor, beside config, tokenizer and processor files.

    It is read back before it counts as written, and a digest of every tensor kept in `digests.json`.

    Args:
      src: a folder of either format or a hub name.
      dtype: to store everything in; None keeps every tensor bit for bit.

    Raises InputError for a source that is not a whole Qwen3-VL or changes meanwhile, a `dst` that exists and a disk that is
    full or does not keep what is written; `dst` is then absent.
    """
    _convert(src, dst, dtype, progress, _write_orbax)


def to_hf(src: str | Path, dst: str | Path, dtype: DTypeLike | None = None, progress: Progress | None = None) -> None:
    """Writes the folder `dst` as Hugging Face does, for `from_pretrained`; arguments and errors as for `to_orbax`."""
    _convert(src, dst, dtype, progress, _write_hf)


def _convert(
    src: str | Path, dst: str | Path, dtype: DTypeLike | None, progress: Progress | None, write: Write
) -> None:
    wanted = checked_dtype(dtype)
    with new_folder(Path(dst).absolute()) as folder:
        source = open_checkpoint(src)
        sizes = {name: source.dtypes[name].itemsize * math.prod(shape) for name, shape in source.shapes.items()}
        total, done, digests = 2 * sum(sizes.values()), 0, dict[str, str]()

        def count(name: str) -> None:
            nonlocal done
            done += sizes[name]
            if progress is not None:
                progress(done, total)

        def read(tensor: Tensor) -> Shaped[np.ndarray, "..."]:
            array = source.read(tensor)
            array = array if wanted is None else array.astype(wanted)
            digests[tensor.name] = tensor_digest(tensor.to_hf(array))
            count(tensor.name)
            return array

        dtypes = source.dtypes if wanted is None else dict.fromkeys(source.dtypes, wanted)
        write(folder, replace(source, read=read, dtypes=dtypes))
        source.check_unchanged()
        _copy_side_files(source.folder, folder, wanted)
        found = tensor_digests(open_checkpoint(folder), count)
        lost = [name for name in digests if found[name] != digests[name]]
        if lost:
            raise InputError(f"writing {dst} failed: {listed(lost)} did not come back as written; check the disk.")
        write_digests(folder, digests)
        source.check_unchanged()


def _write_orbax(folder: Path, source: Checkpoint) -> None:
    leaves = {
        name: LazyArray(
            tensor.flax_shape, source.dtypes[name], partial(source.read, tensor), split_axis(tensor.pattern)
        )
        for name, tensor in tensors(source.config).items()
    }
    write_orbax(folder, leaves)


def _write_hf(folder: Path, source: Checkpoint) -> None:
    declared = tensors(source.config)
    parts = {name: (tensor.shape, source.dtypes[name]) for name, tensor in declared.items()}
    write_safetensors(folder, parts, lambda name: declared[name].to_hf(source.read(declared[name])))


def _copy_side_files(src: Path, dst: Path, dtype: np.dtype | None) -> None:
    for name in SIDE_FILES:
        if (src / name).is_file():
            shutil.copyfile(src / name, dst / name)
    if dtype is None:
        shutil.copyfile(src / "config.json", dst / "config.json")
    else:
        raw = read_json(src / "config.json", "the config of a checkpoint")
        write_json(dst / "config.json", _with_dtype(raw, dtype.name))


def _with_dtype(raw: Any, dtype: str) -> Any:
    """transformers loads weights in the dtype that its config names, on any level and under either key."""
    if not isinstance(raw, dict):
        return raw
    return {key: dtype if key in ("dtype", "torch_dtype") else _with_dtype(value, dtype) for key, value in raw.items()}
