"""Hugging Face checkpoints to Orbax and back, and the check that it is right."""
