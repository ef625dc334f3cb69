"""The small Qwen3-VL that ships with the package, and a strip to ask it about."""

from pathlib import Path

__all__ = ["CHECKPOINT", "STRIP"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The trained model in Hugging Face layout, with `heads.json`, its gaze heads."""
STRIP = Path(__file__).parent / "strip.png"
"""Six panels that training never showed."""
