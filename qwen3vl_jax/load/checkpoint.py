"""A checkpoint on disk, opened: what it holds is known and checked, its tensors are read one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError

Index = tuple[slice, ...] | EllipsisType
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

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
    """

    folder: Path
    config: Config
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]
    read: Callable[..., Shaped[np.ndarray, "..."]]
    plain: bool

    @property
    def dtype(self) -> np.dtype:
        """What to compute in unless told otherwise: bfloat16 if all of it is stored so, else float32."""
        return BFLOAT16 if set(self.dtypes.values()) == {BFLOAT16} else np.dtype(np.float32)


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


def cut(sizes: Sequence[int], most: int) -> list[slice]:
    """Cuts a row of things of these sizes into pieces of at most `most`; what is larger is a piece of its own."""
    starts, filled = [0], 0
    for number, size in enumerate(sizes):
        if filled and filled + size > most:
            starts.append(number)
            filled = 0
        filled += size
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(sizes)], strict=True)]
