"""The chapter of experiment 2: what its results say, in words and beside the paper's."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.paper.layer_steering.results import (
    EffectRow,
    LayerResults,
    LetterResults,
    NarrationResults,
    OrderRow,
    TellingRow,
    draws_of,
    effects_of,
)
from experiments.paper.layer_steering.reverse_narration import DIRECTIONS
from experiments.paper.reports.layer_figures import (
    Points,
    bounds,
    flipped,
    listed,
    plots,
    randoms,
    rho,
    share,
    tables,
)
from experiments.run.formatting import percent
from gaze.prompts import NUMBER_WORDS
from gaze.report.html import Chapter, Compared

BROKEN = 0.1
"""Share of sentences that describe no panel from which on it is worth saying."""

STORY = (
    "Every panel wears a letter, and the model is asked for the letter of one of them, plainly or with “Read the comic in "
    "reverse” in front. These words change the model's state just before it answers; the difference is a direction. It is added "
    "to the state of a plain question, after one layer at a time. If the answer becomes the letter that reading in reverse would "
    "give, the model had not yet read the letter off the picture at that layer."
)
COULD_FAIL = (
    "Any push may disturb an answer. So random directions of the same length are added after the same layers. If these flipped "
    "as many answers, the direction would have nothing to do with the order."
)
PAPER = {"6": "97%", "4": "93%", "3": "90%"}


def chapter(number: int, name: str, title: str, results: LayerResults, points: Points, first: Points) -> Chapter:
    """The chapter; `points` are the principal components of plain and then of reversed prompts about all panels.

    `first` are those of the questions about the first place alone.
    """
    full = whole(results)
    found = [asked(full, results["strips"]["evaluation"], panel_count(results))]
    if full["reverse"]:
        found += [*flips(full, results["chosen"], results["gaze_layers"]), transfer(results)]
    found += [separated(full), *reordered(results["orders"]), *told(results["narration"])]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=found,
        plots=plots(results, points, first),
        tables=tables(results),
        compared=compared(results),
        caveats=caveats(results),
        could_fail=COULD_FAIL,
        conclusion=conclusion(full, results["chosen"]),
    )


def conclusion(six: LetterResults, layers: Mapping[str, int]) -> str:
    """Returns the one sentence that matters."""
    if not six["reverse"]:
        return "The model answers no question correctly both ways, so there is no order to change."
    row, place = six["reverse"][layers["reverse"]], six["places"][layers["places"]]
    return (
        f"A direction for each place asked about, added after layer {place['layer']}, turns {percent(place['flip'])} of the "
        f"answers into those of reading in reverse; the paper's single direction for all places turns {percent(row['flip'])}."
    )


def whole(results: LayerResults) -> LetterResults:
    """Returns what was measured on whole strips."""
    return results["panels"][str(panel_count(results))]


def panel_count(results: LayerResults) -> int:
    """Returns how many panels a strip has."""
    return max(map(int, results["panels"]))


def asked(six: LetterResults, strips: int, panels: int) -> str:
    """Returns what the model can do by itself."""
    right = six["asked"]
    other = (
        f", and {share(right['other'])} of those in the order {listed(six['other_order'])}" if "other" in right else ""
    )
    return (
        f"Left alone, on {strips} strips of {NUMBER_WORDS[panels - 1]} panels, the model answers {share(right['normal'])} of "
        f"the plain questions correctly, {share(right['reverse'])} of the reversed ones{other}. In {six['pairs']} of "
        f"{six['possible']} pairs both the plain and the reversed answer are right; only these count, and "
        f"{six['discovery_pairs']} such pairs about other strips make the direction."
    )


def flips(six: LetterResults, layers: Mapping[str, int], gaze: Sequence[int]) -> list[str]:
    """What the directions do after one layer."""
    row, place = six["reverse"][layers["reverse"]], six["places"][layers["places"]]
    back, back_place = six["back reverse"][layers["reverse"]], six["back places"][layers["places"]]
    best = max(one["flip"] for one in six["reverse"])
    other = max((one["flip"] for one in six.get("other", [])), default=None)
    return [
        f"One direction for all places, added after layer {row['layer']}, which was chosen on other strips, flips {flipped(row)} "
        f"of the answers to the letter that reading in reverse gives; {percent(row['stay'])} stay, {percent(row['neither'])} "
        f"become something else. The best layer gives {percent(best)}. {drawn(six, 'random', row)}"
        + ("" if other is None else f" The direction of another order gives at most {percent(other)}."),
        f"With a direction for each place asked about, added after layer {place['layer']}, {flipped(place)} flip; "
        f"{percent(place['stay'])} stay, {percent(place['neither'])} become something else. {drawn(six, 'random places', place)}",
        f"By layer, the directions per place flip {', '.join(percent(one['flip']) for one in six['places'])}; the "
        f"gaze heads lie in {'layer' if len(gaze) == 1 else 'layers'} {listed(gaze)}.",
        f"The logit of the reverse letter minus that of the plain one is {six['difference_alone']:+.2f} in plain questions, "
        f"{row['difference']:+.2f} with the one direction, {place['difference']:+.2f} with those per place.",
        f"Subtracted from reversed questions after the same layers, the one direction gives back the plain answer in "
        f"{flipped(back)}, those per place in {flipped(back_place)}.",
    ]


def drawn(six: LetterResults, name: str, row: EffectRow) -> str:
    """What random directions as long as these do after the same layer."""
    draws = [draw[row["layer"]] for draw in draws_of(six, name)]
    mean = percent(float(np.mean(draws)))
    return f"{len(draws)} random draws of the same length flip {mean} on average, {percent(min(draws))} to {percent(max(draws))}."


def transfer(results: LayerResults) -> str:
    """Fewer panels, other words."""
    layers, parts, every = results["chosen"], [], NUMBER_WORDS[panel_count(results) - 1]
    for panels, few in [*results["panels"].items()][1:]:
        if few["reverse"]:
            one, known = (percent(some[layers["reverse"]]["flip"]) for some in (few["reverse"], few["known"]))
            place = percent(few["places"][layers["places"]]["flip"])
            parts.append(
                f"of {panels} panels {one} by one direction, {known} by that of {every} panels, {place} by those per place"
            )
    words = [row for row in results["wordings"] if "flip" in row]
    one = ", ".join(percent(row["flip"]) for row in words)
    place = ", ".join(percent(row["places"]) for row in words if row["places"] is not None)
    few_panels = (
        f"After the same layers, answers flip on strips {'; '.join(parts)}." if parts else "Fewer panels give no pairs."
    )
    return few_panels + (
        f" In other wordings, the one direction flips {one}, those per place {place}." if words else ""
    )


def separated(six: LetterResults) -> str:
    best, single = int(np.argmax(six["silhouette"])), int(np.argmax(six["place_silhouette"]))
    return (
        f"In two principal components of all questions, plain and reversed prompts lie farthest apart after layer {best} "
        f"(silhouette {six['silhouette'][best]:.2f}); of the questions about one place, after layer {single} "
        f"({six['place_silhouette'][single]:.2f}, mean of the places; after the last layer {six['place_silhouette'][-1]:.2f})."
    )


def reordered(orders: Sequence[OrderRow]) -> list[str]:
    """Returns what other reading orders do; two panels have none."""
    if not orders:
        return []
    able = [row["asked"]["value"] for row in orders]
    blind = 1 / len(orders[0]["order"])
    words = (
        f"Asked to read in {len(orders)} other orders, the model left alone is right in {percent(float(np.mean(able)))} of the "
        f"questions, at best {percent(max(able))}; a blind pick would be in {percent(blind)}."
    )
    measured = [row for row in orders if "flip" in row]
    if not measured:
        return [words + " No order gives a pair to make a direction of."]
    flip = [row["flip"] for row in measured]
    place = [row["places"] for row in measured if row["places"] is not None]
    return [
        f"{words} The directions of {len(measured)} of them flip {percent(float(np.mean(flip)))} of the answers on average, at "
        f"most {percent(max(flip))}; those per place {percent(float(np.mean(place)))}, at most {percent(max(place))}."
    ]


def told(found: NarrationResults) -> list[str]:
    """The narrations."""
    cases, bands = found["conditions"], found["bands"]
    normal, reverse, draws = cases["normal"], cases["reverse"], randoms(cases)
    begin = float(np.mean([one["last_first"] for one in draws]))
    titles = (
        "of the letter questions",
        "of the question about the first letter",
        "of the narration prompts themselves",
    )
    pushed = [
        f"The direction {title}, added at every step of a plain narration, gives {outcome(cases[f'{name}, paper band'])} after "
        f"layers {listed(bands['paper'])} (the paper's depth), {outcome(cases[f'{name}, best band'])} after layers "
        f"{listed(bands[name])} (the best on other strips)."
        for name, title in zip(DIRECTIONS, titles, strict=True)
    ]
    return [
        f"Free narrations of {found['strips']} strips, as rank correlation with the order from left to right and share that "
        f"begin with the last panel: {outcome(normal)} left alone, {outcome(reverse)} when asked to read in reverse.",
        *pushed,
        f"With {len(draws)} random directions as long as that of the first letter, after its best layers, {percent(begin)} "
        "begin with the last panel.",
    ]


def outcome(case: TellingRow) -> str:
    broken = f" ({percent(case['lost'])} of the sentences are about no panel)" if case["lost"] > BROKEN else ""
    return f"{rho(case)} and {percent(case['last_first'])}{broken}"


def compared(results: LayerResults) -> list[Compared]:
    layers, six, cases = results["chosen"], whole(results), results["narration"]["conditions"]
    orders = [row["flip"] for row in results["orders"] if "flip" in row]
    mean = f"{percent(float(np.mean(orders)))}, {percent(max(orders))}, {len(orders)}" if orders else "none to measure"
    one, place = (
        {panels: at(effects_of(few, name), layer) for panels, few in results["panels"].items()}
        for name, layer in layers.items()
    )
    best = cases["first letter, best band"]
    peak = int(np.argmax(six["place_silhouette"]))
    return [
        *(
            Compared(f"answers flipped, {n} panels (8B), one direction", paper, one[n])
            for n, paper in PAPER.items()
            if n in one
        ),
        *(Compared(f"answers flipped, {n} panels, a direction per place", "–", place[n]) for n in PAPER if n in place),
        Compared("directions of other orders: mean, highest, number", "39.9%, 60.4%, 719", mean),
        Compared("silhouette highest after layer", "23 of 36", f"{peak} of {results['layers']}"),
        Compared(
            "rank correlation of a narration with reading in reverse, before and with the first letter's direction",
            "-0.78, +0.46",
            f"{rho(cases['normal'], -1)}, {rho(best, -1)}",
        ),
        Compared("pushed narrations that begin with the last panel", "65%", percent(best["last_first"])),
    ]


def caveats(results: LayerResults) -> list[str]:
    six, layers = whole(results), results["chosen"]
    said = [
        "The paper does not print its probe: the wording is ours, and so are the single letters, read from one pass. Narrations "
        "are greedy, where the paper takes three seeds."
    ]
    if not six["reverse"]:
        said.append("No question is answered correctly both ways, so there is nothing to flip.")
    elif six["reverse"][layers["reverse"]]["flip"] < six["places"][layers["places"]]["flip"] / 2:
        said.append(
            "One direction for all places hardly comes out here. In a model whose state names the panel, and not the way of "
            "counting, the steps from first to last and from last to first cancel in the mean."
        )
    if six["reverse"] and six["places"][layers["places"]]["flip"] <= highest(six, "random places", layers["places"]):
        said.append("The directions per place flip no more answers than the best random ones.")
    blind, able = 1 / panel_count(results), [row["asked"]["value"] for row in results["orders"]]
    if able and np.mean(able) < 2 * blind:
        said.append(
            "The model can hardly follow an order that is spelled out: its few right answers are mostly luck, so what their "
            "directions flip tells little."
        )
    if results["shared"]:
        said.append("The directions come from the strips that they are tried on.")
    return said


def highest(six: LetterResults, name: str, layer: int) -> float:
    return max(draw[layer] for draw in draws_of(six, name))


def at(rows: Sequence[EffectRow], layer: int) -> str:
    if not rows:
        return "no pairs"
    return f"{percent(rows[layer]['flip'])} ({bounds(rows[layer]['interval'])})"
