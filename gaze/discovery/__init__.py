"""Scores of heads, null hypotheses, baselines, and the verdict."""
