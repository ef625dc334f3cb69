"""The chapter about natural images."""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired

from matplotlib.figure import Figure
from typing_extensions import TypedDict

from experiments.data.coco import SIZES
from experiments.run.formatting import (
    BY_RULE,
    COUNTING,
    ON_TARGET,
    drawn,
    line,
    made_with,
    measure,
    on_target,
    outcomes,
    percent,
    rules,
    share,
)
from experiments.run.summaries import Among, Counted, EstimateRow, OutcomeCounts, Provenance
from experiments.testbed.testbeds import TESTBEDS
from gaze.report import plots
from gaze.report.html import Cell, Chapter, Compared, Plot, Table

Group = Literal["by_size", "by_tokens"]
NAMES_IT = "answers that name the object"
KINDS: dict[str, tuple[str, plots.Role]] = {
    "gaze": ("{k} gaze heads", "gaze"),
    "random": ("random heads, layers matched", "random"),
    "all": ("all {all} heads", "all"),
    "gaze, paper": ("{k} gaze heads, the paper's strength", "gaze"),
    "paper": ("random heads, the paper's way and strength", "random"),
    "all, paper": ("all {all} heads, the paper's strength", "all"),
    "unsteered": ("left alone: one answer for all boxes", "unsteered"),
}
COMPARED = ("gaze", "random", "paper", "unsteered")
OUTCOMES = ("another object", "no object", "empty", "junk", "as unsteered")
"""Column heads of what became of the answers."""
PAPER = {
    "large": ("80.3%", "36.6%"),
    "medium": ("76.2%", "19.4%"),
    "small": ("61.7%", "18.6%"),
    "all": ("76.5%", "25.9%"),
}
"""Gaze heads and other heads of the 8B model on COCO val2017."""
STORY = (
    "A {picture} has no panels. Do heads that were found by asking about panels also look at an object, wherever it is? Each "
    "object has a box, and the gaze heads are made to look there. If they decide what is described, the model names the object."
)
COULD_FAIL = (
    "Left alone, the model names some object, and is right about one of the boxes. So its one answer is scored against every "
    "box: what it gets is free, and no merit of steering."
)


class NaturalRow(Provenance, Counted):
    """The numbers of a kind of heads; `exact` is the share of answers that are the category's name and no more."""

    by_size: dict[str, Counted]
    by_tokens: dict[str, Counted]
    exact: float
    outcomes: OutcomeCounts
    against_by_size: NotRequired[dict[str, Among]]


class TokenCounts(TypedDict):
    """Image tokens of the boxes, and how many boxes hold the centre of none."""

    least: int
    median: float
    most: int
    centreless: int


class NaturalResults(TypedDict):
    """What `sum_up` returns; `boxes` and what is by size has COCO's classes as keys."""

    photos: str
    pictures: int
    boxes: dict[str, int]
    left_out: dict[str, int]
    tokens: TokenCounts
    conditions: dict[str, NaturalRow]
    over_unsteered: EstimateRow
    over_unsteered_by_size: dict[str, EstimateRow]
    skipped_lines: int


def chapter(
    results: NaturalResults, number: int, name: str, title: str, tokens: Sequence[int], examples: Mapping[str, Figure]
) -> Chapter:
    """Tells what `e8_natural.sum_up` found.

    Args:
      tokens: where the classes of boxes by their image tokens begin.
      examples: figures by the name of the picture.
    """
    found, drawn_here = results["conditions"], results["photos"] in TESTBEDS
    picture = "drawing of single objects" if drawn_here else "photograph"
    sizes = [one for one in SIZES if one in results["boxes"]]
    classes = {
        str(first): _class(first, after)
        for first, after in zip(tokens, (*tokens[1:], None), strict=True)
        if str(first) in found["gaze"]["by_tokens"]
    }
    return Chapter(
        number,
        name,
        title,
        STORY.format(picture=picture),
        findings=_findings(results, sizes),
        plots=[*_plots(found, sizes, classes), *_examples(examples)],
        tables=[
            _conditions(results),
            _by(found, "by_size", {one: one for one in sizes}, "By size of the object"),
            _by(found, "by_tokens", classes, "By image tokens of the box"),
        ],
        compared=[
            Compared(
                f"{one} objects, gaze heads; others (8B, COCO val2017)",
                "; ".join(PAPER[one]),
                f"{percent(_by_paper(found['gaze, paper'], one))}; {percent(_by_paper(found['paper'], one))}",
            )
            for one in (*sizes, "all")
        ],
        caveats=[*_caveats(results, sizes), *["The pictures are drawings, not photographs."] * drawn_here],
        could_fail=COULD_FAIL,
        conclusion=f"Made to look at an object's box, the gaze heads make the model name the object in "
        f"{percent(found['gaze']['accuracy'])} of the answers; random heads reach {percent(found['random']['accuracy'])}, and "
        f"the answer without steering is right in {percent(found['unsteered']['accuracy'])}.",
    )


def _findings(results: NaturalResults, sizes: Sequence[str]) -> list[str]:
    found, ahead, tokens = results["conditions"], results["over_unsteered"], results["tokens"]
    gaze, random, placed = found["gaze"], found["random"], found["random"]["against"]
    by_size = (
        f"{one} {share(gaze['by_size'][one])}, random {percent(random['by_size'][one]['accuracy'])}, left alone "
        f"{percent(found['unsteered']['by_size'][one]['accuracy'])}"
        for one in sizes
    )
    return [
        f"With the gaze heads on the box of an object, the model names it in {share(gaze)} of {gaze['n']} answers about "
        f"{results['pictures']} pictures; with random heads of the same layers {drawn(placed)} over "
        f"{len(placed['accuracies'])} draws; with all heads {percent(found['all']['accuracy'])}. Each kind is steered at its own "
        f"best strength, chosen on strips: {gaze['strength']:g}, {random['strength']:g} and {found['all']['strength']:g}.",
        "By the paper's counting, where an answer that equals the unsteered one is a miss, it is "
        f"{share(gaze['by_paper'])}, {drawn(random['by_paper']['against'])} and "
        f"{percent(found['all']['by_paper']['accuracy'])}.",
        f"Left alone, its one answer is right for {share(found['unsteered'])} of the boxes; steering adds "
        f"{100 * ahead['value']:.1f} points ({100 * ahead['low']:.1f} to {100 * ahead['high']:.1f}).",
        f"By size: {'; '.join(by_size)}.",
        f"A box has {tokens['least']} to {tokens['most']} image tokens, {tokens['median']:g} in the median. "
        f"{tokens['centreless']} of {results['boxes']['all']} boxes contain the centre of no token; they get the token that they "
        "overlap most.",
    ]


def _plots(found: Mapping[str, NaturalRow], sizes: Sequence[str], classes: Mapping[str, str]) -> list[Plot]:
    labels = _labels(found)
    return [
        Plot(
            "sizes",
            plots.columns(
                sizes, _lines(found, "by_size", sizes), "size of the object, by COCO's areas", label=NAMES_IT
            ),
            "Answers that name the object of the box, by its size.",
        ),
        Plot(
            "conditions",
            plots.conditions([measure(labels[kind], KINDS[kind][1], found[kind]) for kind in KINDS], label=NAMES_IT),
            "The same over all objects. Rings are single draws of random heads; bars are 95% intervals over "
            "pictures, of random heads over draws and pictures.",
        ),
        Plot(
            "tokens",
            plots.columns(
                [*classes.values()], _lines(found, "by_tokens", [*classes]), "image tokens of the box", label=NAMES_IT
            ),
            "The same by the size of the box in image tokens: with few of them, steering has little to aim at.",
        ),
    ]


def _examples(examples: Mapping[str, Figure]) -> list[Plot]:
    return [
        Plot(f"example {number}", figure, f"Picture {name}, and the answer for each of its boxes.")
        for number, (name, figure) in enumerate(examples.items(), start=1)
    ]


def _lines(found: Mapping[str, NaturalRow], group: Group, names: Sequence[str]) -> list[plots.Line]:
    labels = _labels(found)
    return [
        line(labels[kind], KINDS[kind][1], range(len(names)), [found[kind][group][name] for name in names])
        for kind in COMPARED
    ]


def _labels(found: Mapping[str, NaturalRow]) -> dict[str, str]:
    return {kind: name.format(k=found["gaze"]["k"], all=found["all"]["k"]) for kind, (name, _) in KINDS.items()}


def _class(first: int, after: int | None) -> str:
    if after is None:
        return f"{first} or more"
    return f"{first}" if after == first + 1 else f"{first} to {after - 1}"


def _by_paper(one: NaturalRow, size: str) -> float:
    return (one if size == "all" else one["by_size"][size])["by_paper"]["accuracy"]


def _conditions(results: NaturalResults) -> Table:
    found, labels = results["conditions"], _labels(results["conditions"])
    rows: list[list[Cell]] = []
    for kind in KINDS:
        one = found[kind]
        became = [*outcomes(one["outcomes"])[: len(OUTCOMES)]]
        numbers: list[Cell] = [*on_target(one), one["n"], percent(one["exact"])]
        rows.append([labels[kind], *numbers, *became])
    left = ", ".join(f"{name} {count}" for name, count in results["left_out"].items())
    columns = ("heads", *ON_TARGET, "answers", "its name and no more", *OUTCOMES)
    sources = [made_with(found[kind]) for kind in KINDS]
    return Table("All conditions", columns, rows, f"Left out: {left}. {COUNTING}", sources)


def _by(found: Mapping[str, NaturalRow], group: Group, names: Mapping[str, str], title: str) -> Table:
    labels = _labels(found)
    rows = [
        [labels[kind], rule, *(share(dict(rules(found[kind][group][name]))[rule]) for name in names)]
        for kind in KINDS
        for rule in BY_RULE
    ]
    sizes = [found["gaze"][group][name]["n"] for name in names]
    columns = [f"{shown} ({size} boxes)" for shown, size in zip(names.values(), sizes, strict=True)]
    return Table(title, ("heads", "counting", *columns), rows, COUNTING)


def _caveats(results: NaturalResults, sizes: Sequence[str]) -> list[str]:
    found = results["conditions"]
    said = ["The paper's judge of boxes was not released: whether it counts unchanged answers as misses is not known."]
    for one in sizes:
        placed = found["random"]["against_by_size"][one]
        if found["unsteered"]["by_size"][one]["accuracy"] == 1:
            said.append(
                f"Left alone, the model names every {one} object: there steering has nothing to win over any control."
            )
            continue
        if placed["advantage"]["low"] <= 0 or not placed["above_all"]:
            said.append(f"Of {one} objects the gaze heads are not clearly ahead of every draw of random heads.")
        if results["over_unsteered_by_size"][one]["low"] <= 0:
            said.append(f"Of {one} objects steering is not clearly ahead of the model left alone.")
    return said
