"""What `--model` and `--dtype` mean, the same for every command."""

from pathlib import Path

import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from gaze.testbed import CHECKPOINT
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

TESTBED = "testbed"


def open_model(name: str, dtype: str | None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """The testbed, a folder or a hub name; computes in float32 on a CPU and else as stored, unless `dtype` says."""
    wanted: DTypeLike | None = dtype or ("float32" if jax.default_backend() == "cpu" else None)
    return load(source(name), wanted, mesh)


def source(name: str) -> str | Path:
    return CHECKPOINT if name == TESTBED else name
