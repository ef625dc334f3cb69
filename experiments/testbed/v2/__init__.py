"""The testbed's second recipe: trained on nothing but the next word. Its checkpoint is not shipped yet."""
