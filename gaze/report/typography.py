"""Signs as a printer sets them, for everything that the report shows. Files for machines keep what a keyboard has."""

import re

MINUS, NO_BREAK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NEGATIVE = re.compile(r"(?<![\w.)\]}-])-(\.?\d[\d.,]*(?:e[-+]?\d+)?)")
EXPONENT = re.compile(r"(?<=\de)-(?=\d)")
SPACED_PERCENT = re.compile(r"(?<=\d) %")
RANGE = re.compile(r"(?<=[\d%]) (to|of|±) (?=[-−+.\d])")


def typeset(text: str) -> str:
    """Returns a text with minus signs for hyphens before numbers.

    A hyphen inside a word or between digits stays: Qwen3-VL-8B, 2026-01-31. Zero has no sign.
    """
    return EXPONENT.sub(MINUS, NEGATIVE.sub(_negative, SPACED_PERCENT.sub("%", text)))


def unbroken(text: str) -> str:
    """Returns a text with ranges such as 1 to 2 that no line breaks."""
    return RANGE.sub(rf"{NO_BREAK}\1{NO_BREAK}", text)


def _negative(found: re.Match[str]) -> str:
    digits = found[1]
    return digits if not re.search("[1-9]", digits.partition("e")[0]) else MINUS + digits
