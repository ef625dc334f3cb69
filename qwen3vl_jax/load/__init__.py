"""Reading a checkpoint: safetensors or Orbax, a folder or a name on the hub."""

from qwen3vl_jax.load.checkpoint import Checkpoint
from qwen3vl_jax.load.digests import tensor_digests, weights_digest
from qwen3vl_jax.load.model_loading import load, load_model
from qwen3vl_jax.load.revision import model_revision
from qwen3vl_jax.load.source import open_checkpoint, resolve

__all__ = [
    "Checkpoint",
    "load",
    "load_model",
    "model_revision",
    "open_checkpoint",
    "resolve",
    "tensor_digests",
    "weights_digest",
]
