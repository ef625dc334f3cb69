"""A small Qwen3-VL trained on drawn comic strips whose captions are known."""
