"""The chapter of experiment 2: what its results say, in words and beside the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.layer_figures import Rows, bounds, flipped, listed, plots, randoms, rho, share, tables
from experiments.telling import percent
from gaze.book import Chapter, Compared

Results = Mapping[str, Any]

STORY = (
    "Every panel wears a letter, and the model is asked for the letter of one of them, plainly or with “Read the comic in "
    "reverse” in front. The difference that these words make to the model's state just before it answers is a "
    "direction. Added "
    "to the state of a plain question, behind one layer at a time, it shows where in the model the order of reading is "
    "decided: "
    "where the answer becomes the letter that reading in reverse would give, it had not been decided before."
)
OTHERS = ("4", "3")
PAPER = {"6": "97%", "4": "93%", "3": "90%"}


def chapter(number: int, name: str, title: str, results: Results, points: Float[np.ndarray, "layer item 2"]) -> Chapter:
    """The chapter; `points` are the principal components of plain and then of reversed prompts, of six panels."""
    six = results["panels"]["6"]
    found = [asked(six, results["strips"]["evaluation"])]
    if six["reverse"]:
        found += [*flips(six, results["chosen"]), transfer(results)]
    found += [separated(six), reordered(results["orders"]), *told(results["narration"])]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=found,
        plots=plots(results, points),
        tables=tables(results),
        compared=compared(results),
        caveats=caveats(results),
    )


def asked(six: Results, strips: int) -> str:
    """What the model can do by itself."""
    right = six["asked"]
    return (
        f"Left alone, on {strips} strips of six panels, the model answers {share(right['normal'])} of the plain questions "
        f"rightly, {share(right['reverse'])} of the reversed ones and {share(right['other'])} of those in the order "
        f"{listed(six['other_order'])}. In {six['pairs']} of {six['possible']} pairs both the plain and the reversed "
        "answer are "
        f"right; only these count, and {six['discovery_pairs']} such pairs about other strips make the direction."
    )


def flips(six: Results, layer: int) -> list[str]:
    """What the directions do behind one layer."""
    row, place, back = (six[name][layer] for name in ("reverse", "places", "back"))
    best, best_place, best_back = (
        max(six[name], key=lambda one: one["flip"]) for name in ("reverse", "places", "back")
    )
    draws = [draw[layer] for draw in six["random_draws"]]
    return [
        f"Behind layer {layer}, chosen on other strips, the direction flips {flipped(row)} of the answers to the "
        "letter that "
        f"reading in reverse gives; {percent(row['stay'])} stay, {percent(row['neither'])} become something else. The "
        "best layer "
        f"on these strips is {best['layer']} with {percent(best['flip'])}.",
        f"The logit of the reverse letter minus that of the plain one goes from {six['difference_alone']:+.2f} to "
        f"{row['difference']:+.2f}.",
        f"{len(draws)} random directions of the same length flip {percent(float(np.mean(draws)))} on average, "
        f"{percent(min(draws))} to {percent(max(draws))}"
        + (f"; the direction of another order {percent(six['other'][layer]['flip'])}." if six["other"] else "."),
        f"Subtracted from reversed questions, it gives back the plain answer in {flipped(back)} (best layer "
        f"{best_back['layer']}: {percent(best_back['flip'])}).",
        f"With a direction of its own for each place asked about, instead of one for all, {flipped(place)} flip (best "
        "layer "
        f"{best_place['layer']}: {percent(best_place['flip'])}).",
    ]


def transfer(results: Results) -> str:
    """Fewer panels, other words."""
    layer, parts = results["chosen"], []
    for panels in OTHERS:
        few = results["panels"][panels]
        if few["reverse"]:
            own, known = (percent(few[name][layer]["flip"]) for name in ("reverse", "known"))
            parts.append(
                f"of {panels} panels {own} by their own direction and {known} by that of six ({few['pairs']} pairs)"
            )
    words = [percent(row["flip"]) for row in results["wordings"] if "flip" in row]
    few_panels = f"Behind the same layer flip {'; '.join(parts)}." if parts else "Fewer panels give no pairs."
    return few_panels + (f" In other wordings of the question {', '.join(words)} flip." if words else "")


def separated(six: Results) -> str:
    best = int(np.argmax(six["silhouette"]))
    return (
        f"In two principal components, plain and reversed prompts lie farthest apart behind layer {best} (silhouette "
        f"{six['silhouette'][best]:.2f}; behind the last layer {six['silhouette'][-1]:.2f})."
    )


def reordered(orders: Rows) -> str:
    able = [row["asked"]["value"] for row in orders]
    words = (
        f"Asked to read in {len(orders)} other orders, the model left alone is right in "
        f"{percent(float(np.mean(able)))} of the "
        f"questions, at best {percent(max(able))}."
    )
    measured = [row for row in orders if "flip" in row]
    if not measured:
        return words + " No order gives a pair to make a direction of."
    flip, place = ([row[name] for row in measured] for name in ("flip", "by_place"))
    return words + (
        f" The directions of {len(measured)} of them flip {percent(float(np.mean(flip)))} of the answers on average, "
        "at most "
        f"{percent(max(flip))}; with one direction per place {percent(float(np.mean(place)))}, at most "
        f"{percent(max(place))}."
    )


def told(found: Results) -> list[str]:
    """The narrations."""
    cases, bands = found["conditions"], found["bands"]
    normal, reverse, draws = cases["normal"], cases["reverse"], randoms(cases)
    begin = float(np.mean([one["last_first"] for one in draws]))
    return [
        f"Left alone, free narrations of {found['strips']} strips go from left to right with a rank correlation of "
        f"{rho(normal)}, {percent(normal['last_first'])} begin with the last panel; asked to read in reverse "
        f"{rho(reverse)} and "
        f"{percent(reverse['last_first'])}.",
        *(
            f"{title}, added at every step of a plain narration, gives {rho(paper)} and {percent(paper['last_first'])} "
            "behind "
            f"layers {listed(bands['paper'])} (the paper's depth), {rho(best)} and {percent(best['last_first'])} "
            "behind layers "
            f"{listed(bands[name])} (the best on other strips)."
            for name, title in (
                ("letters", "The direction of the letter questions"),
                ("narration", "The direction of the narration prompts themselves"),
            )
            for paper, best in [(cases[f"{name}, paper's band"], cases[f"{name}, best band"])]
        ),
        f"With {len(draws)} random directions as long as that of the letters, behind its best layers, {percent(begin)} "
        "begin "
        "with the last panel.",
    ]


def compared(results: Results) -> list[Compared]:
    layer, six, cases = results["chosen"], results["panels"]["6"], results["narration"]["conditions"]
    orders = [row["flip"] for row in results["orders"] if "flip" in row]
    mean = f"{percent(float(np.mean(orders)))}, {percent(max(orders))}, {len(orders)}" if orders else "none to measure"
    best = cases["letters, best band"]
    return [
        *(
            Compared(
                f"answers flipped at one layer, {panels} panels (8B)",
                paper,
                at(results["panels"][panels]["reverse"], layer),
            )
            for panels, paper in PAPER.items()
        ),
        Compared("directions of other orders: mean, highest, number", "39.9%, 60.4%, 719", mean),
        Compared(
            "silhouette highest behind layer", "23 of 36", f"{int(np.argmax(six['silhouette']))} of {results['layers']}"
        ),
        Compared(
            "rank correlation of a narration with reading in reverse, before and after",
            "-0.78, +0.46",
            f"{rho(cases['normal'], -1)}, {rho(best, -1)}",
        ),
        Compared("pushed narrations that begin with the last panel", "65%", percent(best["last_first"])),
    ]


def caveats(results: Results) -> list[str]:
    six, layer = results["panels"]["6"], results["chosen"]
    said = [
        "The paper does not print its probe: the wording is ours, and so are the single letters, read from one pass. "
        "Narrations "
        "are greedy, where the paper takes three seeds."
    ]
    if not six["reverse"]:
        said.append("No question is answered rightly both ways, so there is nothing to flip.")
    elif six["reverse"][layer]["flip"] <= max(draw[layer] for draw in six["random_draws"]):
        said.append(
            "The direction flips no more answers than the best random one: layer steering does not come out here."
        )
    if np.mean([row["asked"]["value"] for row in results["orders"]]) < 0.5:
        said.append(
            "The model can hardly follow an order that is spelled out, so those directions come from few pairs."
        )
    if results["shared"]:
        said.append("The directions come from the strips that they are tried on.")
    return said


def at(rows: Sequence[Mapping[str, Any]], layer: int) -> str:
    if not rows:
        return "no pairs"
    return f"{percent(rows[layer]['flip'])} ({bounds(rows[layer]['interval'])})"
