"""Testbeds without gaze heads, to see that they are found to have none: one never trained, one with its queries scrambled."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Shaped

from convert.safetensors_writer import write_safetensors
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.config import Config
from qwen3vl_jax.files.write import new_folder
from qwen3vl_jax.load import load_model
from qwen3vl_jax.load.checkpoint import SIDE_FILES
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.weights import disassemble

Weights = dict[str, Shaped[np.ndarray, "..."]]
QUERIES = "model.language_model.layers.{}.self_attn.q_proj.weight"


def untrained(source: Path = CHECKPOINT, seed: int = 0) -> Weights:
    """A model of the same shape as it is before the first step of training."""
    return disassemble(Qwen3VL(Config.load(source), nnx.Rngs(seed)))


def scrambled(source: Path = CHECKPOINT, seed: int = 0) -> Weights:
    """The trained model with the query weights of its heads in other places, each in another layer than its own.

    Keys, values, outputs, MLPs and the vision tower stay as they are: what a head reads and writes is as it was, but it
    looks for what another layer's head was to look for.
    """
    config = Config.load(source).text
    weights = disassemble(load_model(source, jnp.float32))
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    rows = [
        rearrange(weights[QUERIES.format(layer)], "(head row) embed -> head row embed", head=heads)
        for layer in range(layers)
    ]
    rng = np.random.default_rng(seed)
    moved, taken = rng.integers(1, layers, heads), rng.permutation(heads)
    for layer in range(layers):
        theirs = [rows[(layer + moved[head]) % layers][taken[head]] for head in range(heads)]
        weights[QUERIES.format(layer)] = rearrange(np.stack(theirs), "head row embed -> (head row) embed")
    return weights


BROKEN: dict[str, Callable[[], Weights]] = {"untrained": untrained, "scrambled": scrambled}


def write(weights: Weights, folder: Path, source: Path = CHECKPOINT) -> None:
    """Writes weights as a new Hugging Face folder, in bfloat16 and with everything else as in `source`."""
    stored = {name: np.ascontiguousarray(array.astype(ml_dtypes.bfloat16)) for name, array in weights.items()}
    with new_folder(folder.absolute()) as partial:
        write_safetensors(partial, {name: (one.shape, one.dtype) for name, one in stored.items()}, stored.__getitem__)
        for name in (*SIDE_FILES, "config.json"):
            if (source / name).is_file():
                (partial / name).write_bytes((source / name).read_bytes())
