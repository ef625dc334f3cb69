"""Masks, schedules and steering vectors as data, and the engine that answers under them."""
