"""How experiment 6 is told: its figures, tables and sentences."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.paper.reports.dynamic_tables import (
    STEPS,
    DynamicResults,
    MovedRow,
    ScheduledCondition,
    rho,
    tables,
    title_of,
)
from experiments.paper.schedule_adherence import READINGS, Latency, Reading
from experiments.run.formatting import drawn, line, measure, percent, share
from experiments.run.summaries import Among, CorrelationRow, Share
from gaze.report.html import Chapter, Compared, Plot
from gaze.report.plots import Line, Measure, Role, columns, conditions
from gaze.report.plots_time import grid, switch_latency

STORY = (
    "While the model writes a narration, its gaze heads are moved from panel to panel, in an order that it knows nothing of. If "
    "they decide what is told, the text follows them. How often it does, and how soon, is compared with what random heads, all "
    "heads and the unsteered model make of the same orders."
)
COULD_FAIL = (
    "A model that narrates from left to right, as it would anyway, follows some orders by luck. So no panel is ever scheduled in "
    "its own place, and the unsteered narration is scored against the same schedules."
)


def report(results: DynamicResults, number: int, name: str, title: str) -> Chapter:
    """The chapter; every number in it stands in the results."""
    found = results["conditions"]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=[*_findings(results), *_moved_findings(results["moved"])],
        plots=_plots(results),
        tables=tables(results),
        compared=_compared(found),
        caveats=_caveats(results),
        could_fail=COULD_FAIL,
        conclusion=_conclusion(results),
    )


def _conclusion(results: DynamicResults) -> str:
    soft = "words" if results["verbatim"] else "segment"
    gaze, alone = (results["conditions"][name]["readings"][soft] for name in ("gaze, first token", "unsteered"))
    random, moved = results["drawn"]["random, first token"]["readings"][soft], results["moved"]
    between = (
        f"When the gaze heads move from panel to panel, {percent(gaze['accuracy'])} of the segments describe their panel "
        f"({READINGS[soft]}), "
        f"against {percent(random['mean']['value'])} with random heads and {percent(alone['accuracy'])} without steering"
    )
    if moved is None:
        return f"{between}."
    within = percent(moved["gaze"]["words_new"]["accuracy"])
    return f"{between}; when they move in mid-sentence, {within} of the words that follow are the new panel's."


def _findings(results: DynamicResults) -> list[str]:
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
        f"Random heads of the same layers reach {drawn(random)} over {len(random['accuracies'])} draws, all heads "
        f"{percent(everything['accuracy'])}.",
        f"A reader who does not know the schedule finds the panels in its order in {share(gaze['blind'])} of places "
        f"(ρ = {rho(gaze['blind']['rho'])}).",
        _late(found["gaze, official"]["readings"], "words" if results["verbatim"] else "sentence"),
        _turning(gaze["latency"]),
    ]


def _late(official: Mapping[str, Reading], soft: str) -> str:
    """What the released script's steps do."""
    strict, other = official["segment"], official[soft]
    return (
        f"With the released script's steps, which leave the first token alone and come a token late, {share(strict)} "
        "of segments "
        f"are right as they are cut (ρ = {rho(strict['rho'])}), and {share(other)} if {READINGS[soft]} is read instead "
        f"(ρ = {rho(other['rho'])})."
    )


def _turning(latency: Latency) -> str:
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


def _moved_findings(moved: Mapping[str, MovedRow] | None) -> list[str]:
    if moved is None:
        return []
    gaze, random = moved["gaze"], moved["random"]
    others = [percent(one["accuracy"]) for one in (random["words_new"], random["words_old"])]
    return [
        f"If the target moves two words into a single sentence, {share(gaze['words_new'])} of the words from the third after it "
        f"on are the new panel's and {share(gaze['words_old'])} the old one's (random heads: {others[0]} and {others[1]}), of "
        f"those that are not words of both panels, in {gaze['words_new']['n']} of {gaze['answers']} answers that have any."
    ]


def _plots(results: DynamicResults) -> list[Plot]:
    found = results["conditions"]
    gaze = {f"gaze, {steps}": found[f"gaze, {steps}"] for steps in STEPS}
    strict = found["gaze, first token"]["readings"]["segment"]
    cells = np.array(strict["grid"], np.float64)
    numbers = [str(number + 1) for number in range(len(cells))]
    latency = {
        title_of(name): np.array(one["latency"]["values"], np.float64)
        for name, one in {**gaze, "unsteered": found["unsteered"]}.items()
    }
    what, chance = "segments that describe their panel", 1 / len(cells)
    return [
        Plot(
            "conditions",
            conditions(_measures(results, [*gaze]), chance, what),
            "Segments of the narration, as they are cut, that describe the panel scheduled for them. Rings are single draws of "
            "random heads; bars are 95% intervals over strips, of random heads over draws and strips.",
        ),
        Plot(
            "schedule",
            grid(cells, numbers, numbers, ("segment", "scheduled panel"), what),
            "Hits of the gaze heads, first token steered too, by segment and panel. No panel is ever scheduled in its own place.",
        ),
        Plot("segments", columns(numbers, _by_segment(found), "segment", chance, what), "The same for each segment."),
        Plot(
            "latency",
            switch_latency(latency, results["segment"]),
            "How many tokens after a switch the text turns to the new panel, if it does before the next.",
        ),
    ]


def _measures(results: DynamicResults, gaze: Sequence[str]) -> list[Measure]:
    """Gaze heads, then controls one draw by one, then what is no choice of heads."""
    shares: dict[str, Share] = {name: one["readings"]["segment"] for name, one in results["conditions"].items()}
    draws = {name: _of_draws(one["readings"]["segment"]) for name, one in results["drawn"].items()}
    order = [*gaze, *draws, "code, first token", "all, first token", "unsteered"]
    return [measure(title_of(name), _role(name), {**shares, **draws}[name]) for name in order]


def _by_segment(found: Mapping[str, ScheduledCondition]) -> list[Line]:
    rows = {name: found[name]["readings"]["segment"]["per_segment"] for name in ("gaze, first token", "unsteered")}
    return [line(title_of(name), _role(name), range(len(some)), some) for name, some in rows.items()]


def _role(name: str) -> Role:
    roles: dict[str, Role] = {"gaze": "gaze", "all": "all", "unsteered": "unsteered"}
    return roles.get(name.partition(", ")[0], "random")


def _of_draws(among: Among) -> Share:
    """Returns a distribution over draws as a share."""
    mean = among["mean"]
    return {
        "accuracy": mean["value"],
        "interval": [mean["low"], mean["high"]],
        "n": mean["answers"],
        "strips": mean["strips"],
        "against": among,
    }


def _compared(found: Mapping[str, ScheduledCondition]) -> list[Compared]:
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


def _both(
    official: ScheduledCondition, ours: ScheduledCondition, pick: Callable[[ScheduledCondition], CorrelationRow]
) -> str:
    return f"{rho(pick(official))} (script's steps); {rho(pick(ours))} (first token too)"


def _caveats(results: DynamicResults) -> list[str]:
    found = results["conditions"]
    strict = found["gaze, first token"]["readings"]["segment"]
    worst = min(strict["per_segment"], key=lambda row: row["accuracy"])
    junk = found["all, first token"]["readings"]["segment"]["outcomes"]["junk"]
    turned = found["unsteered"]["latency"]["turned"]
    panels = len(strict["per_segment"])
    return [
        "No panel is ever scheduled in its own place. So a text that goes through the strip from left to right follows no "
        f"segment, and its ρ is {-1 / (panels - 1):.2f} on average. Heads that do nothing end up there, below a blind pick.",
        f"The worst segment of the gaze heads, first token steered too, is segment {worst['segment']}: {share(worst)}.",
        f"With all heads steered, {junk} of {strict['n']} segments are junk.",
        f"The unsteered text would count as turning in {share(turned)} of switches; that much is chance.",
        f"Segments have {results['segment']} tokens. Where that is a sentence, a schedule that comes a token late cuts "
        "into the "
        "next one, whose first word is still the old panel's; where segments hold several sentences, it costs little.",
    ]
