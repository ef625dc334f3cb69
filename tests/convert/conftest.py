"""Toy checkpoints made by transformers, every parameter far from its initial value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

torch.set_num_threads(1)


def toy_config(text: dict[str, Any], vision: dict[str, Any], tied: bool) -> Qwen3VLConfig:
    text_config = dict(
        vocab_size=256,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        rope_theta=5000000,
        rope_scaling=dict(rope_type="default", mrope_section=[4, 2, 2], mrope_interleaved=True),
    )
    vision_config = dict(
        depth=4,
        hidden_size=32,
        intermediate_size=56,
        num_heads=2,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=48,
        num_position_embeddings=36,
        deepstack_visual_indexes=[0, 1, 2],
        hidden_act="gelu_pytorch_tanh",
    )
    return Qwen3VLConfig(
        text_config=text_config | text,
        vision_config=vision_config | vision,
        image_token_id=250,
        video_token_id=251,
        vision_start_token_id=248,
        vision_end_token_id=249,
        tie_word_embeddings=tied,
    )


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Path]:
    """`make_toy(name, text={}, vision={}, tied=True, dtype=...)` saves a checkpoint and returns its folder."""

    def make(
        name: str = "toy",
        text: dict[str, Any] | None = None,
        vision: dict[str, Any] | None = None,
        tied: bool = True,
        dtype: torch.dtype = torch.float32,
        **save: Any,
    ) -> Path:
        torch.manual_seed(0)
        model = Qwen3VLForConditionalGeneration(toy_config(text or {}, vision or {}, tied))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.25)
        model.to(dtype).save_pretrained(tmp_path / name, **save)
        return tmp_path / name

    return make
