"""The small Qwen3-VLs that ship with the package, and a strip to ask them about."""

from pathlib import Path

__all__ = ["CHECKPOINT", "SPARSE", "STRIP"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The testbed in Hugging Face layout, with `heads.json`, its gaze heads. Nothing pushed them to be few."""
SPARSE = Path(__file__).parent / "sparse"
"""The one before it, which was trained to look with few heads, with its `heads.json`."""
STRIP = Path(__file__).parent / "strip.png"
"""Six panels that training never showed."""
