"""The Orbax format: one array per Hugging Face tensor, in our layout, under the parts of its dotted name.

Writing goes leaf by leaf, so memory holds about one tensor; the result restores through the ordinary Orbax API.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax.traverse_util import unflatten_dict
from jaxtyping import Shaped

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load.checkpoint import Checkpoint, Index, check_tensors, cut
from qwen3vl_jax.weights import Tensor, tensors

PARAMS = "params"
LEAST_BYTES, CHUNK_BYTES = 2**20, 2**24
AXIS_HALVINGS = 5  # a model axis of up to 32 devices


@dataclass(frozen=True)
class LazyArray:
    """A leaf that exists only while it is written; `axis` is the one that a mesh would split."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], Shaped[np.ndarray, "..."]]
    axis: int | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk(self) -> list[int]:
        """The shape of what is only read as a whole: many along `axis`, so that a device reads no more than its part."""
        chunk, size = list(self.shape), self.nbytes
        for _ in range(AXIS_HALVINGS):
            if self.axis is not None and chunk[self.axis] % 2 == 0 and size >= 2 * LEAST_BYTES:
                chunk[self.axis] //= 2
                size //= 2
        while size > CHUNK_BYTES:
            longest = int(np.argmax(chunk))
            chunk[longest] = -(-chunk[longest] // 2)
            size = math.prod(chunk) * self.dtype.itemsize
        return chunk


class LazyHandler(ocp.type_handlers.NumpyHandler):
    """Makes, writes and awaits one leaf (or a chunkful of small ones) before the next; on disk they are numpy leaves."""

    def __init__(self) -> None:
        super().__init__()
        self._opening: list[tuple[Any, LazyArray]] = []

    async def serialize(
        self, values: Sequence[LazyArray], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        for part in cut([value.nbytes for value in values], CHUNK_BYTES):
            # The numpy handler's own `serialize` would hold a copy of every leaf until all of them are written.
            with self._finishing() as writing:
                await self._background_serialize(values[part], infos[part], args[part])
                stores = [(opened.result(), value.make()) for opened, value in self._opening]
                writing += [store.write(array, can_reference_source_data_indefinitely=True) for store, array in stores]
                for written in writing:
                    written.result()
        return []

    async def _open_and_write(self, value: LazyArray, tspec: dict[str, Any], ts_context: tensorstore.Context) -> None:
        tspec["metadata"]["chunks"] = value.chunk
        opened = tensorstore.open(tensorstore.Spec(tspec), create=True, open=True, context=ts_context)
        self._opening.append((opened, value))

    @contextmanager
    def _finishing(self) -> Iterator[list[Any]]:
        """Leaves when nothing is being written any more, come what may: then the folder can be removed for good."""
        writing: list[Any] = []
        try:
            yield writing
        finally:
            for future in [opened for opened, _ in self._opening] + writing:
                future.exception()
            self._opening.clear()


def is_orbax(folder: Path) -> bool:
    return (folder / PARAMS / "_METADATA").is_file()


def write_orbax(folder: Path, leaves: Mapping[str, LazyArray]) -> None:
    """Writes `folder/params`; keys are dotted names. Raises what the disk raises, as OSError."""
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (LazyArray, LazyHandler()), (jax.Array, handlers.get_type_handler(jax.Array))
    )
    tree = unflatten_dict(dict(leaves), sep=".")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
        try:
            checkpointer.save(folder.absolute() / PARAMS, args=ocp.args.PyTreeSave(tree))
        except ValueError as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def open_orbax(folder: Path) -> Checkpoint:
    """Opens a folder that `write_orbax` filled and checks what it holds against its config.json.

    Raises InputError for a damaged store and for missing, unknown or misshapen tensors.
    """
    config = Config.load(folder)
    params = folder.absolute() / PARAMS
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = checkpointer.metadata(params).item_metadata.tree
    except Exception as error:
        raise InputError(f"{params} is no readable Orbax checkpoint ({_first_line(error)}).") from error
    leaves = {".".join(str(key.key) for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    check_tensors(shapes, {name: tensor.flax_shape for name, tensor in tensors(config).items()}, params)
    context = ocp.type_handlers.get_ts_context()

    def read(tensor: Tensor, index: Index = ...) -> np.ndarray:
        return _read(params, tensor.name, index, context)

    dtypes = {name: np.dtype(leaf.dtype) for name, leaf in leaves.items()}
    return Checkpoint(folder, config, shapes, dtypes, read, plain=False)


def _read(params: Path, name: str, index: Index, context: tensorstore.Context) -> Shaped[np.ndarray, "..."]:
    # Orbax's partial restore parses the metadata of the whole tree for every leaf: 30 ms against 1 ms.
    store = {"driver": "ocdbt", "base": f"file://{params}/", "path": f"{name}/"}
    try:
        opened = tensorstore.open({"driver": "auto", "kvstore": store}, open=True, context=context).result()
        return opened[index].read().result()
    except ValueError as error:
        raise InputError(f"{params} is damaged: {name} cannot be read ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
