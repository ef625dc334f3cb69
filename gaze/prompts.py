"""The prompts of arXiv 2606.14703 word for word, and the words for panels.

Panels count from 0 in arguments and from 1 in words.
"""

import numpy as np

from qwen3vl_jax.checks import require_count, require_type
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown

LEAST_PANELS, MOST_PANELS = 2, 12
"""Of a strip."""
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th", "11th", "12th")
ORDINAL_WORDS = (
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"),
)
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

# The prompts of arXiv 2606.14703, as its released scripts (01 to 05) and its notebook send them.
DISCOVERY = (
    "Look carefully at this six-panel comic strip. "
    "What is happening in the {ordinal} panel from the left? Answer briefly."
)
TRAJECTORY = (
    "Please describe what happens in each panel, in order. "
    "Start each panel description with 'Panel 1:', 'Panel 2:', and so on."
)
VQA = "What is the main action or event happening in this comic strip? Answer briefly."
STATIC = "What is happening in this panel of the comic strip?"
DYNAMIC = (
    "Please describe each panel of this comic strip in order as I point you to them. "
    "Keep each description SHORT \N{EM DASH} one brief sentence per panel, naming the action and the salient objects. "
    "Do not summarise the whole strip first; just describe panel by panel."
)
NOTEBOOK_NARRATION = "Please describe what happens in each panel, in order."
NOTEBOOK_OBJECTS = "List the objects in this image:"
# Printed in the paper for its COCO experiment, whose code was not released.
PART_OBJECT = "What is the main object in this part of the image? Answer in a few words."

# Another reading order is asked for by a prefix to the question; panels are then counted in that order.
REVERSE_PREFIX = "Read the comic in reverse, "
ORDER_PREFIX = "Read the panels in the order {order}, "
REVERSE_TRAJECTORY = (
    "Please describe what happens in each panel, in reverse order. "
    "Start each panel description with 'Panel {last}:', 'Panel {before}:', and so on."
)
REVERSE_NARRATION = "Read the comic in reverse, and describe what happens in each panel, in order."

# The paper does not print its probe of reading order, nor a question about a box: these are ours.
LETTER = "What is the letter on the {ordinal} panel? Answer with one letter."
BOX = (
    "What is the main object in the box from column {left}, row {top} to column {right}, row {bottom}? "
    "Answer in a few words."
)


def prefixed(prefix: str, question: str) -> str:
    """The question after a prefix that opens the sentence."""
    require_type("prefix", prefix, str, "a text")
    require_type("question", question, str, "a text")
    return prefix + question[:1].lower() + question[1:]


def fill(template: str, panel: int | np.integer, panels: int | np.integer = 6) -> str:
    """Returns a template about one panel, e.g. `fill(DISCOVERY, 2)` asks for the 3rd panel.

    Args:
      panel: from 0.
      panels: how many the strip has, 2 to 12, in place of the six that `DISCOVERY` names.

    Raises InputError for a panel that the strip has not, and for a template with other fields than these.
    """
    require_type("template", template, str, "a text")
    require_count("panels", panels, LEAST_PANELS, MOST_PANELS)
    require_count("panel", panel, 0, int(panels) - 1)
    fields = {"ordinal": ORDINALS[panel], "word": ORDINAL_WORDS[panel], "number": int(panel) + 1}
    about = template.replace("six-panel", f"{NUMBER_WORDS[panels - 1]}-panel")
    try:
        return about.format_map({**fields, "last": panels, "before": panels - 1})
    except (ValueError, LookupError, AttributeError, TypeError):
        names = "{ordinal}, {word}, {number}, {last} and {before}"
        raise InputError(f"the template {shown(template)} cannot be filled: its fields may be {names}") from None
