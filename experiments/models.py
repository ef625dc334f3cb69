"""What `--model` and `--dtype` mean, the same for every command."""

import hashlib
from pathlib import Path

import jax
import numpy as np
from jax.typing import DTypeLike

from convert.load import load
from experiments.testbed.strips import CHECKPOINT
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing import Processor

TESTBED = "testbed"
SAMPLES = 1024


def open_model(name: str, dtype: str | None) -> tuple[Qwen3VL, Processor]:
    """The testbed, a folder or a hub name; computes in float32 on a CPU and else as stored, unless `dtype` says."""
    wanted: DTypeLike | None = dtype or ("float32" if jax.default_backend() == "cpu" else None)
    return load(source(name), wanted)


def source(name: str) -> str | Path:
    return CHECKPOINT if name == TESTBED else name


def revision(model: Qwen3VL) -> str:
    """Twelve hex digits that tell these weights from others, whatever file they came from: a hash of 1,024 values of each."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        step = max(leaf.size // SAMPLES, 1)
        sample = np.asarray(leaf.reshape(-1)[::step][:SAMPLES], np.float32)
        digest.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode() + sample.tobytes())
    return digest.hexdigest()[:12]
