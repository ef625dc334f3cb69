"""Reading the Hugging Face format: `.safetensors` files, alone or in shards, one tensor at a time.

A file is the length of its header (8 bytes, little endian), the header (JSON: dtype, shape and place of every tensor) and the
tensors end to end. The safetensors library's own reader for numpy does not know bfloat16.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    NotRequired,  # pydantic does not take Python 3.11's own
)

import numpy as np
from jaxtyping import Shaped
from pydantic import Field, NonNegativeInt, RootModel
from typing_extensions import TypedDict

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import open_regular, parse_json, read_json, shown, validate
from qwen3vl_jax.load.checkpoint import DTYPES, Checkpoint, Index, check_tensors, listed, stamped
from qwen3vl_jax.weights import Tensor, tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
KIND, HINT = "a safetensors file", "copy or download it again"
MOST_BYTES, MOST_HEADER = 2**50, 10**8
"""Of a file, and of its header, as the safetensors library has it."""


class TensorEntry(TypedDict):
    """A tensor in the header; its bytes are those between the offsets, counted from the end of the header."""

    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


class Header(RootModel[dict[str, TensorEntry]]):
    """Of a file, without its `__metadata__`."""


class ShardIndex(TypedDict):
    """`model.safetensors.index.json`."""

    weight_map: dict[str, str]
    metadata: NotRequired[object]


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `start` counts bytes from the beginning of `file`."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Shaped[np.ndarray, "..."]:
        """The tensor, in the file's layout."""
        raw = np.empty(self.nbytes, np.uint8)
        # Not mapped: a process dies where the file behind a map is cut short.
        with open_regular(self.file, KIND, HINT, MOST_BYTES) as file:
            file.seek(self.start)
            if file.readinto(raw.data) < self.nbytes:
                raise InputError(f"{self.file} was cut short while it was read; {HINT}.")
        return raw.view(self.dtype).reshape(self.shape)

    def view(self) -> Shaped[np.ndarray, "..."]:
        """The tensor mapped into memory: what is not looked at is not read."""
        return np.asarray(np.memmap(self.file, self.dtype, "r", self.start, self.shape))


def open_safetensors(folder: Path) -> Checkpoint:
    """Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists, and checks every header.

    Raises InputError for a damaged or absent file and for missing, unknown, repeated or misshapen tensors.
    """
    stamps = stamped([folder / "config.json", folder / INDEX])
    config = Config.load(folder)
    declared = tensors(config)
    files = _files(folder)
    stamps |= stamped(folder / name for name in files)
    found = _find(folder, files)
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

    def read(tensor: Tensor, index: Index = ...) -> Shaped[np.ndarray, "..."]:
        place = stored[tensor.name]
        return tensor.to_flax(place.read() if index is ... else place.view())[index]

    dtypes = {name: place.dtype for name, place in stored.items()}
    return Checkpoint(folder, config, shapes, dtypes, read, plain=stored.keys() <= found.keys(), stamps=stamps)


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of one file by name; raises InputError unless the file is whole."""
    with open_regular(path, KIND, HINT, MOST_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_HEADER):
            raise InputError(f"{path} is truncated or no safetensors file; {HINT}.")
        raw = parse_json(file.read(length), path, KIND, hint=HINT)
    if isinstance(raw, dict):
        raw.pop("__metadata__", None)
    header = validate(raw, path, KIND, Header, HINT).root
    end = 8 + length
    places = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in DTYPES:
            raise InputError(
                f"{path} holds a tensor of dtype {entry['dtype']} ({name}); this package reads {', '.join(DTYPES)}."
            )
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        places[name] = Stored(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), start)
        if start != end or stop - start != places[name].nbytes:
            raise InputError(f"{path} is damaged: the place of {name} does not fit its shape and its neighbours.")
        end = stop
    if end != size:
        raise InputError(f"{path} has {size} bytes but its header describes {end}; {HINT}.")
    return places


def _files(folder: Path) -> dict[str, set[str]]:
    """The names of the files of weights, and which tensors the index promises in each."""
    if os.path.lexists(folder / SINGLE):
        return {SINGLE: set()}
    if not os.path.lexists(folder / INDEX):
        raise InputError(f"{folder} has neither {SINGLE} nor {INDEX}; give the folder of a Qwen3-VL checkpoint.")
    hint = "weight_map should give a file name for each tensor"
    where = read_json(folder / INDEX, "an index of safetensors files", ShardIndex, hint)["weight_map"]
    # A bare name: an index must not lead outside its folder.
    odd = [file for file in where.values() if not re.fullmatch(r"[^/\\\0]+\.safetensors", file)]
    if odd or not where:
        raise InputError(
            f"{folder / INDEX} is not an index of safetensors files ({shown(odd[0]) if odd else 'empty'}): {hint}."
        )
    promised: dict[str, set[str]] = {}
    for name, file in where.items():
        promised.setdefault(file, set()).add(name)
    return promised


def _find(folder: Path, files: Mapping[str, set[str]]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for file, promised in sorted(files.items()):
        header = read_header(folder / file)
        twice = sorted(header.keys() & found.keys())
        if twice:
            raise InputError(f"{folder} holds {listed(twice)} in more than one file; each tensor should be in one.")
        lost = sorted(promised - header.keys())
        if lost:
            raise InputError(f"{folder / INDEX} promises {listed(lost)} in {file}, which does not hold it.")
        found |= header
    return found


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
        views = [place.view().view(f"u{place.dtype.itemsize}") for place in (head, embedding)]
        rows = range(0, head.shape[0], block)
        same = all(np.array_equal(views[0][row : row + block], views[1][row : row + block]) for row in rows)
    if not same:
        raise InputError(
            f"{folder} is tied by its config.json, yet {HEAD} differs from {EMBEDDING}; untie it or remove {HEAD}."
        )
