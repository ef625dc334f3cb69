"""Toy checkpoints made by transformers, every parameter far from its initial value."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.utils import logging

from qwen3vl_jax.config import Config
from qwen3vl_jax.weights import tensors

logging.disable_progress_bar()
# On toys, threads that wait for each other cost a hundred times the work.
torch.set_num_threads(1)

TEXT = dict(
    vocab_size=256,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
)
ROPE = dict(rope_type="default", rope_theta=5000000, mrope_section=[4, 2, 2], mrope_interleaved=True)
VISION = dict(
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
SPECIAL = dict(image_token_id=250, video_token_id=251, vision_start_token_id=248, vision_end_token_id=249)


def make_toy(
    folder: Path,
    text: dict[str, Any] | None = None,
    rope: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    **save: Any,
) -> Path:
    """Saves a checkpoint whose config differs from the usual toy in the given entries, and returns its folder."""
    config = Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE | (rope or {})} | (text or {}),
        vision_config=VISION | (vision or {}),
        tie_word_embeddings=tied,
        **SPECIAL,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.25)
    model.to(dtype).save_pretrained(folder, **save)
    return folder


@pytest.fixture
def new_toy(tmp_path: Path) -> Callable[..., Path]:
    """`make_toy` into a folder of this test."""
    return lambda name="toy", **options: make_toy(tmp_path / name, **options)


@pytest.fixture(scope="session")
def shared_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied float32 toy that tests only read."""
    return make_toy(tmp_path_factory.mktemp("shared") / "toy")


@pytest.fixture
def toy(shared_toy: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(shared_toy, tmp_path / "toy"))


@pytest.fixture
def toy_with_tokenizer(new_toy: Callable[..., Path]) -> Path:
    """A toy with a word-level tokenizer and a chat template of its own."""
    special = {"<|vision_start|>": 248, "<|vision_end|>": 249, "<|image_pad|>": 250, "<|video_pad|>": 251}
    words = {f"w{i}": i for i in range(256) if i not in special.values()} | special
    backend = Tokenizer(WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0")
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = "template of this checkpoint {{ messages[0].role }}"
    folder = new_toy("with_tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """260 MB of random bits as bfloat16, 61 MB of them in the embedding."""
    text = TEXT | dict(vocab_size=60_000, hidden_size=512, intermediate_size=4096, num_hidden_layers=16, head_dim=64)
    raw = dict(
        model_type="qwen3_vl",
        text_config=text | {"rope_scaling": ROPE | {"mrope_section": [12, 10, 10]}},
        vision_config=VISION | {"out_hidden_size": 512},
        tie_word_embeddings=True,
        **SPECIAL,
    )
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    torch.manual_seed(0)
    bits = {
        name: torch.randint(-(2**15), 2**15, t.shape, dtype=torch.int16)
        for name, t in tensors(Config.from_dict(raw)).items()
    }
    save_file({name: array.view(torch.bfloat16) for name, array in bits.items()}, folder / "model.safetensors")
    return folder
