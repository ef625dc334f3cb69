"""`Config` reads what transformers reads: both dialects, its defaults, its tying rule; and refuses what it cannot build."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from qwen3vl_jax.config import Config, TextConfig, VisionConfig
from qwen3vl_jax.errors import InputError

from ..toys import SPECIAL, TEXT, VISION, raw_config

THETA = 5_000_000
SECTION = dict(mrope_section=[4, 2, 2], mrope_interleaved=True)
HUB = dict(
    architectures=["Qwen3VLForConditionalGeneration"],
    model_type="qwen3_vl",
    text_config=TEXT
    | dict(
        model_type="qwen3_vl_text", rope_theta=THETA, rope_scaling=SECTION | {"rope_type": "default"}, dtype="bfloat16"
    ),
    vision_config=VISION | dict(model_type="qwen3_vl"),
    tie_word_embeddings=True,
    transformers_version="4.57.0.dev0",
    **SPECIAL,
)


def reference(raw: dict[str, Any]) -> Qwen3VLConfig:
    return Qwen3VLConfig(**{key: value for key, value in copy.deepcopy(raw).items() if key != "model_type"})


def theirs(raw: dict[str, Any]) -> Config:
    """What transformers understands by it."""
    read = reference(raw)
    rope = {
        "rope_theta": float(read.text_config.rope_parameters["rope_theta"]),
        "mrope_section": tuple(read.text_config.rope_parameters.get("mrope_section", (24, 20, 20))),
    }
    names = {field.name for field in dataclasses.fields(TextConfig)} - rope.keys() - {"experts"}
    text = {name: getattr(read.text_config, name) for name in names}
    vision = {f.name: getattr(read.vision_config, f.name, None) for f in dataclasses.fields(VisionConfig)}
    vision["rope_theta"] = read.vision_config.rope_parameters["rope_theta"]
    vision["deepstack_visual_indexes"] = tuple(vision["deepstack_visual_indexes"])
    return Config(
        text=TextConfig(**text, **rope),
        vision=VisionConfig(**vision),
        tie_word_embeddings=read.tie_word_embeddings,
        **{name: getattr(read, name) for name in SPECIAL},
    )


def changed(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """The hub file with other entries."""
    return (
        HUB
        | {"text_config": HUB["text_config"] | (text or {}), "vision_config": HUB["vision_config"] | (vision or {})}
        | top
    )


def text_with_rope(**rope: Any) -> dict[str, Any]:
    return HUB | {"text_config": TEXT | rope}


DIALECTS = {
    "hub": HUB,
    "hub, older word for the type": text_with_rope(rope_theta=THETA, rope_scaling=SECTION | {"type": "default"}),
    "hub, both words": text_with_rope(
        rope_theta=THETA, rope_scaling=SECTION | {"type": "mrope", "rope_type": "default"}
    ),
    "saved by 5.x": raw_config(
        vision=dict(model_type="qwen3_vl_vision", rope_parameters=dict(rope_type="axial", rope_theta=10000.0))
    ),
    "theta beside rope_parameters": text_with_rope(
        rope_theta=THETA, rope_parameters=SECTION | {"rope_type": "default"}
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(name: str) -> None:
    config = Config.from_dict(DIALECTS[name])
    assert config == theirs(DIALECTS[name]) == Config.from_dict(HUB)
    assert config.text.rope_theta == THETA
    assert config.text.mrope_section == (4, 2, 2)


def test_what_transformers_saves(tmp_path: Path) -> None:
    reference(HUB).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in saved["text_config"]
    assert "rope_scaling" not in saved["text_config"]
    assert Config.load(tmp_path) == Config.from_dict(HUB)
    (tmp_path / "config.json").write_text(json.dumps(HUB))
    assert Config.load(str(tmp_path)) == Config.from_dict(HUB)


def test_values_reach_their_fields() -> None:
    """Every field differs from its default and from every other."""
    raw = changed(
        dict(rms_norm_eps=1e-5, attention_bias=True, hidden_act="gelu", vocab_size=300, num_key_value_heads=1),
        dict(
            in_channels=1,
            patch_size=8,
            temporal_patch_size=3,
            spatial_merge_size=3,
            depth=5,
            rope_parameters=dict(rope_type="axial", rope_theta=50.0),
        ),
        image_token_id=1,
        video_token_id=2,
        vision_start_token_id=3,
        vision_end_token_id=4,
    )
    assert Config.from_dict(raw) == theirs(raw)
    assert Config.from_dict(raw).vision.rope_theta == 50.0


@pytest.mark.parametrize(
    "raw",
    [
        dict(text_config={}, vision_config=dict(out_hidden_size=4096)),
        dict(text_config=dict(hidden_size=3584), vision_config={}),
        dict(text_config=dict(hidden_size=3584)),
        dict(text_config=dict(num_key_value_heads=None), vision_config=dict(out_hidden_size=4096)),
    ],
)
def test_defaults_are_those_of_transformers(raw: dict[str, Any]) -> None:
    config = Config.from_dict(raw | {"model_type": "qwen3_vl"})
    assert config == theirs(raw)
    assert (config.text.rope_theta, config.text.mrope_section) == (500_000, (24, 20, 20))


@pytest.mark.parametrize("top", [True, False, None])
@pytest.mark.parametrize("text", [True, False, None])
def test_only_the_top_level_ties(top: bool | None, text: bool | None) -> None:
    raw = changed({} if text is None else dict(tie_word_embeddings=text))
    raw.pop("tie_word_embeddings")
    raw |= {} if top is None else dict(tie_word_embeddings=top)
    model = Qwen3VLForConditionalGeneration(reference(raw))
    tied = model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert Config.from_dict(raw).tie_word_embeddings == tied == bool(top)


@pytest.mark.parametrize("found", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl_moe_text", "qwen3_vl_text", "llama", None])
def test_another_architecture(found: str | None) -> None:
    with pytest.raises(InputError, match=f"model_type {found!r}.*'qwen3_vl' or 'qwen3_vl_moe'"):
        Config.from_dict(HUB | {"model_type": found})


def test_no_architecture() -> None:
    with pytest.raises(InputError, match="None"):
        Config.from_dict({key: value for key, value in HUB.items() if key != "model_type"})


@pytest.mark.parametrize(
    ("text", "vision", "message"),
    [
        (dict(hidden_size="wide"), {}, "should be"),
        (dict(hidden_size=[48]), {}, "should be"),
        (dict(num_hidden_layers=None), {}, "should be"),
        (dict(vocab_size=float("inf")), {}, "should be"),
        (dict(num_attention_heads=0, head_dim=None), {}, "should be"),
        (dict(rope_scaling="default"), {}, "should be"),
        ({}, dict(deepstack_visual_indexes=None), "should be"),
        ({}, dict(deepstack_visual_indexes=["first"]), "should be"),
        (dict(num_hidden_layers=0), {}, "greater than or equal to 1"),
        (dict(vocab_size=-1), {}, "greater than or equal to 1"),
        (dict(num_key_value_heads=-2), {}, "greater than or equal to 1"),
        ({}, dict(depth=0), "greater than or equal to 1"),
        ({}, dict(patch_size=0), "greater than or equal to 1"),
        ({}, dict(num_heads=0), "should be"),
        (dict(num_key_value_heads=3), {}, "multiple of num_key_value_heads"),
        (dict(head_dim=15), {}, "head_dim must be even"),
        (dict(rope_scaling=dict(mrope_section=[4, 4])), {}, "three entries"),
        (dict(rope_scaling=dict(mrope_section=[24, 20, 20])), {}, "half of head_dim"),
        (dict(num_hidden_layers=6.9), {}, "num_hidden_layers is 6.9"),
        (dict(num_hidden_layers=10**9), {}, "less than or equal to"),
        (dict(num_hidden_layers=True), {}, "valid integer"),
        (dict(rope_theta=float("nan")), {}, "rope_theta"),
        (dict(rope_theta=1e-300), {}, "rope_theta"),
        (dict(rope_theta=1e300), {}, "rope_theta"),
        (dict(rms_norm_eps=-1e-6), {}, "rms_norm_eps"),
        (dict(rms_norm_eps=1e300), {}, "rms_norm_eps"),
        ({}, dict(patch_size=10**6), "patch_size"),
        (dict(rope_scaling=dict(rope_type="yarn", factor=4.0)), {}, "rope_type 'yarn'"),
        (dict(hidden_size=64), {}, "out_hidden_size"),
        ({}, dict(hidden_size=36), "multiple of 4"),
        ({}, dict(num_position_embeddings=35), "square"),
        ({}, dict(patch_size=[16, 14]), "patch_size"),
        (dict(hidden_act="swishy"), {}, "hidden_act"),
        ({}, dict(hidden_act="swishy"), "hidden_act"),
    ],
)
def test_impossible_values(text: dict[str, Any], vision: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config.from_dict(changed(text, vision))


@pytest.mark.parametrize(
    ("top", "message"),
    [
        (dict(tie_word_embeddings="false"), "tie_word_embeddings is 'false'"),
        (dict(image_token_id=-1), "image_token_id is -1"),
        (dict(image_token_id=10**6), "image_token_id must be in the vocabulary"),
        (dict(image_token_id=5, video_token_id=5), "must differ"),
        (dict(video_token_id=2.0), "video_token_id is 2.0"),
    ],
)
def test_impossible_tokens(top: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config.from_dict(changed(**top))


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_parts_of_the_wrong_kind(part: str) -> None:
    with pytest.raises(InputError):
        Config.from_dict(HUB | {part: ["not", "a", "mapping"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no config.json"), ("{", "cannot be read"), ("[1]", "not a list"), ("\xff", "cannot be read")],
)
def test_unreadable_files(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        Config.load(tmp_path)


def test_taps_follow_the_blocks() -> None:
    """A merger belongs to the first place that its block has in the list, whatever the order of the list."""
    taps = Config.from_dict(changed(vision=dict(deepstack_visual_indexes=[2, 0, 9, 2, -1]))).vision.taps
    assert taps == ((0, 1), (2, 0))
