"""A checkpoint on disk, opened: what it holds is known and checked, its tensors are read one at a time."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Shaped

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reading, shown

Index = tuple[slice, ...] | EllipsisType
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"F32": np.dtype(np.float32), "BF16": BFLOAT16, "F16": np.dtype(np.float16)}
"""Those of a checkpoint, by the codes of safetensors."""

Stamp = tuple[int, ...]
"""What changes when a file is written or replaced."""
BLOCK_BYTES = 2**24

# What stands beside the weights: enough for `Processor.load` here and for transformers' processors there.
SIDE_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of either format behind one face.

    Attributes:
      folder: where `config.json` and the side files lie.
      shapes, dtypes: of every tensor by Hugging Face name, as stored.
      read: reads one tensor, in our layout and its stored dtype; `read(tensor, index)` only the part that the slices of
        `index` cut out.
      plain: whether transformers can open the folder as it is.
      stamps: of every file, from before it was read.
    """

    folder: Path
    config: Config
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]
    read: Callable[..., Shaped[np.ndarray, "..."]]
    plain: bool
    stamps: Mapping[Path, Stamp]

    @property
    def dtype(self) -> np.dtype:
        """Bfloat16 if all of it is stored so, else float32."""
        return BFLOAT16 if set(self.dtypes.values()) == {BFLOAT16} else np.dtype(np.float32)

    def check_unchanged(self) -> None:
        """Raises InputError, naming the file, if one was written, replaced or removed since the checkpoint was opened."""
        for path, stamp in self.stamps.items():
            if not os.path.exists(path) or stamp != stamp_of(path.stat()):
                raise InputError(f"{path} was changed while it was read; start again when nobody writes it any more.")


def stamped(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """The stamps of files that are there; of others an opener will say that they are not."""
    return {path: stamp_of(path.stat()) for path in paths if os.path.exists(path)}


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def byte_blocks(array: Shaped[np.ndarray, "..."], most: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """The bytes of an array in order, in pieces: of a view in another layout the whole would be a copy."""
    rows = max(1, most * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8).data


def checked_dtype(dtype: DTypeLike | None) -> np.dtype | None:
    """Raises InputError unless it is None or a dtype that parameters can have."""
    if dtype is None:
        return None
    with reading(f"dtype {shown(dtype)}", "the dtype of a model", f"give {', '.join(map(str, DTYPES.values()))}"):
        found = jnp.dtype(dtype)
        if found not in DTYPES.values():
            raise ValueError("no model is computed in it")
        return found


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], folder: str | Path
) -> None:
    """Raises InputError, naming the tensors, unless those found are exactly those that config.json asks for."""
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    faults = {
        "lacks {} its config.json asks for": [name for name in expected if name not in found],
        "holds {} its config.json does not know": [name for name in found if name not in expected],
        "holds {} whose shape is not the one its config.json asks for": [
            f"{name} ({list(found[name])}, not {list(expected[name])})" for name in wrong
        ],
    }
    for fault, names in faults.items():
        if names:
            count = "a tensor" if len(names) == 1 else f"{len(names)} tensors"
            raise InputError(f"{folder} {fault.format(count)}: {listed(names)}.")


def listed(names: list[str], most: int = 3) -> str:
    """The first few names, and that there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
