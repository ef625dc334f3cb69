"""The answers that experiment 10 compares: steered to every panel, and asked for every panel by number with heads cut off."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper.e1_discovery import panel_questions
from experiments.paper.steering_study import every_panel, nowhere
from experiments.run.conditions import NOWHERE, Aim, Condition
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import EstimatedRow, Share, clusters, estimated, grouped, shared
from gaze.heads import HeadSet
from gaze.judges.outcomes import is_junk
from gaze.pictures.strips import Strip
from gaze.prompts import STATIC
from gaze.statistics import accuracy
from gaze.steering.masks import CUT

NAME = "e10_causes"
UNSTEERED = "unsteered"
CUT_STRENGTH = 10_000.0
"""Takes from attention scores all that there is."""

Groups = Mapping[str, list[Row]]
"""Judged answers by the name of their condition."""


class SteeredRow(EstimatedRow):
    """Answers on target under one condition, and the share of them that are junk or empty."""

    junk: float


def alone(run: Run, strips: Sequence[Strip]) -> Condition:
    """The model left alone."""
    return Condition(UNSTEERED, STATIC, run.settings.static, nowhere(strips))


def steered(run: Run, strips: Sequence[Strip], name: str, heads: HeadSet, strength: float) -> Condition:
    """Some heads steered to every panel. Weak strengths say something only where they are added to the scores."""
    title = at(name, strength)
    return Condition(title, STATIC, run.settings.static, every_panel(strips), heads, strength=strength, bias="add")


def at(name: str, strength: float) -> str:
    """The name of the condition of `steered`."""
    return f"{name} at {strength:.6g}"


def asked(run: Run, strips: Sequence[Strip], name: str, heads: HeadSet | None = None) -> list[Condition]:
    """Every panel asked for by number; the words do not look at the picture with the heads, if any are given.

    The picture itself is read as ever: what is ablated is where the answer looks.
    """
    length, cut = run.settings.static, {"name": f"{name} cut"}
    return [
        Condition(
            f"{name} cut, asked {panel + 1}",
            question,
            length,
            [[Aim(panel, NOWHERE) if heads is None else Aim.at(panel)]] * len(strips),
            heads,
            strength=CUT_STRENGTH,
            mode=CUT,
            bias="add",
            query_positions="text",
            tags=cut,
        )
        for panel, question in enumerate(panel_questions(len(strips[0])))
    ]


def generated(run: Run, part: str, strips: Sequence[Strip], conditions: Sequence[Condition]) -> Groups:
    """The judged answers of one part of the experiment, made if they are not there."""
    return by_name(run.judged(strips, run.generate(f"{NAME}/{part}", strips, conditions)))


def saved(run: Run, part: str, strips: Sequence[Strip]) -> Groups:
    """The same, as they are saved."""
    return by_name(run.judged(strips, run.answers(f"{NAME}/{part}")))


def summed(groups: Groups, title: str, seed: int) -> SteeredRow:
    """The numbers of one steered condition."""
    rows = groups[title]
    return {**estimated(rows, groups[UNSTEERED]), "junk": junk(rows)}


def answered(groups: Groups, name: str, seed: int) -> Share:
    """How often the panel that is asked for by number is described, with the heads of this name cut off."""
    rows = groups[f"{name} cut"]
    return shared(accuracy(hits(rows), *clusters(rows)))


def best_strength(groups: Groups, name: str, strengths: Sequence[float]) -> float:
    """The least strength at which most answers describe their target."""
    return max(strengths, key=lambda strength: (hits(groups[at(name, strength)]).mean(), -strength))


def hits(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row["panel"] == row["target"] for row in rows])


def junk(rows: Sequence[Row]) -> float:
    """The share of answers that are no language, or empty."""
    return sum(not row["text"].strip() or is_junk(row["text"]) for row in rows) / len(rows)


def by_name(rows: Sequence[Row]) -> Groups:
    """Answers by the name of their condition, or of several that belong together."""

    def name(row: Row) -> str:
        said: Any = row.get("name", row["condition"])
        return str(said)

    return grouped(rows, name)
