"""Reading the Orbax format: one array per Hugging Face tensor, in our layout, under the parts of its dotted name.

Read with tensorstore alone: Orbax's partial restore parses the metadata of the whole tree for every leaf, 30 ms against 1 ms.
"""

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import (
    Any,
    NotRequired,  # pydantic does not take Python 3.11's own
)

import numpy as np
import tensorstore
from jaxtyping import Shaped
from typing_extensions import TypedDict

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.plain_path import PlainPath
from qwen3vl_jax.files.read import read_json, reading
from qwen3vl_jax.load.checkpoint import DTYPES, Checkpoint, Index, check_tensors, stamped
from qwen3vl_jax.weights import Tensor, tensors

PARAMS = "params"
METADATA = "_METADATA"
KIND = "an Orbax checkpoint"
HINT = "convert it again"
MOST_FILES = 10_000
CACHE_BYTES = 10**8


class Key(TypedDict):
    key: str | int


class Leaf(TypedDict):
    key_metadata: list[Key]


class Tree(TypedDict):
    """`_METADATA`."""

    tree_metadata: dict[str, Leaf]
    use_zarr3: NotRequired[bool]


def is_orbax(folder: Path) -> bool:
    return os.path.lexists(folder / PARAMS / METADATA)


def open_orbax(folder: Path) -> Checkpoint:
    """Opens a folder that `qwen3vl-convert` filled and checks what it holds against its config.json.

    Raises InputError for a damaged store and for missing, unknown or misshapen tensors.
    """
    params = folder / PARAMS
    stamps = stamped([folder / "config.json", *_files(params)])
    config = Config.load(folder)
    declared = tensors(config)
    tree = read_json(params / METADATA, "the metadata of an Orbax checkpoint", Tree, HINT)
    names = [".".join(str(key["key"]) for key in leaf["key_metadata"]) for leaf in tree["tree_metadata"].values()]
    wanted = {name: tensor.flax_shape for name, tensor in declared.items()}
    check_tensors({name: wanted.get(name, ()) for name in names}, wanted, params)
    stores = _Stores(params, names, "zarr3" if tree.get("use_zarr3") else "zarr")
    check_tensors(stores.shapes, wanted, params)
    return Checkpoint(folder, config, wanted, stores.dtypes, stores.read, plain=False, stamps=stamps)


class _Stores:
    """The arrays of a checkpoint, opened; keeps the link alive through which they are read, if there is one."""

    def __init__(self, params: Path, names: list[str], driver: str) -> None:
        self._params = params
        self._plain = PlainPath(params)
        # No URL: `file://run%20x` is another folder.
        base = {"driver": "file", "path": f"{self._plain.path}/"}
        context = tensorstore.Context({"cache_pool#ocdbt": {"total_bytes_limit": CACHE_BYTES}})

        def open_(name: str) -> Any:
            store = {"driver": "ocdbt", "base": base, "path": f"{name}/", "cache_pool": "cache_pool#ocdbt"}
            return tensorstore.open({"driver": driver, "kvstore": store}, open=True, read=True, context=context)

        opening = {name: open_(name) for name in names}
        self._found = {name: self._result(name, future) for name, future in opening.items()}
        self.shapes = {name: tuple(store.shape) for name, store in self._found.items()}
        self.dtypes = {name: np.dtype(store.dtype.numpy_dtype) for name, store in self._found.items()}
        for name, store in self._found.items():
            if self.dtypes[name] not in DTYPES.values():
                raise InputError(
                    f"{params} holds {name} as {self.dtypes[name]}; this package reads {', '.join(DTYPES)}."
                )
            # So that a few bytes cannot ask for all memory.
            if math.prod(store.chunk_layout.read_chunk.shape) > max(1, math.prod(store.shape)):
                raise InputError(f"{params} is damaged: {name} is cut into pieces larger than itself.")

    def read(self, tensor: Tensor, index: Index = ...) -> Shaped[np.ndarray, "..."]:
        return np.asarray(self._result(tensor.name, self._found[tensor.name][index].read()))

    def _result(self, name: str, future: Any) -> Any:
        with reading(f"{name} in {self._params}", KIND, HINT):
            return future.result()


def _files(params: Path) -> Iterator[Path]:
    """All of a checkpoint; raises InputError if one of them is a pipe or device, which might never end."""
    count = 0
    with reading(params, KIND, HINT):
        for place, _, files in os.walk(params, followlinks=True):
            for name in files:
                path, count = Path(place, name), count + 1
                if count > MOST_FILES or not stat.S_ISREG(path.stat().st_mode):
                    raise InputError(f"{path} is no part of an Orbax checkpoint; {HINT}.")
                yield path
