"""Writing `.safetensors` files, alone or in shards, one tensor at a time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from convert.cut import cut
from qwen3vl_jax.load.checkpoint import DTYPES, byte_blocks
from qwen3vl_jax.load.safetensors_files import INDEX, SINGLE

SHARD_BYTES = 4 * 10**9


def write_safetensors(
    folder: Path,
    parts: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    read: Callable[[str], Shaped[np.ndarray, "..."]],
) -> None:
    """Writes tensors of known shape and dtype, read one at a time by name, as one file or as shards with an index."""
    sizes = {name: dtype.itemsize * int(np.prod(shape)) for name, (shape, dtype) in parts.items()}
    shards = [list(parts)[part] for part in cut(list(sizes.values()), SHARD_BYTES)]
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        files = [SINGLE]
    else:
        where = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file, names in zip(files, shards, strict=True):
        # Wide dtypes first, as the safetensors library does: every tensor starts at a multiple of its item size.
        ordered = sorted(names, key=lambda name: -parts[name][1].itemsize)
        _write_file(folder / file, {name: parts[name] for name in ordered}, read)


def _write_file(
    path: Path,
    parts: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    read: Callable[[str], Shaped[np.ndarray, "..."]],
) -> None:
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in parts.items():
        start, end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in parts:
            for block in byte_blocks(read(name)):
                file.write(block)
