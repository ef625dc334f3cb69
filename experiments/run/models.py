"""What `--model` and `--dtype` mean, the same for every command."""

from pathlib import Path

from jax.sharding import Mesh

from gaze.testbed import CHECKPOINT
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

TESTBED = "testbed"


def open_model(name: str, dtype: str | None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """The testbed, a folder or a hub name; `dtype` as for `qwen3vl_jax.load.load`."""
    return load(source(name), dtype, mesh)


def source(name: str) -> str | Path:
    return CHECKPOINT if name == TESTBED else name
