"""The one error that a person is meant to read, and what it must not say."""

import base64
import html
import os
import re
from urllib.parse import quote

SECRET_NAMES = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
HIDDEN = "***"
PIECE = 8
"""Characters in a row of a secret that must not be shown."""
SHORTEST = 4
"""A setting shorter than this is no secret: a `1` must not vanish from every sentence."""
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|%([0-9a-f]{2})|\\(.)|&#?\w{1,8};")
NESTED = 3
"""Escapes within escapes that are undone, as in JSON within JSON."""
MASKED = re.compile(r"([\w.-]{0,64})(?:\*{3,}|\.{3,}|\u2026|\u2022{3,})([\w.-]*)")
END = 3
"""Characters of a secret beside a mask."""


class InputError(ValueError):
    """What the caller gave cannot be used; the message is a sentence: what is wrong, and what would be right."""


def redact(text: str) -> str:
    """Hides the secrets of the environment in a text: the values of variables named like keys, tokens and passwords.

    A piece of eight characters is hidden too, in capitals or not, escaped as in URLs, JSON, Python and HTML, in hexadecimal, and
    in base64 whatever stands before it; and so are the ends that servers leave of a key when they mask its middle
    (`sk-a***xyz`).
    """
    secrets = _secrets()
    pieces = _pieces(secrets)
    hidden = [False] * len(text)
    signs = [(sign, place, place + 1) for place, sign in enumerate(_lower(text))]
    for _ in range(NESTED + 1):
        for first, stop in _found("".join(sign for sign, _, _ in signs), pieces):
            start, end = signs[first][1], signs[stop - 1][2]
            hidden[start:end] = [True] * (end - start)
        signs = _unescaped(signs)
    for masked in MASKED.finditer(_lower(text)):
        if any(len(end) >= END and end in secret for end in masked.groups() for secret in map(_lower, secrets)):
            hidden[masked.start() : masked.end()] = [True] * len(masked[0])
    shown = "".join("\0" if hide else sign for sign, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", HIDDEN, shown) if any(hidden) else text


def _found(text: str, pieces: set[str]) -> list[tuple[int, int]]:
    """Where one of the pieces stands: first and last but one."""
    lengths = sorted({len(piece) for piece in pieces})
    places = ((start, start + length) for length in lengths for start in range(len(text) - length + 1))
    return [(start, stop) for start, stop in places if text[start:stop] in pieces]


def _unescaped(signs: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Signs and the places that they take in a text, with one layer of escapes undone."""
    text, done, after = "".join(sign for sign, _, _ in signs), [], 0
    for escape in ESCAPE.finditer(text):
        json, python, url, plain = escape.groups()
        number = json or python or url
        sign = chr(int(number, 16)) if number else plain or html.unescape(escape[0])
        if len(sign) == 1:
            done += [
                *signs[after : escape.start()],
                (_lower(sign), signs[escape.start()][1], signs[escape.end() - 1][2]),
            ]
            after = escape.end()
    return [*done, *signs[after:]]


def _secrets() -> list[str]:
    values = [value.strip() for name, value in os.environ.items() if SECRET_NAMES.search(name)]
    # The path of a key file is no secret, and would hide every other path beside it.
    return [value for value in values if len(value) >= SHORTEST and not os.path.exists(value)]


def _pieces(secrets: list[str]) -> set[str]:
    """What must not stand in a text, in small letters."""
    forms = {_lower(form) for value in secrets for form in _forms(value)}
    return {form[start : start + PIECE] for form in forms for start in range(max(len(form) - PIECE, 0) + 1)}


def _forms(value: str) -> list[str]:
    """A secret as it is and as others encode it; base64 depends on how many bytes stand before it, modulo three."""
    raw = value.encode(errors="surrogateescape")
    packed = [base64.b64encode(bytes(before) + raw).decode()[before + (before > 0) :] for before in range(3)]
    urlsafe = [form.translate(str.maketrans("+/", "-_")) for form in packed]
    return [value, quote(raw, safe=""), raw.hex(), raw.hex(":"), raw.hex(" "), *packed, *urlsafe]


def _lower(text: str) -> str:
    """Keeps every character's place, as `str.lower` does not."""
    return "".join(sign.lower() if sign.isascii() else sign for sign in text)
