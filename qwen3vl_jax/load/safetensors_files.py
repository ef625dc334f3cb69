"""The Hugging Face format: reading and writing `.safetensors` files, alone or in shards, one tensor at a time.

A file is the length of its header (8 bytes, little endian), the header (JSON: dtype, shape and place of every tensor) and the
tensors end to end. Tensors are memory-mapped, so what is not looked at is not read.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load.checkpoint import BFLOAT16, Checkpoint, Index, check_tensors, cut, listed
from qwen3vl_jax.weights import Tensor, tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "BF16": BFLOAT16, "F16": np.dtype(np.float16)}
SHARD_BYTES = 4 * 10**9
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `start` counts bytes from the beginning of `file`."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    def read(self) -> Shaped[np.ndarray, "..."]:
        """A view of the file, in the file's layout."""
        return np.asarray(np.memmap(self.file, self.dtype, "r", self.start, self.shape))


def open_safetensors(folder: Path) -> Checkpoint:
    """Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists, and checks every header.

    Raises InputError for a damaged or absent file and for missing, unknown, repeated or misshapen tensors.
    """
    config = Config.load(folder)
    declared = tensors(config)
    found = _find(folder)
    stored = {_modern(name): place for name, place in found.items()}
    if len(stored) != len(found):
        raise InputError(
            f"{folder} holds the same tensor under an old and a new name; it should hold each tensor once."
        )
    if config.tie_word_embeddings and HEAD in stored and EMBEDDING in stored:
        _check_same(stored.pop(HEAD), stored[EMBEDDING], folder)
    shapes = {name: place.shape for name, place in stored.items()}
    _check_stacked(shapes, folder)
    fitting = {name: shapes[name] for name, tensor in declared.items() if shapes.get(name) in tensor.layouts}
    check_tensors(shapes, {name: tensor.shape for name, tensor in declared.items()} | fitting, folder)

    def read(tensor: Tensor, index: Index = ...) -> np.ndarray:
        return tensor.to_flax(stored[tensor.name].read())[index]

    dtypes = {name: place.dtype for name, place in stored.items()}
    return Checkpoint(folder, config, shapes, dtypes, read, plain=stored.keys() <= found.keys())


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of one file by name; raises InputError unless the file is whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise InputError(f"{path} is truncated or no safetensors file; copy or download it again.")
            header = json.loads(file.read(length), object_pairs_hook=_once)
        places = {name: _place(path, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no safetensors file ({error}); copy or download it again.") from error
    end = 8 + length
    for name, (place, stop) in sorted(places.items(), key=lambda item: item[1][0].start):
        if place.start != end or stop - place.start != place.dtype.itemsize * int(np.prod(place.shape)):
            raise InputError(f"{path} is damaged: the place of {name} does not fit its shape and its neighbours.")
        end = stop
    if end != size:
        raise InputError(f"{path} has {size} bytes but its header describes {end}; copy or download it again.")
    return {name: place for name, (place, _) in places.items()}


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
            file.write(np.ascontiguousarray(read(name)).reshape(-1).view(np.uint8).data)


def _find(folder: Path) -> dict[str, Stored]:
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder} has neither {SINGLE} nor {INDEX}; give the folder of a Qwen3-VL checkpoint.")
    where = _weight_map(folder / INDEX)
    found: dict[str, Stored] = {}
    for file in sorted(set(where.values())):
        if not (folder / file).is_file():
            raise InputError(f"{folder / INDEX} names {file}, which is not there; copy or download it too.")
        header = read_header(folder / file)
        twice = sorted(header.keys() & found.keys())
        if twice:
            raise InputError(f"{folder} holds {listed(twice)} in more than one file; each tensor should be in one.")
        found |= header
    lost = [name for name, file in where.items() if name not in found or found[name].file.name != file]
    if lost:
        raise InputError(f"{folder / INDEX} promises {listed(lost)} in {where[lost[0]]}, which does not hold it.")
    return found


def _weight_map(path: Path) -> dict[str, str]:
    try:
        where = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)["weight_map"]
        # A bare name: an index must not lead outside its folder.
        whole = isinstance(where, dict) and where and all(Path(file).name == file for file in where.values())
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no index of safetensors files ({error}).") from error
    if not whole:
        raise InputError(
            f"{path} is no index of safetensors files: weight_map should give a file name for each tensor."
        )
    return where


def _place(path: Path, entry: Mapping[str, Any], data: int) -> tuple[Stored, int]:
    start, stop = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise InputError(f"{path} holds a tensor of dtype {entry['dtype']}; this package reads {', '.join(DTYPES)}.")
    return Stored(path, DTYPES[entry["dtype"]], tuple(map(int, entry["shape"])), data + int(start)), data + int(stop)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Reads a JSON object whose keys must differ; plain `dict` would keep the last of two."""
    read: dict[str, Any] = {}
    for key, value in pairs:
        if key in read:
            raise InputError(f"the header of a safetensors file names {key} twice; each tensor should be there once.")
        read[key] = value
    return read


def _modern(name: str) -> str:
    """Exports older than the hub's files lack part of the prefix (`visual.`, `model.layers.`)."""
    name = re.sub(r"^visual\.", "model.visual.", name)
    return re.sub(r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1.", name)


def _check_stacked(names: Iterable[str], folder: Path) -> None:
    single = [name for name in names if re.search(r"\.experts\.\d+\.", name)]
    if single:
        raise InputError(
            f"{folder} holds each expert by itself ({listed(single, 1)}), as quantised exports do; give the original "
            "checkpoint, which holds those of a layer in one tensor."
        )


def _check_same(head: Stored, embedding: Stored, folder: Path) -> None:
    """A tied checkpoint may repeat the embedding as its head, but only bit for bit."""
    same = (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
    if same:
        block = max(1, 2**24 // head.shape[1])
        views = [place.read().view(f"u{place.dtype.itemsize}") for place in (head, embedding)]
        rows = range(0, head.shape[0], block)
        same = all(np.array_equal(views[0][row : row + block], views[1][row : row + block]) for row in rows)
    if not same:
        raise InputError(
            f"{folder} is tied by its config.json, yet {HEAD} differs from {EMBEDDING}; untie it or remove {HEAD}."
        )
