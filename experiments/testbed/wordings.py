"""What the testbed is asked and what it answers: the paper's prompts word for word, and paraphrases around them.

Half of the questions of each kind keep the paper's wording, so that the recipes run on the prompts they were published
with; the paraphrases keep the model from hanging on one string. Panels count from 0 in arguments and from 1 in words.
"""

from dataclasses import dataclass

import numpy as np

from gaze.prompts import (
    BOX,
    DISCOVERY,
    DYNAMIC,
    LETTER,
    NOTEBOOK_NARRATION,
    NOTEBOOK_OBJECTS,
    PART_OBJECT,
    REVERSE_NARRATION,
    REVERSE_TRAJECTORY,
    STATIC,
    TRAJECTORY,
    VQA,
    fill,
)

VERBATIM = 0.5


@dataclass(frozen=True)
class Wordings:
    """The ways to ask one kind of question: the paper's own, if it has any, and others. Templates for `str.format`."""

    paper: tuple[str, ...]
    paraphrases: tuple[str, ...]

    def draw(self, rng: np.random.Generator, verbatim: float) -> str:
        """One template: of the paper with probability `verbatim`, else a paraphrase; uniform within each."""
        pool = self.paper if self.paper and rng.random() < verbatim else self.paraphrases
        return pool[rng.integers(len(pool))]


PANEL = Wordings(
    (DISCOVERY,),
    (
        "Look carefully at this six-panel comic strip. What is happening in the {word} panel from the left?",
        "Look carefully at this comic strip. What happens in panel {number}? Answer briefly.",
        "Look at panel {number}. What is happening?",
        "What is happening in the {word} panel from the left?",
        "What is happening in the {ordinal} panel from the left?",
        "What is happening in the {word} panel?",
        "What is happening in the {ordinal} panel of the comic strip?",
        "What is happening in panel {number}?",
        "What is happening in panel number {number}?",
        "What happens in the {word} panel from the left? Answer briefly.",
        "What happens in panel {number} of this comic strip?",
        "What is the main action in the {word} panel?",
        "What can you see in panel number {number}?",
        "What does the {ordinal} panel show?",
        "What does panel {number} show?",
        "Tell me what happens in the {ordinal} panel.",
        "Tell me what happens in panel {number}.",
        "Please describe the {ordinal} panel from the left.",
        "Please describe panel number {number} of this comic strip in one brief sentence.",
        "Describe the {word} panel from the left.",
        "Describe the {word} panel of this six-panel comic strip.",
        "Describe panel {number}.",
        "Describe panel number {number}.",
        "Panel {number}?",
    ),
)

THIS_PANEL = Wordings(
    (STATIC,),
    (
        "What is happening in this panel?",
        "What is happening here?",
        "What happens here? Answer briefly.",
        "What happens in this panel of the comic strip?",
        "What is the main action in this panel?",
        "What is happening in this part of the comic strip?",
        "What does this panel show?",
        "What can you see here?",
        "Look carefully at this panel. What is happening?",
        "Tell me what happens in this panel.",
        "Please describe this panel of the comic strip.",
        "Describe this panel.",
        NOTEBOOK_OBJECTS,
        PART_OBJECT,
    ),
)

STRIP = Wordings(
    (VQA,),
    (
        "What is the main action or event in this comic strip?",
        "What is the main action happening in this comic strip?",
        "What is the main event in this image? Answer briefly.",
        "What is happening in this comic strip?",
        "What is happening in this six-panel comic strip? Answer briefly.",
        "What is happening in this image?",
        "What happens in this comic strip?",
        "Tell me what happens in one panel of this comic strip.",
        "Please describe one panel of the comic strip.",
        "Describe the main action in one brief sentence.",
    ),
)

READING_ORDER = Wordings(
    (TRAJECTORY,),
    (
        "Please describe each panel, in order. Start each description with 'Panel 1:', 'Panel 2:', and so on.",
        "Please describe what happens in each panel from left to right. Start each line with the panel number.",
        "Describe each panel from left to right. Start each panel description with 'Panel 1:', 'Panel 2:', and so on.",
        "Describe the panels from left to right, with the number of each panel.",
        "Tell me what happens in each panel, in order, with the panel number first.",
    ),
)

REVERSE_ORDER = Wordings(
    (),
    (
        fill(REVERSE_TRAJECTORY, 0),
        "Please describe what happens in each panel from right to left. Start each line with the panel number.",
        "Read the comic in reverse, and describe each panel with the panel number first.",
        "Describe the panels from right to left, with the number of each panel.",
        "Tell me what happens in each panel, in reverse order, with the panel number first.",
    ),
)

GIVEN_ORDER = Wordings(
    (),
    (
        "Please describe what happens in each panel, in the order {order}. Start each line with the panel number.",
        "Describe the panels in the order {order}.",
        "Describe panels {order}, with the number of each panel.",
        "Tell me what happens in panels {order}, in this order.",
    ),
)

FREE_ORDER = Wordings(
    (DYNAMIC, NOTEBOOK_NARRATION),
    (
        "Please describe each panel of this comic strip as I point you to them.",
        "Please describe the panels one by one.",
        "Describe each panel of this comic strip in one brief sentence, panel by panel.",
        "Describe what happens in each panel. Keep each description short.",
        "Tell me what happens, one sentence per panel.",
        "As I point you to the panels, describe them in order.",
    ),
)

REVERSED = Wordings(
    (REVERSE_NARRATION,),
    (
        "Read the comic in reverse, and describe each panel in one brief sentence.",
        "Read the comic in reverse, and please describe the panels one by one.",
        "Read the comic in reverse, and tell me what happens, one sentence per panel.",
    ),
)

COUNTED = Wordings(
    (),
    (
        "What is happening in the {ordinal} panel?",
        "What is happening in the {word} panel?",
        "What happens in the {ordinal} panel? Answer briefly.",
        "Describe the {ordinal} panel.",
    ),
)

LETTERS = Wordings(
    (LETTER,),
    (
        "What is the letter on the {ordinal} panel?",
        "What is the letter on the {word} panel? Answer with one letter.",
        "What letter is on the {ordinal} panel?",
        "Which letter does the {word} panel show?",
    ),
)

BOXED = Wordings(
    (BOX,),
    (
        "What is the main object in the box from column {left}, row {top} to column {right}, row {bottom}?",
        "What is in the box from column {left}, row {top} to column {right}, row {bottom}?",
    ),
)

PART = Wordings(
    (PART_OBJECT,),
    (
        "What is the main object in this part of the image?",
        "What is the main object here? Answer in a few words.",
        "What object is in this part of the image?",
        "What is in this part of the image?",
    ),
)

COLOURED = Wordings((), ("What is the {colour} object?", "What is the {colour} object? Answer in a few words."))
LARGEST = "What is the largest object?"
SMALLEST = "What is the smallest object?"
LISTED = Wordings((NOTEBOOK_OBJECTS,), ("List the objects in this image from left to right.",))

TRAITS = Wordings((), (LARGEST, SMALLEST))
ABOUT_COMICS = (
    PANEL,
    THIS_PANEL,
    STRIP,
    READING_ORDER,
    REVERSE_ORDER,
    GIVEN_ORDER,
    FREE_ORDER,
    REVERSED,
    COUNTED,
    LETTERS,
)
ABOUT_THINGS = (BOXED, PART, COLOURED, TRAITS, LISTED)
