"""What one would like to say of gaze heads, each put so that it can fail, and whether it did."""

from collections.abc import Iterator

from typing_extensions import TypedDict

from experiments.paper.causes.causal_map import MapResults
from experiments.paper.causes.controls import ControlResults
from experiments.run.summaries import Among

NAMES = {
    "gaze": "the gaze heads",
    "random": "random heads",
    "layer": "random heads of the same layers",
    "attention": "random heads that look at the picture as much",
    "all": "all heads",
    "rest": "all heads but the gaze heads",
    "image": "Image Heads",
    "localization-index": "Localization Heads, elbow by index",
    "localization-value": "Localization Heads, elbow by value",
}
"""Each kind of sets in a sentence."""
WHEN = {
    "single": "at one strength for all",
    "best": "each set at its best strength",
    "dose": "with as much attention moved",
}
"""Each of `experiments.paper.causes.controls.SETTINGS` in a sentence."""
SIZE_OF_GAZE = ("random", "layer", "attention", "image", "localization-index", "localization-value")
"""The kinds with as many heads as there are gaze heads."""


class ClaimRow(TypedDict):
    """A claim and what decides it.

    Attributes:
      gaze, other: what is compared; of several control sets the best one.
      p: the rank of the gaze heads among the control sets, if there are several.
      holds: None where the control is the gaze heads themselves.
    """

    claim: str
    gaze: float | None
    other: float | None
    p: float | None
    holds: bool | None


def claims(heads: MapResults, controls: ControlResults) -> list[ClaimRow]:
    """Returns every claim. One against controls holds if no set does as well and the interval of the lead is above zero.

    Steered is an answer on target that is not the unsteered one: heads that do nothing would beat heads that break the model.
    """
    return [*_of_heads(heads), *_of_sets(controls), *_of_need(controls)]


def _of_heads(found: MapResults) -> Iterator[ClaimRow]:
    chosen = [row["by_paper"]["accuracy"] for row in found["heads"] if row["chosen"]]
    others = [row["by_paper"]["accuracy"] for row in found["heads"] if not row["chosen"]]
    if chosen and others:
        yield {
            "claim": "Moved alone at its best strength, every gaze head steers more answers than any other head",
            "gaze": min(chosen),
            "other": max(others),
            "p": None,
            "holds": min(chosen) > max(others),
        }
    correlation = found["effect_by_score"]
    yield {
        "claim": "Over heads, the gaze score and what a head does alone go together (rank correlation above zero)",
        "gaze": correlation["value"],
        "other": 0.0,
        "p": None,
        "holds": correlation["value"] is not None and correlation["interval"][0] > 0,
    }


def _of_sets(found: ControlResults) -> Iterator[ClaimRow]:
    for setting, when in WHEN.items():
        for row in found["steered"]:
            if row["setting"] == setting and row["kind"] != "gaze":
                claim = f"The gaze heads steer more answers than {NAMES[row['kind']]}, {when}"
                yield _against(claim, row["found"]["by_paper"]["against"], row["sets"], row["same"])


def _of_need(found: ControlResults) -> Iterator[ClaimRow]:
    for row in found["cut"]:
        if row["kind"] in SIZE_OF_GAZE:
            claim = f"Cut off, the gaze heads cost more answers about the panel asked than {NAMES[row['kind']]} do"
            yield _against(claim, row["lost"], row["sets"], row["same"])


def _against(claim: str, found: Among, sets: int, same: bool) -> ClaimRow:
    return {
        "claim": claim,
        "gaze": found["gaze"],
        "other": found["highest"],
        "p": found["p"] if sets > 1 else None,
        "holds": None if same else found["above_all"] and found["advantage"]["low"] > 0,
    }
