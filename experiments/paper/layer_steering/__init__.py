"""The parts of experiment 2."""
