"""The one error that a person is meant to read."""


class InputError(ValueError):
    """What the caller gave cannot be used; the message is a sentence: what is wrong, and what would be right."""
