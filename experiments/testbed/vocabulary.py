"""The testbed's tokenizer and the small JSON files that sit beside its weights, in the layout of a Qwen3-VL checkpoint.

The vocabulary is the 256 bytes, the merges that make every word of the captions and questions one token, and Qwen's 26
special tokens. Any other text still encodes, byte by byte where it must. Nothing is sampled: the same files every time.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers
from transformers import AddedToken, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from experiments.testbed.scenes import COLOURS, OBJECTS, PANELS, RELATIONS, SUBJECTS
from experiments.testbed.wordings import ABOUT_COMICS, ABOUT_THINGS
from gaze.prompts import ORDER_PREFIX, ORDINAL_WORDS, ORDINALS, REVERSE_PREFIX, prefixed

# The 26 tokens of Qwen's ids 151643 to 151668, in that order. Those of the second group are text to the decoder: they
# show even when special tokens are skipped.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
FORMAT_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

# <|im_start|> and <|im_end|> frame a turn, a picture stands where the content has it, tool results make up a user turn.
CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- macro body(content) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
        {%- set seen.images = seen.images + 1 -%}
        {%- if add_vision_id -%}{{ 'Picture ' ~ seen.images ~ ': ' }}{%- endif -%}
        {{ '<|vision_start|><|image_pad|><|vision_end|>' }}
      {%- elif part.type == 'video' or 'video' in part -%}
        {%- set seen.videos = seen.videos + 1 -%}
        {%- if add_vision_id -%}{{ 'Video ' ~ seen.videos ~ ': ' }}{%- endif -%}
        {{ '<|vision_start|><|video_pad|><|vision_end|>' }}
      {%- elif 'text' in part -%}{{ part.text }}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
    {{ '\\n<tool_response>\\n' ~ body(message.content) ~ '\\n</tool_response>' }}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
  {%- else -%}
    {{ '<|im_start|>' ~ message.role ~ '\\n' ~ body(message.content) ~ '<|im_end|>\\n' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def build_tokenizer(folder: str | Path, more: Sequence[str] = ()) -> Qwen2Tokenizer:
    """Writes the tokenizer, `preprocessor_config.json` and `generation_config.json` into `folder`; returns the first.

    The words of `more`, too, are one token each, as they stand and as they are cut.
    `transformers.AutoTokenizer.from_pretrained(folder)` loads it. A model needs at least `len(tokenizer)` embeddings.
    """
    merges = learn_merges(pieces(more))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet + [left + right for left, right in merges])}
    # A dictionary because the class annotates these arguments more narrowly than it takes them.
    settings: dict[str, Any] = {"vocab": vocabulary, "merges": merges, "unk_token": None, "padding_side": "left"}
    tokenizer = Qwen2Tokenizer(**settings)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in FORMAT_TOKENS])
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    folder = Path(folder)
    tokenizer.save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", _preprocessor_config())
    _write_json(folder / "generation_config.json", _generation_config(tokenizer))
    return tokenizer


def pieces(more: Sequence[str] = ()) -> list[str]:
    """Every word of the testbed's language as Qwen's pre-tokenizer cuts it, in byte-level letters, sorted.

    The cut keeps the space before a word in the word ("Ġstar"): a word that occurs with and without one counts twice.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return sorted({piece for text in (*_language(), *more) for piece, _ in split.pre_tokenize_str(text)})


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each of `words` one token: the pair found in most words first, ties in code order."""
    spelled = [tuple(word) for word in words]
    merges = []
    while pairs := Counter(pair for symbols in spelled for pair in set(pairwise(symbols))):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]
    return merges


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def _language() -> list[str]:
    """Texts that hold every word in every position it can take. A caption opens an answer or follows a space."""
    templates = [
        template for wordings in ABOUT_COMICS + ABOUT_THINGS for template in wordings.paper + wordings.paraphrases
    ]
    templates += [prefixed(ORDER_PREFIX, template) for template in templates] + [REVERSE_PREFIX]
    places = {name: 1 for name in ("number", "left", "top", "right", "bottom")}
    questions = [
        template.format(ordinal=ordinal, word=word, order="1, 2", colour="red", **places)
        for template in templates
        for ordinal, word in zip(ORDINALS[:PANELS], ORDINAL_WORDS[:PANELS], strict=True)
    ]
    words = [f" {word}" for name in SUBJECTS + RELATIONS + OBJECTS for word in name.split()]
    return questions + words + [*COLOURS, *(f" {colour}" for colour in COLOURS), "system", "user", "assistant"]


def _preprocessor_config() -> dict[str, object]:
    """Qwen3-VL's image settings, but for a least area of one token cell, so that a small strip keeps its pixels."""
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": 32 * 32, "longest_edge": 4096 * 4096},
    }


def _generation_config(tokenizer: Qwen2Tokenizer) -> dict[str, object]:
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    return {"do_sample": False, "bos_token_id": pad, "eos_token_id": [end, pad], "pad_token_id": pad}


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
