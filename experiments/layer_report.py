"""The chapter of experiment 2: what its results say, in words, figures and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.telling import percent
from gaze import plots, plots_layers
from gaze.book import Chapter, Compared, Plot, Table
from gaze.plots import Line, Role

Results = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

STORY = (
    "Every panel wears a letter, and the model is asked for the letter of one of them, plainly or with “Read the comic in reverse” in "
    "front. The difference that these words make to its state just before the answer is a direction; added to the state of a plain "
    "question, behind one layer at a time, it shows where in the model the order of reading is decided: if the answer becomes the "
    "letter that reading in reverse would give, it was not yet decided there."
)
LABELS = {"reverse": "direction of reverse", "places": "one direction per place", "other": "direction of another order"}
ROLES: dict[str, Role] = {"reverse": "gaze", "places": "localization", "other": "unsteered", "random": "random"}


def chapter(number: int, name: str, title: str, results: Results, points: Float[np.ndarray, "layer item 2"]) -> Chapter:
    """The chapter; `points` are the principal components of normal and then of reverse prompts, of six panels."""
    six = results["panels"]["6"]
    found = [asked(six, results["strips"]["evaluation"])]
    if six["reverse"]:
        found += flips(six, results["chosen"]) + [transfer(results)]
    found += [separated(six), reordered(results["orders"]), *told(results["narration"])]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=found,
        plots=figures(results, points),
        tables=tables(results),
        compared=compared(results),
        caveats=caveats(results),
    )


def asked(six: Results, strips: int) -> str:
    right = six["asked"]
    return (
        f"Left alone, on {strips} strips of six panels: plain questions are answered rightly in {share(right['normal'])}, reversed ones in "
        f"{share(right['reverse'])}, questions in the order {listed(six['other_order'])} in {share(right['other'])}. In {six['pairs']} of "
        f"{six['possible']} pairs both the plain and the reversed question are; only these count ({six['discovery_pairs']} on the discovery "
        "strips make the direction)."
    )


def flips(six: Results, layer: int) -> list[str]:
    """What one layer does, and the best one."""
    row, draws = six["reverse"][layer], [draw[layer] for draw in six["random_draws"]]
    best = max(six["reverse"], key=lambda one: one["flip"])
    place, other, back = six["places"][layer], six["other"], six["back"][layer]
    words = [
        f"Behind layer {layer}, chosen on other strips, the direction flips {flipped(row)} of the answers to the letter of the reverse "
        f"reading; {percent(row['stay'])} stay, {percent(row['neither'])} become something else. The best layer here is {best['layer']} with "
        f"{percent(best['flip'])}.",
        f"The logit of the reverse letter minus that of the plain one goes from {six['difference_alone']:+.2f} to {row['difference']:+.2f}.",
        f"{len(draws)} random directions as long flip {percent(float(np.mean(draws)))} on average ({percent(min(draws))} to "
        f"{percent(max(draws))})"
        + (f", the direction of another order {percent(other[layer]['flip'])}." if other else "."),
        f"Taken away from reversed questions, it turns {flipped(back)} of them back into the plain answer.",
        f"A direction for each place that is asked for, instead of one for all, flips {flipped(place)} there; the best layer gives it "
        f"{percent(max(one['flip'] for one in six['places']))}.",
    ]
    return words


def transfer(results: Results) -> str:
    layer, parts = results["chosen"], []
    for panels in ("4", "3"):
        few = results["panels"][panels]
        if few["reverse"]:
            parts.append(
                f"{panels} panels: {percent(few['reverse'][layer]['flip'])} by their own direction, {percent(few['known'][layer]['flip'])} by "
                f"that of six panels ({few['pairs']} pairs)"
            )
    words = [f"{percent(row['flip'])}" for row in results["wordings"] if "flip" in row]
    other = f" Other wordings of the question: {', '.join(words)}." if words else ""
    return (f"Behind the same layer, {'; '.join(parts)}." if parts else "Strips of fewer panels give no pairs.") + other


def separated(six: Results) -> str:
    best = int(np.argmax(six["silhouette"]))
    return (
        f"In two principal components, plain and reversed prompts lie farthest apart behind layer {best} (silhouette "
        f"{six['silhouette'][best]:.2f}; behind the last layer {six['silhouette'][-1]:.2f})."
    )


def reordered(orders: Rows) -> str:
    able = [row["asked"]["value"] for row in orders]
    measured = [row["flip"] for row in orders if "flip" in row]
    words = f"Of {len(orders)} other orders the model left alone follows {percent(float(np.mean(able)))} of the questions (best {percent(max(able))})."
    if not measured:
        return words + " None gives a pair to make a direction of."
    places = [row["by_place"] for row in orders if "flip" in row]
    return (
        words
        + f" Their directions flip {percent(float(np.mean(measured)))} on average, at most {percent(max(measured))}; with one direction "
        f"per place {percent(float(np.mean(places)))}, at most {percent(max(places))}."
    )


def told(found: Results) -> list[str]:
    """The narrations."""
    cases, bands = found["conditions"], found["bands"]
    normal, reverse = cases["normal"], cases["reverse"]
    words = [
        f"Free narration of {found['strips']} strips left alone: rank correlation with the order from left to right {rho(normal)}; asked to read "
        f"in reverse {rho(reverse)}."
    ]
    for name, title in (
        ("letters", "The direction of the letter probes"),
        ("narration", "The direction of the narration prompts themselves"),
    ):
        best, paper = cases[f"{name}, best band"], cases[f"{name}, paper's band"]
        words.append(
            f"{title}, added at every step of a plain narration: behind layers {listed(bands['paper'])} (the paper's depth) {rho(paper)}, "
            f"{percent(paper['last_first'])} begin with the last panel; behind layers {listed(bands[name])} (the best on other strips) {rho(best)}, "
            f"{percent(best['last_first'])} begin with the last panel (left alone {percent(normal['last_first'])})."
        )
    draws = random(cases)
    words.append(
        f"{len(draws)} random directions as long as the letters', behind layers {listed(bands['letters'])}: "
        f"{percent(float(np.mean([one['last_first'] for one in draws])))} begin with the last panel."
    )
    return words


def figures(results: Results, points: Float[np.ndarray, "layer item 2"]) -> list[Plot]:
    six = results["panels"]["6"]
    shown = []
    if six["reverse"]:
        lines = [line(LABELS[name], name, six[name]) for name in ("reverse", "places", "other") if six[name]]
        drawn = line("random directions", "random", six["random"])
        shown = [
            Plot(
                "effect",
                plots_layers.layer_effect(
                    [one[0] for one in (*lines, drawn)],
                    [one[1] for one in (*lines, drawn)],
                    "logit of reverse minus plain letter",
                ),
                "Each direction added behind one layer at a time to plain questions about six panels. Bands: 95 % intervals over strips.",
                "layer steering, flip rate and logit difference by layer",
            ),
            Plot(
                "panels",
                plots_layers.layer_effect(*counts(results)),
                "The same by the number of panels.",
                "generalisation to 3 and 4 panels",
            ),
        ]
    silhouette = np.array(six["silhouette"])
    half = points.shape[1] // 2
    few = sorted({0, len(points) // 2, int(silhouette.argmax()), len(points) - 1})
    shown.append(
        Plot(
            "separation",
            plots_layers.separation(
                silhouette, {n: points[n].astype(np.float64) for n in few}, np.arange(2 * half) >= half
            ),
            "How far plain and reversed prompts lie apart behind each layer, in two principal components.",
            "PCA of normal and reverse prompts",
        )
    )
    return (
        shown
        + [order_plot(results)] * any("flip" in row for row in results["orders"])
        + [narration_plot(results["narration"])]
    )


def order_plot(results: Results) -> Plot:
    measured = np.array([row["flip"] for row in results["orders"] if "flip" in row])
    six, layer = results["panels"]["6"], results["chosen"]
    marked = {"reverse": six["reverse"][layer]["flip"]} if six["reverse"] else {}
    figure = plots_layers.spread(measured, marked, "answers that flip to the order", "other orders")
    return Plot(
        "orders", figure, f"Flips by the directions of other orders behind layer {layer}.", "the 719 other orders"
    )


def narration_plot(found: Results) -> Plot:
    names = [name for name in found["conditions"] if not name.startswith("random")]
    rows = [found["conditions"][name] for name in names]
    places = [*range(len(names))]
    low, high = zip(*(row["last_first_interval"] for row in rows), strict=True)
    told_last = Line("begins with the last panel", "gaze", places, [row["last_first"] for row in rows], low, high)
    told_first = Line("begins with the first panel", "random", places, [row["first_first"] for row in rows])
    figure = plots.rows(names, [told_last, told_first], label="narrations")
    return Plot(
        "narration",
        figure,
        "Which panel a free narration begins with, by what is asked and what is added.",
        "free narration",
    )


def counts(results: Results) -> tuple[list[Line], list[Line]]:
    """Flips and logits for six, four and three panels."""
    roles: dict[str, Role] = {"6": "gaze", "4": "localization", "3": "image"}
    found = [
        line(f"{panels} panels", "", results["panels"][panels]["reverse"], role)
        for panels, role in roles.items()
        if results["panels"][panels]["reverse"]
    ]
    return [one[0] for one in found], [one[1] for one in found]


def tables(results: Results) -> list[Table]:
    by_layer = []
    for panels, few in results["panels"].items():
        for name in ("reverse", "known", "places", "other", "random", "back", "back_places"):
            by_layer += [effect_row(panels, name, row) for row in few[name]]
    columns = (
        "panels",
        "added",
        "layer",
        "flips",
        "95 % interval",
        "stays",
        "neither",
        "logit difference",
        "95 % interval",
        "answers",
    )
    return [
        Table(
            "Every direction behind every layer",
            columns,
            by_layer,
            "known: the direction of six panels; back: taken away from reversed questions.",
        ),
        Table(
            "By the panel asked for",
            ("panels", "place", "flips", "95 % interval", "answers"),
            [
                (panels, row["panel"], percent(row["flip"]), bounds(row["interval"]), row["answers"])
                for panels, few in results["panels"].items()
                for row in few["per_panel"]
            ],
            f"The direction of the same number of panels behind layer {results['chosen']}.",
        ),
        Table(
            "Other orders",
            (
                "order",
                "right when asked for",
                "pairs",
                "flips",
                "95 % interval",
                "stays",
                "neither",
                "one direction per place",
            ),
            [order_row(row) for row in results["orders"]],
        ),
        Table(
            "Other wordings",
            ("question", "right, plain", "right, reversed", "flips", "95 % interval", "answers"),
            [
                (
                    row["question"],
                    share(row["normal"]),
                    share(row["reverse"]),
                    maybe(row, "flip"),
                    bounds(row.get("interval")),
                    row.get("answers", 0),
                )
                for row in results["wordings"]
            ],
        ),
        Table(
            "Free narration",
            (
                "condition",
                "rank correlation",
                "95 % interval",
                "defined",
                "begins with last",
                "begins with first",
                "whole order reversed",
                "sentences",
                "without panel",
            ),
            [narration_row(name, row) for name, row in results["narration"]["conditions"].items()],
        ),
    ]


def compared(results: Results) -> list[Compared]:
    layer, six, cases = results["chosen"], results["panels"]["6"], results["narration"]["conditions"]
    rows = [("6 panels", "97%", "6"), ("4 panels", "93%", "4"), ("3 panels", "90%", "3")]
    flip = {panels: at_layer(few["reverse"], layer) for panels, few in results["panels"].items()}
    orders = [row["flip"] for row in results["orders"] if "flip" in row]
    mean = (
        f"{percent(float(np.mean(orders)))}, {percent(max(orders))} ({len(orders)} orders)"
        if orders
        else "none can be measured"
    )
    best = cases["letters, best band"]
    peak = int(np.argmax(six["silhouette"]))
    return [
        *(Compared(f"flips, {what} (8B, one layer of 36)", paper, flip[panels]) for what, paper, panels in rows),
        Compared("flips by other orders: mean, highest", "39.9%, 60.4% (719 orders)", mean),
        Compared("silhouette peaks at layer", "23 of 36", f"{peak} of {results['layers']}"),
        Compared(
            "narration pushed at every step: rank correlation before and after",
            "-0.78, +0.46 (counted from the last panel)",
            f"{rho(cases['normal'])}, {rho(best)} (counted from the first)",
        ),
        Compared("narrations that then begin with the last panel", "65%", percent(best["last_first"])),
    ]


def caveats(results: Results) -> list[str]:
    six, able = results["panels"]["6"], np.mean([row["asked"]["value"] for row in results["orders"]])
    said = [
        "The paper does not print its probe; the wording is ours, and the answers are single letters read from one pass."
    ]
    if not six["reverse"]:
        said.append(
            "There is no pair of questions that the model answers rightly both ways, so there is nothing to flip."
        )
    elif six["reverse"][results["chosen"]]["flip"] <= max(draw[results["chosen"]] for draw in six["random_draws"]):
        said.append(
            "The direction flips no more answers than the best of the random ones: layer steering does not come out here."
        )
    if able < 0.5:
        said.append("The model can hardly follow spelled-out orders, so their directions come from few pairs.")
    if results["shared"]:
        said.append("Directions and answers come from the same strips.")
    return said


def line(name: str, kind: str, rows: Rows, role: Role | None = None) -> tuple[Line, Line]:
    """Flips and logit differences by layer."""
    look, layers = role or ROLES[kind], [row["layer"] for row in rows]
    return tuple(
        Line(name, look, layers, [row[what] for row in rows], *ends(rows, interval))
        for what, interval in (("flip", "interval"), ("difference", "difference_interval"))
    )  # type: ignore[return-value]


def ends(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    pairs = [row[name] or (np.nan, np.nan) for row in rows]
    return [low for low, _ in pairs], [high for _, high in pairs]


def effect_row(panels: str, name: str, row: Mapping[str, Any]) -> tuple[str | int | float, ...]:
    moved = row["difference_interval"]
    ends = f"{moved[0]:+.2f} to {moved[1]:+.2f}" if moved else "–"
    shares = (percent(row["flip"]), bounds(row["interval"]), percent(row["stay"]), percent(row["neither"]))
    return (panels, name.replace("_", " "), row["layer"], *shares, f"{row['difference']:+.2f}", ends, row["answers"])


def order_row(row: Mapping[str, Any]) -> tuple[str | int, ...]:
    shares = (
        maybe(row, "flip"),
        bounds(row.get("interval")),
        maybe(row, "stay"),
        maybe(row, "neither"),
        maybe(row, "by_place"),
    )
    return (listed(row["order"]), share(row["asked"]), row.get("answers", 0), *shares)


def narration_row(name: str, row: Mapping[str, Any]) -> tuple[str | int | float, ...]:
    low_high = row["interval"]
    ends = f"{low_high[0]:+.2f} to {low_high[1]:+.2f}" if low_high else "–"
    shares = [percent(row[what]) for what in ("last_first", "first_first", "backwards")]
    return (
        name,
        rho(row),
        ends,
        f"{row['defined']} of {row['narrations']}",
        *shares,
        round(row["sentences"], 2),
        percent(row["lost"]),
    )


def random(cases: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for name, one in cases.items() if name.startswith("random")]


def at_layer(rows: Rows, layer: int) -> str:
    return flipped(rows[layer]) if rows else "no pairs"


def flipped(row: Mapping[str, Any]) -> str:
    return f"{percent(row['flip'])}" + (f" ({bounds(row['interval'])})" if row["interval"] else "")


def share(found: Mapping[str, Any]) -> str:
    return percent(found["value"])


def maybe(row: Mapping[str, Any], name: str) -> str:
    return percent(row[name]) if row.get(name) is not None else "–"


def bounds(ends: Sequence[float] | None) -> str:
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else "–"


def rho(row: Mapping[str, Any]) -> str:
    return "undefined" if row["correlation"] is None else f"{row['correlation']:+.2f}"


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
