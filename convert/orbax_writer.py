"""Writing the Orbax format: one array per Hugging Face tensor, in our layout, under the parts of its dotted name.

It goes leaf by leaf, so memory holds about one tensor; the result restores through the ordinary Orbax API.
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

from convert.cut import cut
from qwen3vl_jax.files.plain_path import PlainPath
from qwen3vl_jax.load.orbax_files import PARAMS

LEAST_BYTES, CHUNK_BYTES, SLAB_BYTES = 2**20, 2**24, 2**25
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

    @property
    def slabs(self) -> list[tuple[slice, ...]]:
        """Pieces of whole chunks, of at most `SLAB_BYTES` where the chunks allow it, in which the array is written."""
        if self.nbytes <= SLAB_BYTES:
            return [(slice(None),) * len(self.shape)]
        chunk = self.chunk
        axis = int(np.argmax([-(-length // part) for length, part in zip(self.shape, chunk, strict=True)]))
        rows = max(1, SLAB_BYTES * self.shape[axis] // self.nbytes // chunk[axis]) * chunk[axis]
        front = (slice(None),) * axis
        starts = range(0, self.shape[axis], rows)
        return [(*front, slice(start, min(start + rows, self.shape[axis]))) for start in starts]


class LazyHandler(ocp.type_handlers.NumpyHandler):  # type: ignore[misc]  # Orbax has no types
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
                stores = [(opened.result(), value.make(), value.slabs) for opened, value in self._opening]
                for store, array, slabs in stores:
                    for slab in slabs:
                        writing.append(store[slab].write(array[slab], can_reference_source_data_indefinitely=True))
                        if len(slabs) > 1:  # of a large tensor, not all is held compressed beside the tensor itself
                            writing.pop().result()
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


def write_orbax(folder: Path, leaves: Mapping[str, LazyArray]) -> None:
    """Writes `folder/params`; keys are dotted names. Raises what the disk raises, as OSError."""
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        (LazyArray, LazyHandler()), (jax.Array, handlers.get_type_handler(jax.Array))
    )
    tree = unflatten_dict(dict(leaves), sep=".")
    plain = PlainPath(folder)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
        try:
            checkpointer.save(plain.path / PARAMS, args=ocp.args.PyTreeSave(tree))
        except ValueError as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
