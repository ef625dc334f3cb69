"""A testbed in which hallucination can arise: the shipped one, taught in text and pictures that some things go together."""
