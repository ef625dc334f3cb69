"""The shapes of the released models, as their config.json files state them: enough to build one without its weights."""

from typing import Any

from qwen3vl_jax.config import Config

_ROPE = dict(rope_type="default", mrope_section=[24, 20, 20], mrope_interleaved=True)
_TEXT = dict(vocab_size=151_936, head_dim=128, rms_norm_eps=1e-6, rope_theta=5_000_000, rope_scaling=_ROPE)
_VISION = dict(num_heads=16, num_position_embeddings=2304, patch_size=16, spatial_merge_size=2, temporal_patch_size=2)
_SMALL = dict(depth=24, hidden_size=1024, intermediate_size=4096, deepstack_visual_indexes=[5, 11, 17])
_LARGE = dict(depth=27, hidden_size=1152, intermediate_size=4304, deepstack_visual_indexes=[8, 16, 24])
_EXPERTS: dict[str, Any] = dict(
    num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, decoder_sparse_step=1, norm_topk_prob=True
)


def _raw(
    width: int, layers: int, heads: int, kv: int, mlp: int, vision: dict[str, Any], tied: bool = False, **experts: Any
) -> dict[str, Any]:
    kind = "qwen3_vl_moe" if experts else "qwen3_vl"
    text = dict(hidden_size=width, num_hidden_layers=layers, intermediate_size=mlp)
    text |= dict(num_attention_heads=heads, num_key_value_heads=kv)
    return dict(
        model_type=kind,
        text_config=_TEXT | text | experts,
        vision_config=_VISION | vision | dict(out_hidden_size=width),
        tie_word_embeddings=tied,
    )


SHAPES: dict[str, dict[str, Any]] = {
    "2B": _raw(2048, 28, 16, 8, 6144, _SMALL, tied=True),
    "8B": _raw(4096, 36, 32, 8, 12288, _LARGE),
    "32B": _raw(5120, 64, 64, 8, 25600, _LARGE),
    "30B-A3B": _raw(2048, 48, 32, 4, 6144, _LARGE, **_EXPERTS),
}
"""By size, what `Config.from_dict` reads."""


def config(size: str) -> Config:
    return Config.from_dict(SHAPES[size])
