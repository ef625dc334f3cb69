"""One question steered to every panel with the gaze heads and with every control: what VQA and static narration share."""

from collections.abc import Mapping, Sequence

import numpy as np
from typing_extensions import TypedDict

from experiments.run.conditions import NOWHERE, Aim, Condition
from experiments.run.formatting import (
    BY_RULE,
    COUNTING,
    ON_TARGET,
    OUTCOMES,
    both,
    drawn,
    interval,
    line,
    made_with,
    measure,
    on_target,
    outcomes,
    percent,
    plural,
    rules,
    share,
)
from experiments.run.run import Run
from experiments.run.settings import PAPER_STRENGTH
from experiments.run.summaries import (
    ConditionRow,
    UnsteeredPicks,
    UnsteeredRow,
    baseline,
    condition,
    grouped,
    over_words,
    provenance,
)
from experiments.run.summaries import controls as control_condition
from gaze.heads import HeadSet, all_heads, code_control, paper_control
from gaze.pictures.strips import Picture
from gaze.report import plots, plots_pictures
from gaze.report.html import Chapter, Compared, Example, Plot, Table


class SteeringResults(TypedDict):
    """What `sum_up` returns; `conditions` by the keys of `NAMES`."""

    judge: str
    unsteered: UnsteeredRow
    conditions: dict[str, ConditionRow]
    skipped_lines: int
    failed_verdicts: int


def every_panel(pictures: Sequence[Picture]) -> list[list[Aim]]:
    """Returns for each picture one answer per region, steered to it all along."""
    return [[Aim.at(region) for region in range(len(picture))] for picture in pictures]


def nowhere(pictures: Sequence[Picture]) -> list[Sequence[Aim]]:
    """Returns for each picture one answer, not steered."""
    return [[Aim(None, NOWHERE)] for _ in pictures]


def controls(run: Run, heads: HeadSet) -> dict[str, list[HeadSet]]:
    """Returns head sets to compare with, by kind.

    "random" is matched by layer, "all" is every head, each steered at its own best strength. The others are steered as the
    paper steers: "gaze, paper" and "all, paper" are the same heads again, "paper" is drawn as the paper says (upper layers,
    uniform), "code" as its scripts do (lowest scores).
    """
    rng = np.random.default_rng([run.settings.seed, 2])
    everything = all_heads(*run.shape)
    return {
        "random": run.controls(heads),
        "all": [everything],
        "gaze, paper": [heads],
        "paper": [paper_control(rng, heads, heads.heads, run.shape) for _ in range(run.settings.draws)],
        "code": [code_control(run.ranking(), len(heads), run.settings.seed)],
        "all, paper": [everything],
    }


def strength(run: Run, kind: str) -> float:
    """How hard the heads of a kind are steered."""
    match kind:
        case "gaze" | "random" | "all":
            return run.strength(kind)
        case _:
            return PAPER_STRENGTH


def collect(run: Run, name: str, question: str, max_new: int, others: Sequence[Condition] = ()) -> None:
    """Generate the answers of all conditions, and of those that an experiment adds."""
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
                "steered": [list(head) for head in drawn_heads.heads] if len(sets) > 1 else kind,
            }
            how_hard = strength(run, kind)
            conditions.append(
                Condition(f"{kind} {draw}", question, max_new, aims, drawn_heads, strength=how_hard, tags=tags)
            )
    run.generate(name, strips, conditions)


def sum_up(run: Run, name: str) -> SteeringResults:
    """Returns the numbers of every condition, those of controls as a distribution over their draws too."""
    strips = run.pictures("evaluation")
    panels = len(strips[0])
    rows = run.judged(strips, run.answers(name))
    groups = grouped(rows, lambda row: row["condition"])
    alone, gaze = groups["unsteered"], groups["gaze"]
    conditions = {title: condition(groups[title], alone, panels) for title in ("gaze", "gaze, replace")}
    if asked := [row for row in rows if row.get("kind") == "asked"]:
        conditions["asked"] = condition(asked, alone, panels)
    if all(strip.captions for strip in strips):
        captions = {strip.name: strip.captions for strip in strips}
        for title in conditions:
            conditions[title]["over_words"] = over_words(asked if title == "asked" else groups[title], captions)
    for kind in ("random", "all", "gaze, paper", "paper", "code", "all, paper"):
        draws = [some for some in groups.values() if some[0].get("kind") == kind]
        conditions[kind] = control_condition(draws, gaze, alone, panels)
    return {
        "judge": run.judge.name,
        "unsteered": {**provenance(alone[0]), **baseline(alone, panels)},
        "conditions": conditions,
        "skipped_lines": run.skipped,
        "failed_verdicts": len(run.failed),
    }


COULD_FAIL = (
    "If the model did not describe what these heads look at, its answers would stay as they are. If any heads would do, random "
    "heads would steer as well."
)
NAMES: dict[str, tuple[str, plots.Role]] = {
    "gaze": ("{k} gaze heads", "gaze"),
    "gaze, replace": ("the same, even attention on the target", "gaze"),
    "random": ("random heads, layers matched", "random"),
    "all": ("all {all} heads", "all"),
    "gaze, paper": ("{k} gaze heads, the paper's strength", "gaze"),
    "paper": ("random heads, the paper's way and strength", "random"),
    "code": ("lowest scores, the released scripts' way and strength", "random"),
    "all, paper": ("all {all} heads, the paper's strength", "all"),
    "asked": ("asked by number, not steered", "unsteered"),
}


def chapter(
    run: Run, results: SteeringResults, number: int, name: str, title: str, story: str, paper: Sequence[Compared]
) -> Chapter:
    """Returns the figures, tables and sentences of experiment 4 or 5.

    Args:
      paper: what the paper reports, at its one strength, of the gaze heads, as many random ones, and all heads.
    """
    found = results["conditions"]
    labels = {kind: text.format(k=found["gaze"]["k"], all=found["all"]["k"]) for kind, (text, _) in NAMES.items()}
    return Chapter(
        number,
        name,
        title,
        story,
        findings=_findings(results),
        plots=_plots(found, labels, example(run, name)),
        tables=_tables(found, labels),
        compared=[
            Compared(row.what, row.paper, percent(found[kind]["by_paper"]["accuracy"]))
            for row, kind in zip(paper, ("gaze, paper", "paper", "all, paper"), strict=True)
        ],
        caveats=_caveats(found["gaze"]),
        could_fail=COULD_FAIL,
        conclusion=_conclusion(found),
    )


def _conclusion(found: Mapping[str, ConditionRow]) -> str:
    gaze, among = found["gaze"], found["random"]["against"]
    numbers = (
        f"With its gaze heads steered to a panel, {percent(gaze['accuracy'])} of the model's answers describe that panel; with "
        f"as many random heads of the same layers {percent(among['mean']['value'])} do, and a blind pick would be right in "
        f"{1 / len(gaze['per_panel']):.1%}."
    )
    ahead = among["advantage"]["low"] > 0
    return numbers if ahead else f"Gaze heads steer no better than random heads, as far as can be told. {numbers}"


def _findings(results: SteeringResults) -> list[str]:
    found = results["conditions"]
    gaze, everything, among = found["gaze"], found["all"], found["random"]["against"]
    ahead, by_paper = among["advantage"], found["random"]["by_paper"]["against"]
    return [
        f"Steered with {plural(gaze['k'], 'gaze head')}, {share(gaze)} of {gaze['n']} answers about {gaze['strips']} strips "
        f"describe the target panel; with random heads of the same layers {drawn(among)} over "
        f"{len(among['accuracies'])} draws; with all heads {share(everything)}. Each kind is steered at its own best strength, "
        f"chosen on other strips: {gaze['strength']:g}, {found['random']['strength']:g} and {everything['strength']:g}.",
        f"By the paper's counting, where an answer that equals the unsteered one is a miss, it is "
        f"{share(gaze['by_paper'])}, {drawn(by_paper)} and {percent(everything['by_paper']['accuracy'])}.",
        f"At the paper's one strength, {PAPER_STRENGTH:,.0f}, the gaze heads reach {share(found['gaze, paper'])}, random heads "
        f"drawn as the paper says {drawn(found['paper']['against'])}, and all heads {percent(found['all, paper']['accuracy'])}.",
        f"The gaze heads are ahead of the random heads by {100 * ahead['value']:.1f} points "
        f"({100 * ahead['low']:.1f} to {100 * ahead['high']:.1f}, over draws and strips)"
        + (", above every single draw." if among["above_all"] else ", but not above every single draw."),
        f"Left alone, the model describes {described_panels(results['unsteered'])}.",
    ]


def _plots(found: Mapping[str, ConditionRow], labels: Mapping[str, str], shown: Example) -> list[Plot]:
    panels = [str(row["panel"]) for row in found["gaze"]["per_panel"]]
    chance = 1 / len(panels)
    per_panel = [
        line(labels[kind], NAMES[kind][1], range(len(panels)), found[kind]["per_panel"])
        for kind in ("gaze", "random", "asked")
        if kind in found
    ]
    return [
        Plot(
            "conditions",
            plots.conditions([measure(labels[kind], NAMES[kind][1], found[kind]) for kind in found], chance),
            "Answers that describe the target panel. Rings are single draws of random heads; bars are 95% intervals over "
            "strips, of random heads over draws and strips.",
        ),
        Plot(
            "example",
            plots_pictures.strip(shown.image, shown.question, shown.unsteered, shown.steered, shown.widths),
            "The first strip, and the answers when the gaze heads are made to look at each of its panels.",
        ),
        Plot("panels", plots.columns(panels, per_panel, "target panel", chance), "The same for each target panel."),
    ]


def _tables(found: Mapping[str, ConditionRow], labels: Mapping[str, str]) -> list[Table]:
    panels = [f"panel {row['panel']}" for row in found["gaze"]["per_panel"]]
    return [
        Table(
            "All conditions",
            ("heads", "strength", *ON_TARGET, "answers", *OUTCOMES),
            [
                [labels[kind], f"{one['strength']:,g}", *on_target(one), one["n"], *outcomes(one["outcomes"])]
                for kind, one in found.items()
            ],
            COUNTING,
            [*map(made_with, found.values())],
        ),
        *_over_words(found, labels),
        Table(
            "Draws of control heads",
            ("heads", "counting", "draws", "mean (least to most)"),
            [
                [labels[kind], rule, len(counted["against"]["accuracies"]), drawn(counted["against"])]
                for kind, one in found.items()
                for rule, counted in rules(one)
                if "against" in counted
            ],
            COUNTING,
        ),
        Table(
            "Per target panel",
            ("heads", "counting", *panels),
            [
                [labels[kind], rule, *(share(dict(rules(row))[rule]) for row in one["per_panel"])]
                for kind, one in found.items()
                for rule in BY_RULE
            ],
            COUNTING,
        ),
        Table(
            "Which panel the answers describe, whatever the target",
            ("heads", *panels, "none"),
            [[labels[kind], *one["picks"], one["outcomes"]["unattributable"]] for kind, one in found.items()],
        ),
    ]


def _over_words(found: Mapping[str, ConditionRow], labels: Mapping[str, str]) -> list[Table]:
    """Returns the table of intervals over strips and words, if captions are known."""
    rows = [
        [labels[kind], percent(one["accuracy"]), interval(one), interval(one["over_words"])]
        for kind, one in found.items()
        if "over_words" in one
    ]
    if not rows:
        return []
    columns = ("heads", "on target", "95% interval over strips", "over strips and words")
    return [
        Table(
            "If words fail, not strips",
            columns,
            rows,
            "A word that the model never gets right makes answers about many strips miss together. The second interval holds for "
            "other words, too: answers count as alike that share a word of their captions, unless most captions have it. Few "
            "words, each in many captions, say little about others, so it is wide even where none fails.",
        )
    ]


def _caveats(gaze: ConditionRow) -> list[str]:
    worst = min(gaze["per_panel"], key=lambda row: row["accuracy"])
    return [
        f"The worst target is panel {worst['panel']}: {both(worst)}.",
        "An answer that the model gives without steering, too, counts as a hit if it is right, but as a miss in the paper: "
        f"{gaze['outcomes']['same_code']} of {gaze['n']} steered answers equal the unsteered one.",
        "At the paper's strength controls may fail because the model can no longer read the text. Chapter 7 varies the strength.",
    ]


def example(run: Run, name: str) -> Example:
    """Returns the first strip of experiment 4 or 5 and the answers about it."""
    strip = run.pictures("evaluation")[0]
    rows = run.judged([strip], [row for row in run.answers(name) if row["strip"] == strip.name])
    alone = next(row for row in rows if row["condition"] == "unsteered")
    steered = [(row["text"], row["panel"] == row["target"]) for row in rows if row["condition"] == "gaze"]
    return Example(strip.image, alone["question"], strip.captions, alone["text"], steered, strip.widths)


def described_panels(unsteered: UnsteeredPicks) -> str:
    """Returns which panels the model describes of itself, in words."""
    said = [f"panel {panel} in {count}" for panel, count in enumerate(unsteered["picks"], start=1) if count]
    return ", ".join([*said, f"none in {unsteered['unattributable']}"]) + f" of {unsteered['n']} answers"
