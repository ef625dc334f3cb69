"""Qwen3-VL in JAX/Flax: edits in, taps out."""
