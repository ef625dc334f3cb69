"""The one error that a person is meant to read, and what it must not say."""

import os
import re
from urllib.parse import quote

SECRET_NAMES = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
HIDDEN = "***"
PIECE = 8
"""Characters in a row of a secret that must not be shown."""
SHORTEST = 4
"""A setting shorter than this is no secret: a `1` must not vanish from every sentence."""


class InputError(ValueError):
    """What the caller gave cannot be used; the message is a sentence: what is wrong, and what would be right."""


def redact(text: str) -> str:
    """Hides the secrets of the environment in a text: the values of variables named like keys, tokens and passwords.

    A piece of eight characters is hidden too, in capitals or not and as a URL quotes it, and so are the ends that servers
    leave of a key when they mask its middle (`sk-a***xyz`).
    """
    secrets = _secrets()
    lowered = _lower(text)
    hidden = [False] * len(text)
    for secret in secrets:
        length = min(PIECE, len(secret))
        pieces = {secret[start : start + length] for start in range(len(secret) - length + 1)}
        for start in range(len(text) - length + 1):
            if lowered[start : start + length] in pieces:
                hidden[start : start + length] = [True] * length
    for masked in re.finditer(r"([\w.-]*)\*{3,}([\w.-]*)", lowered):
        if any(len(end) >= 2 and end in secret for end in masked.groups() for secret in secrets):
            hidden[masked.start() : masked.end()] = [True] * len(masked[0])
    shown = "".join("\0" if hide else sign for sign, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", HIDDEN, shown) if any(hidden) else text


def _secrets() -> set[str]:
    values = [value.strip() for name, value in os.environ.items() if SECRET_NAMES.search(name)]
    # The path of a key file is no secret, and would hide every other path beside it.
    kept = [_lower(value) for value in values if len(value) >= SHORTEST and not os.path.exists(value)]
    return {form for value in kept for form in (value, _lower(quote(value, safe="")))}


def _lower(text: str) -> str:
    """Keeps every character's place, as `str.lower` does not."""
    return "".join(sign.lower() if sign.isascii() else sign for sign in text)
