"""Which heads cause what a model says: every head alone, sets of heads each at its best, and heads cut off."""
