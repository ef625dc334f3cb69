"""One question steered to every panel with the gaze heads and with every control: what VQA and static narration share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.run.conditions import NOWHERE, Aim, Condition
from experiments.run.formatting import OUTCOMES, interval, line, measure, outcomes, percent, share, source
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import against, baseline, condition, provenance
from gaze.heads import HeadSet, all_heads, code_control, paper_control
from gaze.pictures.strips import Picture
from gaze.report import plots, plots_pictures
from gaze.report.html import Chapter, Compared, Example, Plot, Table


def every_panel(pictures: Sequence[Picture]) -> list[list[Aim]]:
    """For each picture one answer per region, steered to it all along."""
    return [[Aim.at(region) for region in range(len(picture))] for picture in pictures]


def nowhere(pictures: Sequence[Picture]) -> list[Sequence[Aim]]:
    """For each picture one answer, not steered."""
    return [[Aim(None, NOWHERE)] for _ in pictures]


def controls(run: Run, heads: HeadSet) -> dict[str, list[HeadSet]]:
    """Head sets to compare with, by kind.

    "random" is matched by layer, "paper" is drawn as the paper says (upper layers, uniform), "code" as its scripts do
    (lowest scores), "all" is every head.
    """
    rng = np.random.default_rng([run.settings.seed, 2])
    return {
        "random": run.controls(heads),
        "paper": [paper_control(rng, heads, heads.heads, run.shape) for _ in range(run.settings.draws)],
        "code": [code_control(run.ranking(), len(heads), run.settings.seed)],
        "all": [all_heads(*run.shape)],
    }


def collect(run: Run, name: str, question: str, max_new: int, others: Sequence[Condition] = ()) -> None:
    """Generates the answers of all conditions, and of those that an experiment adds."""
    strips, heads = run.pictures("evaluation"), run.heads()
    aims = every_panel(strips)
    conditions = [
        Condition("unsteered", question, max_new, nowhere(strips)),
        Condition("gaze", question, max_new, aims, heads),
        Condition("gaze, replace", question, max_new, aims, heads, bias="replace"),
        *others,
    ]
    for kind, sets in controls(run, heads).items():
        for draw, drawn_heads in enumerate(sets):
            tags = {
                "kind": kind,
                "draw": draw,
                "steered": [list(head) for head in drawn_heads.heads] if kind != "all" else "all",
            }
            conditions.append(Condition(f"{kind} {draw}", question, max_new, aims, drawn_heads, tags=tags))
    run.generate(name, strips, conditions)


def sum_up(run: Run, name: str) -> dict[str, Any]:
    """Accuracy of every condition with its doubt, and of every control as a distribution over its draws."""
    rows = run.judged(run.pictures("evaluation"), run.answers(name))
    seed = run.settings.seed
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["condition"], []).append(row)
    alone, gaze = groups["unsteered"], groups["gaze"]
    conditions = {title: condition(groups[title], alone, seed) for title in ("gaze", "gaze, replace")}
    if asked := [row for row in rows if row.get("kind") == "asked"]:
        conditions["asked"] = condition(asked, alone, seed)
    for kind in ("random", "paper", "code", "all"):
        draws = [some for some in groups.values() if some[0].get("kind") == kind]
        pooled = condition([row for some in draws for row in some], alone, seed)
        conditions[kind] = {**pooled, "against": against(draws, gaze, seed)}
    return {
        "judge": run.judge.name,
        "unsteered": {**provenance(alone[0]), **baseline(alone)},
        "conditions": conditions,
        "skipped_lines": run.skipped,
        "failed_verdicts": len(run.failed),
    }


NAMES: dict[str, tuple[str, plots.Role]] = {
    "gaze": ("{k} gaze heads", "gaze"),
    "gaze, replace": ("the same, attention made even", "gaze"),
    "random": ("random heads, layers matched", "random"),
    "paper": ("random heads, the paper's way", "random"),
    "code": ("lowest scores, the released scripts' way", "random"),
    "all": ("all {all} heads", "all"),
    "asked": ("asked by number, not steered", "unsteered"),
}


def chapter(
    run: Run, results: dict[str, Any], number: int, name: str, title: str, story: str, paper: Sequence[Compared]
) -> Chapter:
    """The figures, tables and sentences of a study."""
    found = results["conditions"]
    gaze, random, everything = found["gaze"], found["random"], found["all"]
    placed = random["against"]
    labels = {kind: text.format(k=gaze["k"], all=everything["k"]) for kind, (text, _) in NAMES.items()}
    chance = 1 / len(gaze["per_panel"])
    panels = [str(row["panel"]) for row in gaze["per_panel"]]
    per_panel = [
        line(labels[kind], NAMES[kind][1], range(len(panels)), found[kind]["per_panel"])
        for kind in ("gaze", "random", "asked")
        if kind in found
    ]
    findings = [
        f"Steered with {gaze['k']} gaze heads, {share(gaze)} of {gaze['n']} answers about {gaze['strips']} strips "
        "describe the target "
        f"panel; with random heads of the same layers {percent(placed['mean']['value'])} over "
        f"{len(placed['accuracies'])} draws "
        f"({percent(placed['lowest'])} to {percent(placed['highest'])}); with all heads {percent(everything['accuracy'])}.",
        f"The gaze heads are ahead of the random heads by {100 * placed['advantage']['value']:.1f} points "
        f"({100 * placed['advantage']['low']:.1f} to {100 * placed['advantage']['high']:.1f}, over draws and strips)"
        + (", above every single draw." if placed["above_all"] else ", but not above every single draw."),
        f"Left alone, the model describes {told(results['unsteered'])}.",
    ]
    shown = example(run, name)
    worst = min(gaze["per_panel"], key=lambda row: row["accuracy"])
    caveats = [
        f"The worst target is panel {worst['panel']}: {share(worst)}.",
        "An answer that is what the model says anyway counts as a hit where it is right: "
        f"{gaze['outcomes']['same_code']} of {gaze['n']} "
        "steered answers equal the unsteered one.",
    ]
    return Chapter(
        number,
        name,
        title,
        story,
        findings,
        plots=[
            Plot(
                "conditions",
                plots.conditions([measure(labels[kind], NAMES[kind][1], found[kind]) for kind in found], chance),
                "Answers that describe the target panel. Rings are single draws of random heads; bars are 95 % "
                "intervals over strips.",
            ),
            Plot(
                "example",
                plots_pictures.strip(shown.image, shown.question, shown.unsteered, shown.steered),
                "The first strip, and the answers when the gaze heads are held to each of its panels.",
            ),
            Plot("panels", plots.columns(panels, per_panel, "target panel", chance), "The same for each target panel."),
        ],
        tables=[
            Table(
                "All conditions",
                ("heads", "on target", "95 % interval", "answers", *OUTCOMES, "made with"),
                [
                    [labels[kind], percent(one["accuracy"]), interval(one), one["n"], *outcomes(one), source(one)]
                    for kind, one in found.items()
                ],
            ),
            Table(
                "Per target panel",
                ("heads", *(f"panel {panel}" for panel in panels)),
                [[labels[kind], *(share(row) for row in one["per_panel"])] for kind, one in found.items()],
            ),
            Table(
                "Which panel the answers describe, whatever the target",
                ("heads", *(f"panel {panel}" for panel in panels), "none"),
                [[labels[kind], *one["picks"], one["outcomes"]["unattributable"]] for kind, one in found.items()],
            ),
        ],
        compared=[
            Compared(row.what, row.paper, percent(found[kind]["accuracy"]))
            for row, kind in zip(paper, ("gaze", "random", "all"), strict=True)
        ],
        caveats=caveats,
    )


def example(run: Run, name: str) -> Example:
    """The first strip of a study and the answers about it."""
    strip = run.pictures("evaluation")[0]
    rows = run.judged([strip], [row for row in run.answers(name) if row["strip"] == strip.name])
    alone = next(row for row in rows if row["condition"] == "unsteered")
    steered = [(row["text"], row["panel"] == row["target"]) for row in rows if row["condition"] == "gaze"]
    return Example(strip.image, alone["question"], strip.captions, alone["text"], steered, strip.widths)


def told(unsteered: dict[str, Any]) -> str:
    """Which panels the model describes of itself."""
    said = [f"panel {panel} in {count}" for panel, count in enumerate(unsteered["picks"], start=1) if count]
    return ", ".join([*said, f"none in {unsteered['unattributable']}"]) + f" of {unsteered['n']} answers"
