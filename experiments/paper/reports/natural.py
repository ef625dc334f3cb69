"""The chapter about natural images."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.data.coco import SIZES
from experiments.run.formatting import Found, interval, line, measure, percent, share, source
from gaze.report import plots
from gaze.report.html import Chapter, Compared, Plot, Table

NAMES_IT = "answers that name the object"
KINDS: dict[str, tuple[str, plots.Role]] = {
    "gaze": ("{k} gaze heads", "gaze"),
    "random": ("random heads, layers matched", "random"),
    "paper": ("random heads, the paper's way", "localization"),
    "all": ("all {all} heads", "all"),
    "unsteered": ("left alone: one answer for all boxes", "unsteered"),
}
COMPARED = ("gaze", "random", "paper", "unsteered")
OUTCOMES = {
    "another object": "wrong",
    "no object": "unattributable",
    "empty": "empty",
    "junk": "junk",
    "as unsteered": "same_code",
}
PAPER = {
    "large": ("80.3%", "36.6%"),
    "medium": ("76.2%", "19.4%"),
    "small": ("61.7%", "18.6%"),
    "all": ("76.5%", "25.9%"),
}
"""Gaze heads and other heads of the 8B model on COCO val2017."""
STORY = (
    "In a photograph nothing stands in rows. Does a head that was found by asking about comic panels also look at an "
    "object, "
    "wherever it is? Each object has a box, and steering holds the gaze heads to it. Left alone, the model gives one "
    "answer "
    "about an object of its own choice; it is scored against every box too, so that nothing free passes for steering."
)


def chapter(
    results: dict[str, Any], number: int, name: str, title: str, tokens: Sequence[int], examples: Mapping[str, Figure]
) -> Chapter:
    """Tells what `e8_natural.sum_up` found.

    Args:
      tokens: where the classes of boxes by their image tokens begin.
      examples: figures by the name of the picture.
    """
    found = results["conditions"]
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
        STORY,
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
                f"{percent(_of(found['gaze'], one))}; {percent(_of(found['random'], one))}",
            )
            for one in (*sizes, "all")
        ],
        caveats=_caveats(results, sizes),
    )


def _findings(results: dict[str, Any], sizes: Sequence[str]) -> list[str]:
    found, ahead, tokens = results["conditions"], results["over_unsteered"], results["tokens"]
    gaze, random, placed = found["gaze"], found["random"], found["random"]["against"]
    by_size = (
        f"{one} {share(gaze['by_size'][one])}, random {percent(random['by_size'][one]['accuracy'])}, left alone "
        f"{percent(found['unsteered']['by_size'][one]['accuracy'])}"
        for one in sizes
    )
    return [
        f"Held to the box of an object, the model names it in {share(gaze)} of {gaze['n']} answers about "
        f"{results['pictures']} pictures; with random heads of the same layers {percent(placed['mean']['value'])} over "
        f"{len(placed['accuracies'])} draws ({percent(placed['lowest'])} to {percent(placed['highest'])}); with all heads "
        f"{percent(found['all']['accuracy'])}.",
        f"Left alone, its one answer is right for {share(found['unsteered'])} of the boxes; steering adds "
        f"{100 * ahead['value']:.1f} points ({100 * ahead['low']:.1f} to {100 * ahead['high']:.1f}).",
        f"By size: {'; '.join(by_size)}.",
        f"A box has {tokens['least']} to {tokens['most']} image tokens, {tokens['median']:g} in the median; "
        f"{tokens['centreless']} of {results['boxes']['all']} hold the centre of none and get the one that they "
        "overlap most.",
    ]


def _plots(found: dict[str, Any], sizes: Sequence[str], classes: Mapping[str, str]) -> list[Plot]:
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
            "The same over all objects. Rings are single draws of random heads; bars are 95 % intervals over pictures.",
        ),
        Plot(
            "tokens",
            plots.columns(
                [*classes.values()], _lines(found, "by_tokens", [*classes]), "image tokens of the box", label=NAMES_IT
            ),
            "The same by what steering has to hold on to.",
        ),
    ]


def _examples(examples: Mapping[str, Figure]) -> list[Plot]:
    return [
        Plot(f"example {number}", figure, f"Picture {name}, and the answer for each of its boxes.")
        for number, (name, figure) in enumerate(examples.items(), start=1)
    ]


def _lines(found: dict[str, Any], group: str, names: Sequence[str]) -> list[plots.Line]:
    labels = _labels(found)
    return [
        line(labels[kind], KINDS[kind][1], range(len(names)), [found[kind][group][name] for name in names])
        for kind in COMPARED
    ]


def _labels(found: dict[str, Any]) -> dict[str, str]:
    return {kind: name.format(k=found["gaze"]["k"], all=found["all"]["k"]) for kind, (name, _) in KINDS.items()}


def _class(first: int, after: int | None) -> str:
    if after is None:
        return f"{first} or more"
    return f"{first}" if after == first + 1 else f"{first} to {after - 1}"


def _of(one: Found, size: str) -> float:
    return float(one["accuracy"] if size == "all" else one["by_size"][size]["accuracy"])


def _conditions(results: dict[str, Any]) -> Table:
    found, labels = results["conditions"], _labels(results["conditions"])
    rows = []
    for kind in KINDS:
        one = found[kind]
        became = [one["outcomes"][key] for key in OUTCOMES.values()]
        numbers = [percent(one["accuracy"]), interval(one), one["n"], percent(one["exact"])]
        rows.append([labels[kind], *numbers, *became, source(one)])
    left = ", ".join(f"{name} {count}" for name, count in results["left_out"].items())
    columns = ("heads", "on target", "95 % interval", "answers", "its name and no more", *OUTCOMES, "made with")
    return Table("All conditions", columns, rows, f"Left out: {left}.")


def _by(found: dict[str, Any], group: str, names: Mapping[str, str], title: str) -> Table:
    labels = _labels(found)
    rows = [[labels[kind], *(share(found[kind][group][name]) for name in names)] for kind in KINDS]
    sizes = [found["gaze"][group][name]["n"] for name in names]
    columns = [f"{shown} ({size} boxes)" for shown, size in zip(names.values(), sizes, strict=True)]
    return Table(title, ("heads", *columns), rows)


def _caveats(results: dict[str, Any], sizes: Sequence[str]) -> list[str]:
    found, said = results["conditions"], []
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
