"""How experiment 6 is told: its figures, tables and sentences."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.following import READINGS
from experiments.telling import line, measure, percent, share, source
from gaze.book import Chapter, Compared, Plot, Table
from gaze.plots import Role, columns, conditions
from gaze.plots_time import grid, switch_latency

STORY = (
    "While the model writes a narration, its gaze heads are moved from panel to panel, in an order that it knows "
    "nothing of. If "
    "they decide what is told, the text jumps with them. How often it does, and how soon, is held against what random "
    "heads, "
    "all heads and the model left alone make of the same schedules."
)
STEPS = {
    "official": "the released script's steps",
    "first token": "first token too",
    "all steps": "whole prompt too",
}
"""What is steered: decoded tokens, each segment a token late; from the row on that predicts the first token; or every row."""

Found = Mapping[str, Any]


def report(results: dict[str, Any], number: int, name: str, title: str) -> Chapter:
    """The chapter; every number in it stands in the results."""
    found = results["conditions"]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=[*_findings(results), *_moved_findings(results["moved"])],
        plots=_plots(results),
        tables=_tables(results),
        compared=_compared(found),
        caveats=_caveats(results),
    )


def title_of(name: str) -> str:
    """A condition's name for people: which heads, and which steps are steered."""
    heads, _, rest = name.partition(", ")
    steps, _, more = rest.partition(", ")
    words = {
        "gaze": "gaze heads",
        "all": "all heads",
        "random": "random heads, layers matched",
        "paper": "random heads, the paper's way",
        "code": "lowest scores, the script's way",
        "unsteered": "not steered",
    }
    return ", ".join([words[heads], *([STEPS[steps]] if steps else []), *([more] if more else [])])


def rho(one: Found) -> str:
    """A mean rank correlation with its interval, and in how many strips there is none."""
    lost = f"; none in {one['undefined']} of {one['defined'] + one['undefined']}" if one["undefined"] else ""
    return f"–{lost}" if one["value"] is None else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}{lost})"


def _findings(results: dict[str, Any]) -> list[str]:
    found, random = results["conditions"], results["drawn"]["random, first token"]["readings"]["segment"]
    gaze, alone = found["gaze, first token"], found["unsteered"]["readings"]["segment"]
    strict = gaze["readings"]["segment"]
    ahead = strict["beyond_unsteered"]
    everything = found["all, first token"]["readings"]["segment"]
    return [
        f"With the gaze heads moved from the first token on, {share(strict)} of {strict['n']} segments describe their "
        "panel, and "
        f"what is told follows the schedule with ρ = {rho(strict['rho'])}. The unsteered narration meets the same "
        "schedules in "
        f"{percent(alone['accuracy'])} (ρ = {rho(alone['rho'])}), {100 * ahead['value']:.1f} points less "
        f"({100 * ahead['low']:.1f} to {100 * ahead['high']:.1f}).",
        f"Random heads of the same layers reach {percent(random['mean']['value'])} over {len(random['accuracies'])} draws "
        f"({percent(random['lowest'])} to {percent(random['highest'])}), all heads {percent(everything['accuracy'])}.",
        f"A reader who does not know the schedule finds the panels in its order in {share(gaze['blind'])} of places "
        f"(ρ = {rho(gaze['blind']['rho'])}).",
        _late(found["gaze, official"]["readings"], "words" if results["verbatim"] else "sentence"),
        _turning(gaze["latency"]),
    ]


def _late(official: Found, soft: str) -> str:
    """What the released script's steps do."""
    strict, other = official["segment"], official[soft]
    return (
        f"With the released script's steps, which leave the first token alone and come a token late, {share(strict)} "
        "of segments "
        f"are right as they are cut (ρ = {rho(strict['rho'])}), and {share(other)} if {READINGS[soft]} is read instead "
        f"(ρ = {rho(other['rho'])})."
    )


def _turning(latency: Found) -> str:
    turned = latency["turned"]
    if latency["median"] is None:
        return f"The text never turns to the new panel after any of {turned['n']} switches."
    return (
        f"After a switch the text turns to the new panel within its segment in {share(turned)} of {turned['n']} cases, "
        "after "
        f"{latency['median']:g} tokens in the median ({latency['mean']:.1f} on average); in "
        f"{percent(1 - turned['accuracy'])} it "
        "never does."
    )


def _moved_findings(moved: Found | None) -> list[str]:
    if moved is None:
        return []
    gaze, random = moved["gaze"], moved["random"]
    others = [percent(random[name]["accuracy"]) for name in ("words_new", "words_old")]
    return [
        f"If the target moves two words into a single sentence, {share(gaze['words_new'])} of the words behind it, "
        "where the "
        f"captions differ, are the new panel's and {share(gaze['words_old'])} the old one's (random heads: {others[0]} and "
        f"{others[1]}); one of the first three is the new panel's in {share(gaze['soon'])} of {gaze['soon']['n']} answers."
    ]


def _plots(results: dict[str, Any]) -> list[Plot]:
    found = results["conditions"]
    gaze = {name: one for name, one in found.items() if name in [f"gaze, {steps}" for steps in STEPS]}
    strict = {name: one["readings"]["segment"] for name, one in found.items()}
    order = [*gaze, "all, first token", "unsteered"]
    measures = [measure(title_of(name), _role(name), strict[name]) for name in order]
    measures[-2:-2] = [
        measure(title_of(name), "random", _as_found(one["readings"]["segment"]))
        for name, one in results["drawn"].items()
    ]
    segments = [str(row["segment"]) for row in strict["unsteered"]["per_segment"]]
    lines = [
        line(title_of(name), _role(name), range(len(segments)), strict[name]["per_segment"])
        for name in ("gaze, first token", "unsteered")
    ]
    cells = np.array(strict["gaze, first token"]["grid"], np.float64)
    latency = {
        title_of(name): one["latency"]["values"] for name, one in {**gaze, "unsteered": found["unsteered"]}.items()
    }
    panels = [str(panel + 1) for panel in range(cells.shape[1])]
    what = "segments that describe their panel"
    return [
        Plot(
            "conditions",
            conditions(measures, 1 / len(panels), what),
            "Segments of the narration, as they are cut, that describe the panel scheduled for them. Rings are single "
            "draws of "
            "random heads; bars are 95 % intervals over strips.",
            "dynamic narration",
        ),
        Plot(
            "schedule",
            grid(cells, segments, panels, ("segment", "scheduled panel"), what),
            "Hits of the gaze heads, first token steered too, by segment and panel. No panel is ever scheduled in its "
            "own place.",
            "dynamic narration",
        ),
        Plot("segments", columns(segments, lines, "segment", 1 / len(panels), what), "The same for each segment."),
        Plot(
            "latency",
            switch_latency(
                {name: np.array(values, np.float64) for name, values in latency.items()}, results["segment"]
            ),
            "How many tokens after a switch the text turns to the new panel, if it does before the next.",
        ),
    ]


def _role(name: str) -> Role:
    roles: dict[str, Role] = {"gaze": "gaze", "all": "all", "unsteered": "unsteered"}
    return roles.get(name.partition(", ")[0], "random")


def _as_found(among: Found) -> dict[str, Any]:
    """A distribution over draws as a measured share."""
    mean = among["mean"]
    return {"accuracy": mean["value"], "interval": [mean["low"], mean["high"]], "against": among}


def _tables(results: dict[str, Any]) -> list[Table]:
    found, drawn = results["conditions"], results["drawn"]
    readings = [*found["gaze, official"]["readings"]]
    segments = found["unsteered"]["readings"]["segment"]["per_segment"]
    panels = found["unsteered"]["readings"]["segment"]["per_panel"]
    outcomes = ("hit", "wrong", "unattributable", "empty", "junk")
    return [
        Table(
            "Segments that describe their panel",
            ("condition", *(f"{reading}{mark}" for reading in readings for mark in ("", ", ρ"))),
            [
                *([title_of(name), *_cells(one, readings)] for name, one in found.items()),
                *([title_of(name), *_drawn_cells(one, readings)] for name, one in drawn.items()),
            ],
            "; ".join(f"{reading}: {READINGS[reading]}" for reading in readings)
            + ". ρ: Spearman correlation with the schedule, mean over strips in which at least three segments describe "
            "a panel. "
            "Of draws: mean and range.",
        ),
        Table(
            "Read without the schedule, and how soon the text turns",
            ("condition", "places in order", "ρ", "panels told", "switches followed", "median tokens", "mean tokens"),
            [[title_of(name), *_blind_cells(one)] for name, one in found.items()],
            "Sentences that describe no panel take no place, sentences in a row about one panel take one.",
        ),
        Table(
            "What became of the segments",
            ("condition", "segments", *outcomes),
            [
                *(
                    [
                        title_of(name),
                        one["readings"]["segment"]["n"],
                        *(one["readings"]["segment"]["outcomes"][o] for o in outcomes),
                    ]
                    for name, one in found.items()
                ),
                *(
                    [
                        title_of(name),
                        one["outcomes"]["segment"]["answers"],
                        *(one["outcomes"]["segment"][o] for o in outcomes),
                    ]
                    for name, one in drawn.items()
                ),
            ],
        ),
        Table(
            "Per segment",
            ("condition", *(f"segment {row['segment']}" for row in segments)),
            [[title_of(name), *map(share, one["readings"]["segment"]["per_segment"])] for name, one in found.items()],
        ),
        Table(
            "Per scheduled panel",
            ("condition", *(f"panel {row['panel']}" for row in panels)),
            [[title_of(name), *map(share, one["readings"]["segment"]["per_panel"])] for name, one in found.items()],
        ),
        Table(
            "Made with",
            ("condition", "made with"),
            [
                *([title_of(name), source(one)] for name, one in found.items()),
                *([title_of(name), source(one)] for name, one in drawn.items()),
            ],
        ),
    ]


def _cells(one: Found, readings: list[str]) -> list[str]:
    return [cell for name in readings for cell in (share(one["readings"][name]), rho(one["readings"][name]["rho"]))]


def _drawn_cells(one: Found, readings: list[str]) -> list[str]:
    cells = []
    for name in readings:
        if name not in one["readings"]:
            cells += ["–", "–"]
            continue
        among = one["readings"][name]
        values = [draw["value"] for draw in among["rho"] if draw["value"] is not None]
        cells.append(f"{percent(among['mean']['value'])} ({percent(among['lowest'])} to {percent(among['highest'])})")
        cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "–")
    return cells


def _blind_cells(one: Found) -> list[str | float]:
    blind, latency = one["blind"], one["latency"]
    soon = ["–" if latency[name] is None else f"{latency[name]:.1f}" for name in ("median", "mean")]
    return [share(blind), rho(blind["rho"]), blind["visits"], share(latency["turned"]), *soon]


def _compared(found: Mapping[str, Found]) -> list[Compared]:
    official, ours = found["gaze, official"], found["gaze, first token"]
    return [
        Compared(
            "ρ with the schedule, gaze heads, per segment",
            "0.87",
            _both(official, ours, lambda one: one["readings"]["segment"]["rho"]),
        ),
        Compared("ρ with the schedule, blind reader", "0.589", _both(official, ours, lambda one: one["blind"]["rho"])),
        Compared(
            "places in the schedule's order, blind reader",
            "71.1%",
            f"{percent(official['blind']['accuracy'])} (script's steps), {percent(ours['blind']['accuracy'])} (first "
            "token too)",
        ),
    ]


def _both(official: Found, ours: Found, pick: Any) -> str:
    return f"{rho(pick(official))} (script's steps); {rho(pick(ours))} (first token too)"


def _caveats(results: dict[str, Any]) -> list[str]:
    found = results["conditions"]
    strict = found["gaze, first token"]["readings"]["segment"]
    worst = min(strict["per_segment"], key=lambda row: row["accuracy"])
    junk = found["all, first token"]["readings"]["segment"]["outcomes"]["junk"]
    turned = found["unsteered"]["latency"]["turned"]
    panels = len(strict["per_segment"])
    return [
        "No panel is ever scheduled in its own place. So a text that goes through the strip from left to right meets "
        "no segment, "
        f"and its ρ is {-1 / (panels - 1):.2f} on average: heads that do nothing are there, not at a blind pick.",
        f"The worst segment of the gaze heads, first token steered too, is segment {worst['segment']}: {share(worst)}.",
        f"With all heads steered, {junk} of {strict['n']} segments are junk.",
        f"The unsteered text would count as turning in {share(turned)} of switches: so much is chance.",
        f"Segments have {results['segment']} tokens. Where that is a sentence, a schedule that comes a token late cuts "
        "into the "
        "next one, whose first word is still the old panel's; where segments hold several sentences, it costs little.",
    ]
