"""A toy Qwen3-VL with weights that make attention uneven, as transformers' module and as ours, and prompts about it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from qwen3vl_jax.config import Config
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.positions import batch_images, image_cells, rope_positions
from qwen3vl_jax.weights import assemble

IMAGE, START, END = 250, 248, 249
ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
RAW = {
    "text_config": {
        "vocab_size": 256,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_theta": 5_000_000,
        "rope_scaling": ROPE,
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 48,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0],
        "hidden_act": "gelu_pytorch_tanh",
    },
    "image_token_id": IMAGE,
    "video_token_id": 251,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "tie_word_embeddings": True,
}
PIXELS = 3 * 2 * 4 * 4
LAYERS, HEADS, VOCAB, MERGE = 3, 4, 256, 2


class Toy(NamedTuple):
    """The same weights twice."""

    reference: Any
    model: Qwen3VL


@pytest.fixture(scope="session")
def toy():
    config = Qwen3VLConfig(**RAW)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    model = assemble(
        Config.from_dict({"model_type": "qwen3_vl", **RAW}), lambda t: t.to_flax(state[t.name]), jnp.float32
    )
    return Toy(reference, model)


def picture(seed, grid):
    """Random patch rows and their grid."""
    return np.random.default_rng(seed).normal(size=(grid[0] * grid[1], PIXELS)).astype(np.float32), grid


def ask(config, pictures, questions, length=None):
    """Images and left-padded prompts: all questions (lists of tokens) about the first picture, then about the next.

    A prompt is a few words, the picture, the question.
    """
    images = batch_images(pictures, config)
    cells = images.patches.shape[1] // MERGE**2
    tokens, positions, shown = [], [], []
    for number, (_, grid) in enumerate(pictures):
        for question in questions:
            row = np.array([1, 2, START, *[IMAGE] * (grid[0] * grid[1] // MERGE**2), END, *question], np.int32)
            tokens.append(row)
            positions.append(rope_positions(row, [grid], config))
            shown.append(image_cells(row, [number], [grid], cells, config))
    room = length or max(map(len, tokens))

    def pad(rows, fill):
        widths = [[(room - len(row), 0), *[(0, 0)] * (row.ndim - 1)] for row in rows]
        return np.stack([np.pad(row, width, constant_values=fill) for row, width in zip(rows, widths, strict=True)])

    valid = pad([np.ones(len(row), bool) for row in tokens], False)
    return images, Prompt(pad(tokens, 0), pad(positions, 0), valid, pad(shown, -1))
