"""How experiment 1 is told: the figures, tables and sentences of discovery."""

from collections.abc import Sequence
from math import factorial

import numpy as np
from jaxtyping import Float
from typing_extensions import TypedDict

from experiments.run.formatting import line, percent, plural
from experiments.run.summaries import Measured, Provenance
from gaze.discovery.scores import Scores
from gaze.discovery.verdict import too_few_panels
from gaze.prompts import NUMBER_WORDS
from gaze.report import plots_heads
from gaze.report.html import Cell, Chapter, Compared, Plot, Table
from gaze.report.plots import sweep

RANKINGS = {
    "gaze": "gaze heads",
    "image": "Image Heads",
    "localization-index": "Localization Heads, elbow by index",
    "localization-value": "Localization Heads, elbow by value",
}
"""The rankings of heads, as people call what they rank first."""
LEVEL = 0.05
"""The p value below which chance is no explanation."""
STORY = (
    "Each question about a comic asks for one of its panels: the first, the second, and so on. A gaze head is an attention "
    "head that, just before the model answers, looks at the panel that was asked about. Nothing in the model is changed."
)
COULD_FAIL = (
    "A head may look at the same panel whatever is asked, or spread its attention evenly. Its score is then as high with the "
    "wrong question. So all scores are computed again with the questions shuffled: without a head above these, there would be "
    "no gaze heads."
)


class TopRow(TypedDict):
    """One of the best heads: its scores, the interval of the gaze score, and where it looks after a shuffle."""

    layer: int
    head: int
    gaze: float
    selectivity: float
    lift: float
    routing: float
    interval: list[float]
    at_place: float
    at_content: float


class NullRow(TypedDict):
    """The chosen heads beside chance, see `gaze.discovery.nulls.Contrast`; `above` counts the heads above the null."""

    real: float
    null: float
    null_best: float
    ratio: float | None
    p_any: float
    above: int


class StabilityRow(TypedDict):
    """See `gaze.discovery.nulls.Stability`."""

    overlap: float
    low: float
    high: float
    chance: float
    spearman: float | None
    count: int
    splits: int


class ScoreRow(NullRow):
    """One score, with the heads that are best by it."""

    stability: StabilityRow
    shared_with_gaze: int


class CurveRow(Measured):
    """The numbers of a count of heads."""

    k: int
    strength: float


class DiscoveryResults(Provenance):
    """What `e1_discovery.sum_up` returns; `baselines` are heads that a baseline shares with the gaze score."""

    strips: int
    shared: bool
    skipped: list[list[str]]
    chosen: list[list[int]]
    top: list[TopRow]
    scores: dict[str, ScoreRow]
    nulls: dict[str, NullRow]
    baselines: dict[str, int]
    curve: list[CurveRow]


def chapter(
    results: DiscoveryResults,
    scores: Scores,
    attention: Float[np.ndarray, "question layer heads panel"],
    null: Float[np.ndarray, "draw layer heads"],
    place: tuple[int, str, str],
) -> Chapter:
    """The chapter; `null` are scores under shuffled questions, `place` its number, name and title."""
    chosen = [(layer, head) for layer, head in results["chosen"]]
    best, stability = results["top"][0], results["scores"]["gaze"]["stability"]
    return Chapter(
        *place,
        STORY,
        _findings(results, chosen),
        _plots(results, chosen, scores, attention, null),
        _tables(results, len(chosen)),
        compared=[
            Compared("score of the best head (8B, 500 strips)", "above 0.5; a replication 0.23", f"{best['gaze']:.3f}"),
            Compared("halves agree on the top 100", "a replication 91 to 97 of 100", percent(stability["overlap"])),
            Compared("layers of the chosen heads (8B: 36)", "20 to 28; a replication 30 of 100 there", _layers(chosen)),
        ],
        caveats=[
            *(
                ["Discovery and evaluation share strips, as told: the other chapters are optimistic."]
                * results["shared"]
            ),
            *([f"{len(results['skipped'])} comics could not be read and were replaced."] * bool(results["skipped"])),
            *_panels(attention.shape[-1]),
        ],
        could_fail=COULD_FAIL,
        conclusion=_conclusion(results, attention.shape[-1]),
    )


def _conclusion(results: DiscoveryResults, panels: int) -> str:
    null, best = results["nulls"]["relabelled questions"], results["top"][0]
    if null["p_any"] >= LEVEL:
        return "No head looks at the panel asked about more than chance explains."
    return (
        f"Some heads look at the panel that the question names: the best puts {best['gaze']:.0%} of its attention there, where "
        f"an even look at {NUMBER_WORDS[panels - 1]} panels gives {1 / panels:.0%} at most."
    )


def _panels(panels: int) -> list[str]:
    """Returns what the number of panels limits."""
    orders = factorial(panels)
    few = (
        f"{panels} panels have {orders} orders, so no p value by relabelling the questions can be below 1/{orders}, "
        "whatever the heads do."
    )
    raw = (
        "A raw score also counts attention that ignores the question: a head that spreads a mass m over "
        f"{NUMBER_WORDS[panels - 1]} panels has m/{panels}. Selectivity, lift and routing in the table do not."
    )
    return [few, raw] if too_few_panels(panels) else [raw]


def _findings(results: DiscoveryResults, chosen: Sequence[tuple[int, int]]) -> list[str]:
    best, raw = results["top"][0], results["scores"]["gaze"]
    stability, (low, high) = raw["stability"], best["interval"]
    names = ", ".join(f"L{layer}H{head}" for layer, head in chosen[:12]) + ", ..." * (len(chosen) > 12)
    p = results["nulls"]["relabelled questions"]["p_any"]
    return [
        f"The best head is L{best['layer']}H{best['head']}: {best['gaze']:.3f} of its attention is on the panel asked "
        "about "
        f"({low:.3f} to {high:.3f} over {results['strips']} strips).",
        f"{plural(len(chosen), 'head')} will be steered from here on, {names}, "
        + ("chosen on strips of their own." if results["curve"] else "as given."),
        f"Their mean score is {raw['real']:.3f}, under shuffled questions {raw['null']:.3f}. That any head of this "
        "model is "
        f"above chance has p = {p:.4f} by relabelling the questions (family-wise).",
        f"Random halves of the strips agree on {percent(stability['overlap'])} of the best {stability['count']} heads "
        f"(chance {percent(stability['chance'])}).",
    ]


def _plots(
    results: DiscoveryResults,
    chosen: Sequence[tuple[int, int]],
    scores: Scores,
    attention: Float[np.ndarray, "question layer heads panel"],
    null: Float[np.ndarray, "draw layer heads"],
) -> list[Plot]:
    top = [(row["layer"], row["head"], row["gaze"]) for row in results["top"][:8]]
    matrices = np.stack([attention[:, layer, head] for layer, head, _ in top])
    found = [
        Plot(
            "scores", plots_heads.score_map(scores, chosen), "Gaze score of every head; the chosen ones are outlined."
        ),
        Plot(
            "matrices",
            plots_heads.panel_matrices(matrices, top, chosen),
            "Attention of the best heads: the panel that is asked about by the panel that is looked at.",
        ),
        Plot(
            "depth", plots_heads.depth_profile(scores, chosen), "Scores by layer: how deep in the model the heads lie."
        ),
        Plot(
            "null",
            plots_heads.score_distribution(scores, null),
            "Scores beside those with shuffled questions, where a head that prefers one panel scores as before.",
        ),
    ]
    if curve := results["curve"]:
        heads, blind = line("gaze heads", "gaze", [row["k"] for row in curve], curve), 1 / attention.shape[-1]
        figure = sweep([heads], "number of heads steered", {"blind pick": blind}, {"chosen": len(chosen)})
        found.append(Plot("choice", figure, "How many heads to steer, chosen on strips that serve nothing else."))
    return found


def _tables(results: DiscoveryResults, count: int) -> list[Table]:
    heads = [
        [
            f"L{row['layer']}H{row['head']}",
            *(f"{score:.3f}" for score in (row["gaze"], row["selectivity"], row["lift"], row["routing"])),
            "{:.3f} to {:.3f}".format(*row["interval"]),
            f"{row['at_place']:.3f}",
            f"{row['at_content']:.3f}",
        ]
        for row in results["top"]
    ]
    scored: list[list[Cell]] = [
        [
            name,
            f"{one['real']:.3f}",
            f"{one['null']:.3f}",
            "–" if one["ratio"] is None else f"{one['ratio']:.1f}",
            f"{one['p_any']:.4f}",
            one["above"],
            percent(one["stability"]["overlap"]),
            f"{one['shared_with_gaze']} of {count}",
        ]
        for name, one in results["scores"].items()
    ]
    nulls: list[list[Cell]] = [
        [
            name,
            f"{one['real']:.3f}",
            f"{one['null']:.3f}",
            f"{one['null_best']:.3f}",
            f"{one['p_any']:.4f}",
            one["above"],
        ]
        for name, one in results["nulls"].items()
    ]
    return [
        Table(
            "The best heads",
            ("head", "gaze", "selectivity", "lift", "routing", "95% of gaze", "at the place", "at the content"),
            heads,
            "The last two columns: the panels were put in another order; attention on the place asked about, and on the picture "
            "that used to be there.",
        ),
        Table(
            f"Four scores, each with its own best {count} heads",
            ("score", "real", "shuffled", "ratio", "p (any head)", "heads above", "halves agree", "shared with gaze"),
            scored,
        ),
        Table(
            "Three nulls of the gaze score",
            ("null", "real", "same heads", "best of null", "p (any head)", "heads above"),
            nulls,
        ),
        Table(
            "Heads known from other papers",
            ("ranking", "shared with gaze"),
            [[RANKINGS[name], f"{shared} of {count}"] for name, shared in results["baselines"].items()],
            "Image Heads are those of MaskCD. The elbow that selects Localization Heads is read as in their code (index) and as "
            "in their paper (value).",
        ),
    ]


def _layers(heads: Sequence[tuple[int, int]]) -> str:
    layers = sorted({layer for layer, _ in heads})
    return f"all in layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"all in layer {layers[0]}"
