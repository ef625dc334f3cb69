"""Which weights a checkpoint on disk holds: a digest of every tensor, the same in both formats."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from qwen3vl_jax.load.checkpoint import Checkpoint
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.weights import tensors

BLOCK_BYTES = 2**24


def weights_digest(src: str | Path) -> str:
    """Returns 64 hex digits that tell the weights of a checkpoint from others: every byte of them is read.

    What counts are the tensors as stored, dtype included, not the format: a conversion that keeps every bit keeps the
    digest. Reads over a gigabyte a second from memory, on one core. Raises InputError as `open_checkpoint` does.
    """
    return combined(tensor_digests(open_checkpoint(src)))


def tensor_digests(checkpoint: Checkpoint) -> dict[str, str]:
    """Reads every tensor, and returns its digest by Hugging Face name."""
    return {
        name: tensor_digest(tensor.to_hf(checkpoint.read(tensor)))
        for name, tensor in tensors(checkpoint.config).items()
    }


def tensor_digest(array: Shaped[np.ndarray, "..."]) -> str:
    """SHA-256 of a tensor in Hugging Face's layout: of its dtype, its shape and its bytes."""
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    # By blocks, because a tensor of the other layout is a view whose bytes would have to be copied.
    rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def combined(digests: Mapping[str, str]) -> str:
    """One digest of all."""
    return hashlib.sha256("".join(f"{name}:{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()
