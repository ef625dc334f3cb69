"""Gaze heads: find them, steer them, and measure what it does."""
