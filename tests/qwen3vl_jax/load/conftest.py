"""The toy checkpoints of the converter's tests."""

from ...convert.conftest import new_toy, shared_toy, toy

__all__ = ["new_toy", "shared_toy", "toy"]
