"""Which weights a checkpoint on disk holds: a digest of every tensor, the same in both formats."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from typing_extensions import TypedDict  # pydantic does not take Python 3.11's own

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_bytes, read_json
from qwen3vl_jax.files.write import write_json
from qwen3vl_jax.load.checkpoint import Checkpoint, byte_blocks
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.weights import tensors

DIGESTS = "digests.json"


class Digests(TypedDict):
    """`digests.json`, which a conversion leaves beside config.json.

    Attributes:
      tensors: the digest of each by Hugging Face name.
      files: of all other files by their path, those apart that hold the tensors' bytes.
    """

    version: int
    tensors: dict[str, str]
    files: dict[str, str]


def weights_digest(src: str | Path) -> str:
    """Returns 64 hex digits that tell the weights of a checkpoint from others: every byte of them is read.

    What counts are the tensors as stored, dtype included, not the format: a conversion that keeps every bit keeps the
    digest. On one core it reads about a gigabyte a second. Raises InputError as `open_checkpoint` does.
    """
    digests = tensor_digests(open_checkpoint(src))
    return hashlib.sha256("".join(f"{name}:{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def tensor_digests(checkpoint: Checkpoint, seen: Callable[[str], object] = lambda name: None) -> dict[str, str]:
    """Reads every tensor, and returns its digest by Hugging Face name; calls `seen` with each name."""
    found = {}
    for name, tensor in tensors(checkpoint.config).items():
        found[name] = tensor_digest(tensor.to_hf(checkpoint.read(tensor)))
        seen(name)
    return found


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Keeps the tensors' digests with a checkpoint that is otherwise complete."""
    content: Digests = {"version": 1, "tensors": dict(digests), "files": _file_digests(folder)}
    write_json(folder / DIGESTS, content)


def damage(folder: Path) -> list[str] | None:
    """Returns the names of the tensors and files that are not as they were when the checkpoint was converted.

    None without `digests.json`. Raises InputError where something cannot be read at all.
    """
    if not (folder / DIGESTS).exists():
        return None
    kept = read_json(folder / DIGESTS, "a list of digests", Digests, "convert the checkpoint again")
    if kept["version"] != 1:
        raise InputError(
            f"{folder / DIGESTS} has version {kept['version']}, and this package reads 1: install a newer one"
        )
    pairs = (
        (kept["tensors"], tensor_digests(open_checkpoint(folder))),
        (kept["files"], _file_digests(folder)),
    )
    return [name for was, found in pairs for name in was | found if was.get(name) != found.get(name)]


def _file_digests(folder: Path) -> dict[str, str]:
    """Of all but those with tensors: of a safetensors file or an ocdbt store's data folder the tensors' digests tell more."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS]
    kept = [path for path in files if path.suffix != ".safetensors" and path.parent.name != "d"]
    read = {str(path.relative_to(folder)): read_bytes(path, "a part of a checkpoint") for path in kept}
    return {name: hashlib.sha256(content).hexdigest() for name, content in read.items()}


def tensor_digest(array: Shaped[np.ndarray, "..."]) -> str:
    """SHA-256 of a tensor in Hugging Face's layout: of its dtype, its shape and its bytes."""
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    for block in byte_blocks(array):
        digest.update(block)
    return digest.hexdigest()
