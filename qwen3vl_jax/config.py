"""The shape of a Qwen3-VL model, read from any dialect of `config.json`.

Matches `configuration_qwen3_vl.py` and `configuration_qwen3_vl_moe.py` of `transformers/models`, including the defaults that
apply to absent keys.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json, shown, validate
from qwen3vl_jax.layers import ACTIVATIONS

DENSE, MOE = "qwen3_vl", "qwen3_vl_moe"
TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    DENSE: dict(
        hidden_size=4096,
        intermediate_size=22016,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=128,
    ),
    MOE: dict(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=None,
    ),
}


# What files hold, in the dialects of the hub and of transformers 5; other keys say nothing about the numbers.
Size = Annotated[int, Field(ge=1, le=2**24)]
Side = Annotated[int, Field(ge=1, le=256)]
Layers = Annotated[int, Field(ge=1, le=4096)]
"""Bounds above every model, below what would take for ever to build."""
Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
Theta = Annotated[float, Field(ge=1, le=1e30)]
"""Of rotary angles; bounds within which float32 holds it and its powers."""
Sides = Side | Annotated[list[Side], Field(max_length=3)] | tuple[Side, ...]


class RopeFile(TypedDict, total=False):
    rope_type: str
    type: str
    rope_theta: Theta
    mrope_section: Annotated[list[Index], Field(max_length=3)] | tuple[Index, ...]


class TextFile(TypedDict, total=False):
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    num_key_value_heads: Size | None
    head_dim: Size | None
    rms_norm_eps: Annotated[float, Field(ge=0, le=1)]
    rope_theta: Theta
    rope_scaling: RopeFile | None
    rope_parameters: RopeFile | None
    attention_bias: bool
    hidden_act: str
    num_local_experts: Annotated[int, Field(ge=0, le=2**16)]
    num_experts: Annotated[int, Field(ge=0, le=2**16)]
    num_experts_per_tok: Size
    moe_intermediate_size: Size
    decoder_sparse_step: Size
    mlp_only_layers: Annotated[list[Index], Field(max_length=4096)] | None


class VisionFile(TypedDict, total=False):
    depth: Layers
    hidden_size: Size
    intermediate_size: Size
    num_heads: Size
    in_channels: Side
    patch_size: Sides
    temporal_patch_size: Sides
    spatial_merge_size: Annotated[int, Field(ge=1, le=16)]
    out_hidden_size: Size
    num_position_embeddings: Size
    deepstack_visual_indexes: Annotated[list[int], Field(max_length=4096)] | tuple[int, ...]
    hidden_act: str
    rope_parameters: RopeFile | None


class ConfigFile(TypedDict, total=False):
    text_config: TextFile | None
    vision_config: VisionFile | None
    image_token_id: Index
    video_token_id: Index
    vision_start_token_id: Index
    vision_end_token_id: Index
    tie_word_embeddings: bool


@dataclass(frozen=True)
class ExpertsConfig:
    """The experts of each layer, of which every token goes through `per_token`; their MLPs are `width` wide."""

    count: int
    per_token: int
    width: int


@dataclass(frozen=True)
class TextConfig:
    """The text decoder. `axes` names every axis length that its tensors use; without `experts` its layers are dense."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, ...]
    attention_bias: bool
    hidden_act: str
    experts: ExpertsConfig | None = None

    @property
    def axes(self) -> dict[str, int]:
        axes = dict(
            vocab=self.vocab_size,
            embed=self.hidden_size,
            mlp=self.intermediate_size,
            heads=self.num_attention_heads,
            kv=self.num_key_value_heads,
            head=self.head_dim,
        )
        if self.experts is not None:
            axes |= dict(expert=self.experts.count, mlp=self.experts.width)
        return axes


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `axes` names every axis length that its tensors use."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int
    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]
    hidden_act: str
    rope_theta: float

    @property
    def axes(self) -> dict[str, int]:
        return dict(
            channel=self.in_channels,
            frame=self.temporal_patch_size,
            row=self.patch_size,
            col=self.patch_size,
            position=self.num_position_embeddings,
            width=self.hidden_size,
            three=3,
            heads=self.num_heads,
            head=self.hidden_size // self.num_heads,
            mlp=self.intermediate_size,
            block=self.hidden_size * self.spatial_merge_size**2,
            embed=self.out_hidden_size,
        )

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        """(block, merger) pairs, blocks ascending: after that block, that DeepStack merger reads the stream."""
        first = {block: merger for merger, block in reversed(list(enumerate(self.deepstack_visual_indexes)))}
        return tuple((block, first[block]) for block in sorted(first) if 0 <= block < self.depth)


@dataclass(frozen=True)
class Config:
    """A whole Qwen3-VL model."""

    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    tie_word_embeddings: bool

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Config":
        """Reads the parsed `config.json` of transformers 4.57 (hub) or 5.x.

        Raises InputError for another architecture, a value of another type, and numbers that no model can have.
        """
        found = raw.get("model_type")
        if found not in (DENSE, MOE):
            raise InputError(
                f"config.json describes model_type {found!r}; this package reads Qwen3-VL, {DENSE!r} or {MOE!r}."
            )
        file = validate(dict(raw), "config.json", "the config of a Qwen3-VL", ConfigFile)
        config = cls(
            text=_text(file.get("text_config") or {}, found),
            vision=_vision(file.get("vision_config") or {}),
            image_token_id=file.get("image_token_id", 151655),
            video_token_id=file.get("video_token_id", 151656),
            vision_start_token_id=file.get("vision_start_token_id", 151652),
            vision_end_token_id=file.get("vision_end_token_id", 151653),
            # Only the top level decides: transformers ignores text_config.tie_word_embeddings.
            tie_word_embeddings=file.get("tie_word_embeddings", False),
        )
        _check(config)
        return config

    @classmethod
    def load(cls, folder: str | Path) -> "Config":
        """Reads `folder/config.json`."""
        path = Path(folder) / "config.json"
        if not os.path.lexists(path):
            raise InputError(f"{shown(str(folder))} has no config.json; give the folder of a Qwen3-VL checkpoint.")
        raw = read_json(path, "the config of a model", hint="give the folder of a Qwen3-VL checkpoint")
        if not isinstance(raw, dict):
            raise InputError(f"{path} should hold a JSON object, not a {type(raw).__name__}.")
        return cls.from_dict(raw)


def _text(raw: Mapping[str, Any], model_type: str) -> TextConfig:
    raw = {**TEXT_DEFAULTS[model_type], **raw}
    # Hub files keep theta beside `rope_scaling`; transformers 5 saves both in `rope_parameters`.
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise InputError(f"config.json asks for rope_type {kind!r}; Qwen3-VL checkpoints use 'default'.")
    hidden, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
    return TextConfig(
        vocab_size=int(raw.get("vocab_size", 151936)),
        hidden_size=hidden,
        intermediate_size=int(raw["intermediate_size"]),
        num_hidden_layers=int(raw["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(raw["num_key_value_heads"] or heads),
        head_dim=int(raw["head_dim"] or hidden // heads),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", 500000.0))),
        mrope_section=tuple(int(n) for n in rope.get("mrope_section", (24, 20, 20))),
        attention_bias=bool(raw.get("attention_bias", False)),
        hidden_act=str(raw.get("hidden_act", "silu")),
        experts=_experts(raw) if model_type == MOE else None,
    )


def _experts(raw: Mapping[str, Any]) -> ExpertsConfig | None:
    # transformers 5 saves the number under another name than the hub's files have.
    count = int(raw.get("num_local_experts", raw.get("num_experts", 60)))
    step, dense = int(raw.get("decoder_sparse_step", 1)), raw.get("mlp_only_layers") or ()
    layers = range(int(raw["num_hidden_layers"]))
    sparse = [count != 0 and layer not in dense and (layer + 1) % step == 0 for layer in layers]
    if len(set(sparse)) > 1:
        raise InputError(
            f"config.json makes {sum(sparse)} of {len(layers)} layers mixtures of experts (decoder_sparse_step {step}, "
            f"mlp_only_layers {list(dense)}); this package needs layers that are all alike."
        )
    if not any(sparse):
        return None
    return ExpertsConfig(count, int(raw.get("num_experts_per_tok", 4)), int(raw.get("moe_intermediate_size", 1408)))


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    return VisionConfig(
        depth=int(raw.get("depth", 27)),
        hidden_size=int(raw.get("hidden_size", 1152)),
        intermediate_size=int(raw.get("intermediate_size", 4304)),
        num_heads=int(raw.get("num_heads", 16)),
        in_channels=int(raw.get("in_channels", 3)),
        patch_size=_single(raw.get("patch_size", 16), "patch_size"),
        temporal_patch_size=_single(raw.get("temporal_patch_size", 2), "temporal_patch_size"),
        spatial_merge_size=int(raw.get("spatial_merge_size", 2)),
        out_hidden_size=int(raw.get("out_hidden_size", 3584)),
        num_position_embeddings=int(raw.get("num_position_embeddings", 2304)),
        deepstack_visual_indexes=tuple(int(i) for i in raw.get("deepstack_visual_indexes", (8, 16, 24))),
        hidden_act=str(raw.get("hidden_act", "gelu_pytorch_tanh")),
        rope_theta=float((raw.get("rope_parameters") or {}).get("rope_theta", 10000.0)),
    )


def _single(value: int | Sequence[int], name: str) -> int:
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise InputError(f"config.json gives {name} {value}; this package needs one length for all axes.")
    return values.pop()


def _check(config: Config) -> None:
    text, vision = config.text, config.vision
    experts = text.experts or ExpertsConfig(count=1, per_token=1, width=1)
    rules = {
        "every size in config.json must be positive": min(
            text.num_hidden_layers, vision.depth, *text.axes.values(), *vision.axes.values()
        )
        > 0,
        "num_attention_heads must be a multiple of num_key_value_heads": text.num_attention_heads
        % max(text.num_key_value_heads, 1)
        == 0,
        "num_experts_per_tok must be from 1 to num_experts": 1 <= experts.per_token <= experts.count,
        "image_token_id must be in the vocabulary": config.image_token_id < text.vocab_size,
        "image_token_id and video_token_id must differ": config.image_token_id != config.video_token_id,
        "head_dim must be even": text.head_dim % 2 == 0,
        "mrope_section must have three entries": len(text.mrope_section) == 3,
        f"mrope_section must add up to half of head_dim {text.head_dim}": sum(text.mrope_section) == text.head_dim // 2,
        "the vision hidden_size must be a multiple of 4 x num_heads": vision.hidden_size
        % (4 * max(vision.num_heads, 1))
        == 0,
        f"hidden_act must be one of {', '.join(ACTIVATIONS)}": {text.hidden_act, vision.hidden_act} <= set(ACTIVATIONS),
        "num_position_embeddings must be a square": math.isqrt(max(vision.num_position_embeddings, 0)) ** 2
        == vision.num_position_embeddings,
        "out_hidden_size of the vision tower must equal hidden_size of the text model": vision.out_hidden_size
        == text.hidden_size,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(f"config.json is not a Qwen3-VL that can be built: {rule}.")
