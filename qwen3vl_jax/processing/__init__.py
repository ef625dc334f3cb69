"""Text, pictures and videos to model inputs."""

from qwen3vl_jax.processing.processor import CHAT_TEMPLATE, Batch, Message, Processor

__all__ = ["CHAT_TEMPLATE", "Batch", "Message", "Processor"]
