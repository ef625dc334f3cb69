"""Which panel does a text describe? Judges that need no model, for texts that repeat a panel's caption."""

import re
from collections.abc import Sequence


def judge_exact(text: str, captions: Sequence[str]) -> int | None:
    """Index of the one caption that the text is, up to surrounding white space; None if it is none or several."""
    matches = [index for index, caption in enumerate(captions) if caption.strip() == text.strip() != ""]
    return matches[0] if len(matches) == 1 else None


def judge_first(text: str, captions: Sequence[str]) -> int | None:
    """Index of the caption that occurs first in a longer text, in whole words; None if none does.

    Where two start at the same place the longer one counts; None if they are equal.
    """
    places = []
    for index, caption in enumerate(captions):
        found = re.search(rf"(?<!\w){re.escape(caption.strip())}(?!\w)", text) if caption.strip() else None
        if found:
            places.append((found.start(), -len(found.group()), index))
    places.sort()
    tied = len(places) > 1 and places[0][:2] == places[1][:2]
    return places[0][2] if places and not tied else None
