"""The testbed that was trained to look with few heads: its recipe and its drawings."""
