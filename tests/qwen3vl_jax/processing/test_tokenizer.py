"""Tokenizers whose settings fail only when they are used, and names that no file can have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaze.testbed import CHECKPOINT
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.processing import Processor
from qwen3vl_jax.processing.chat_template import saved_template
from qwen3vl_jax.processing.tokenizer import Tokenizer

TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": []}
TRUNCATION = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 2}
PADDING = {"strategy": {"Fixed": 40}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CHECKPOINT / name, tmp_path)
    return tmp_path


def change(folder: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / name).read_text())
    edit(raw)
    (folder / name).write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "spoiled",
    [
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"post_processor": TEMPLATE | {"special_tokens": {}}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]], "byte_fallback": True}},
    ],
)
def test_a_tokenizer_that_panics_is_one_sentence(folder: Path, spoiled: dict[str, Any]) -> None:
    change(folder, "tokenizer.json", lambda raw: raw.update(spoiled))
    with pytest.raises(InputError, match="cannot be read as a tokenizer") as refused:
        Tokenizer.load(folder)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "setting", [{"truncation": TRUNCATION}, {"truncation": TRUNCATION | {"stride": 0}}, {"padding": PADDING}]
)
def test_prompts_are_never_cut_or_filled_up(folder: Path, setting: dict[str, Any]) -> None:
    text = "What is happening in panel 3?"
    want = Tokenizer.load(folder)(text)
    change(folder, "tokenizer.json", lambda raw: raw.update(setting))
    assert Tokenizer.load(folder)(text) == want


@pytest.mark.parametrize("ids", [[-1], [2**40], [2**70]])
def test_what_are_no_ids(folder: Path, ids: list[int]) -> None:
    with pytest.raises(InputError, match="the tokens cannot be read"):
        Tokenizer.load(folder).decode(ids)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "file/x"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as refused:
        Tokenizer.load(tmp_path / name)
    assert "\n" not in str(refused.value)
    try:
        assert saved_template(tmp_path / name, None) is None
    except InputError:
        assert name != "file/x"


def stops(folder: Path, **config: object) -> list[str | None]:
    change(folder, "tokenizer_config.json", lambda raw: raw.update(config))
    processor = Processor.load(folder)
    return [processor.tokenizer.convert_ids_to_tokens(number) for number in processor.stop_tokens]


def test_an_answer_ends_with_its_turn_or_with_the_text(folder: Path) -> None:
    assert stops(folder, eos_token="<|im_end|>") == ["<|im_end|>"]
    assert stops(folder, eos_token="<|image_pad|>") == ["<|im_end|>", "<|image_pad|>"]
    assert stops(folder, eos_token={"content": "<|image_pad|>"}) == ["<|im_end|>", "<|image_pad|>"]
    assert stops(folder, eos_token=None) == ["<|im_end|>"]
    numbers = Processor.load(folder).stop_tokens
    assert numbers == sorted({*numbers})
    assert all(type(number) is int for number in numbers)
