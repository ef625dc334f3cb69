"""Strips and photos, their regions, and which image tokens show them."""
