"""The chapter about causes."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict

from experiments.paper.causes import causal_map, controls
from experiments.paper.causes.causal_map import CANDIDATES, HeadRow, MapResults, RankRow
from experiments.paper.causes.claims import NAMES, WHEN, ClaimRow
from experiments.paper.causes.controls import SETTINGS, ControlResults, CutRow, SetsRow
from experiments.paper.causes.head_sets import DRAWS, RANDOM
from experiments.paper.causes.learned import LearnedResults, LearnedRow
from experiments.run.formatting import COUNTING, ON_TARGET, drawn, made_with, measure, on_target, percent, share
from gaze.report import plots, plots_causes
from gaze.report.html import Cell, Chapter, Compared, Plot, Table
from gaze.report.plots import Line, Role

STORY = (
    "Some heads look at the panel that is asked about, and when they are pushed to another panel the model describes that one. "
    "That alone does not make them the cause: any head that is pushed hard may do the same, and a push that breaks the "
    "model makes every comparison easy to win. So each head is pushed alone, each set of heads as hard as suits it best, "
    "and heads are kept from looking. What follows are claims that can fail."
)
COULD_FAIL = (
    "Other heads, each set at its own best strength, may steer as well as the gaze heads; and the model may describe the panel "
    "asked about without them. Each is a claim of its own in the first table."
)
ROLES: dict[str, Role] = {
    "gaze": "gaze",
    "random": "random",
    "layer": "random",
    "attention": "random",
    "all": "all",
    "rest": "rest",
    "image": "image",
    "localization-index": "localization",
    "localization-value": "localization",
}
CLOSE = 0.1
"""How far from the gaze heads' dose, as a share of it, still counts as equal."""


class CauseResults(TypedDict):
    """What `e10_causes.sum_up` returns."""

    judge: str
    panels: int
    heads_in_all: int
    map: MapResults
    controls: ControlResults
    learned: LearnedResults
    claims: list[ClaimRow]


def chapter(results: CauseResults, number: int, name: str, title: str) -> Chapter:
    """Tells what `e10_causes.sum_up` found."""
    claims, *findings = _findings(results)
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=findings,
        plots=_plots(results),
        tables=_tables(results),
        compared=_compared(results),
        caveats=_caveats(results),
        could_fail=COULD_FAIL,
        conclusion=claims,
    )


def _findings(results: CauseResults) -> list[str]:
    decided = [one for one in results["claims"] if one["holds"] is not None]
    failed = [one["claim"] for one in decided if not one["holds"]]
    heads, found = results["map"], results["controls"]
    alone = sorted(heads["heads"], key=lambda row: -row["accuracy"])
    best, other = alone[0], next((row for row in alone if not row["chosen"]), None)
    said = [
        f"{len(decided) - len(failed)} of {len(decided)} claims hold. "
        + (f"These do not: {'; '.join(failed)}." if failed else "None fails."),
        f"Moved alone at its best strength, {_name(best)} does most: {share(best)} of the answers describe the target"
        + (f"; the best head that is no gaze head, {_name(other)}, reaches {share(other)}." if other else ".")
        + f" A blind pick is right in {percent(1 / results['panels'])}.",
        f"Rank correlation of the gaze score with what a head steers alone: {_rho(heads['effect_by_score'])}; "
        f"with what is lost when it is cut off: {_rho(heads['loss_by_score'])}.",
    ]
    for setting in SETTINGS:
        rows = [row for row in found["steered"] if row["setting"] == setting]
        said.append(f"{WHEN[setting].capitalize()}: {'; '.join(map(_told, rows))}.")
    left = (f"without {NAMES[row['kind']]} {percent(row['left']['accuracy'])}" for row in found["cut"])
    said.append(
        f"Asked for by number, the panel is described in {share(found['asked'])} of the answers; where heads do not look at "
        f"the picture, {', '.join(left)}."
    )
    for strength, sets in heads["grown"].items():
        sizes = ", ".join(f"{_names(one['members'])}: {percent(one['accuracy'])}" for one in sets)
        said.append(f"Grown head by head at strength {strength}, on other strips: {sizes}.")
    return [*said, *_learned(results["learned"])]


def _learned(found: LearnedResults) -> list[str]:
    """A sentence for each choice of heads among which masks were learned."""
    said = []
    for among in dict.fromkeys(row["among"] for row in found["masks"]):
        rows = [row for row in found["masks"] if row["among"] == among]
        reached = [0.0 if row["found"] is None else row["found"]["accuracy"] for row in rows]
        sizes, ranks = [len(row["heads"]) for row in rows], [rank for row in rows for rank in row["ranks"]]
        said.append(
            f"Masks learned by gradient among {among}, over {len(rows)} seeds: {min(sizes)} to {max(sizes)} heads, of which "
            f"{sum(row['gaze_heads'] for row in rows)} of {len(ranks)} are gaze heads (median rank by gaze score "
            f"{np.median(ranks) if ranks else float('nan'):.0f}), steer {percent(min(reached))} to {percent(max(reached))} of "
            "the answers."
        )
    return said


def _plots(results: CauseResults) -> list[Plot]:
    heads, found, chance = results["map"]["heads"], results["controls"], 1 / results["panels"]
    by_setting = [
        Plot(
            setting,
            plots.conditions(
                [
                    measure(NAMES[row["kind"]], ROLES[row["kind"]], row["found"])
                    for row in found["steered"]
                    if row["setting"] == setting
                ],
                chance,
            ),
            f"Answers that describe the target, {WHEN[setting]}. Rings are single sets.",
        )
        for setting in SETTINGS
    ]
    lost = [1 - row["answered"]["accuracy"] for row in heads]
    return [
        Plot(
            "heads",
            plots_causes.score_and_effect(
                np.array([row["score"] for row in heads]),
                (
                    ("steered alone: on target", [row["accuracy"] for row in heads]),
                    ("cut off: panel asked for missed", lost),
                ),
                np.array([row["chosen"] for row in heads]),
                chance,
            ),
            "Every head: where it looks, and what it does, steered alone at its best strength and kept from looking at the "
            "picture. Strengths were chosen on other strips.",
        ),
        Plot(
            "strengths",
            plots.sweep(
                [_curve(kind, found["curves"][kind]) for kind in ("gaze", "random", "all", "rest")],
                "strength",
                {"blind pick": chance},
            ),
            "Answers on target over the strength, on the strips on which strengths are chosen; of random heads the mean of all "
            "sets, and from the least to the most.",
        ),
        *by_setting,
    ]


def _tables(results: CauseResults) -> list[Table]:
    heads, found = results["map"], results["controls"]
    answers = {True: "yes", False: "no", None: "the same heads"}
    return [
        Table(
            "Claims that could have failed",
            ("claim", "holds", "gaze heads", "the best other", "p"),
            [
                [row["claim"], answers[row["holds"]], _number(row["gaze"]), _number(row["other"]), _number(row["p"])]
                for row in results["claims"]
            ],
            "Against sets of heads a claim holds if no set does as well and the interval of the lead, over strips and sets, is "
            "above zero. An answer that equals the unsteered one is not counted as steered. p is the rank among the sets.",
        ),
        Table(
            "Sets of heads",
            ("heads", "compared", "sets", "heads each", "strength", *ON_TARGET, "sets (least to most)", "junk",
             "attention moved", "from words", "look at the picture"),
            [_set_cells(row, found["looks"][row["kind"]]) for row in found["steered"]],
            COUNTING + " Attention is that of the prompt's last row, summed over the heads of a set: what the target wins, and "
            "what of it words and the first token lose. The last number is how much of its attention a head of "
            "the set has on the picture when it is left alone.",
            [made_with(row["found"]) for row in found["steered"]],
        ),
        Table(
            "Heads cut off",
            ("without", "sets", "heads each", "panel asked for described", "missed, sets (least to most)"),
            [["none", 0, 0, share(found["asked"]), "–"], *map(_cut_cells, found["cut"])],
            "The words of the prompt and the answer do not look at the picture with these heads; the picture is read as ever.",
        ),
        Table(
            "Heads alone",
            ("head", "gaze head", "gaze score", "strength", *ON_TARGET, "junk", "attention moved", "from words",
             "panel asked for, cut off", *(f"at {strength:g}" for strength in causal_map.STRENGTHS)),
            [_head_cells(row) for row in heads["heads"]],
            COUNTING + " The last columns are the answers on target on the strips on which the strength was chosen.",
        ),
        Table(
            "Sets that grow",
            ("strength", "heads", *ON_TARGET, "junk", "on target where they grew", "panel asked for, cut off"),
            [
                [strength, _names(row["members"]), *on_target(row), percent(row["junk"]), percent(row["at_choice"]),
                 share(row["answered"])]
                for strength, rows in heads["grown"].items()
                for row in rows
            ],
            COUNTING,
        ),
        *_learned_tables(results["learned"]),
    ]  # fmt: skip


def _learned_tables(found: LearnedResults) -> list[Table]:
    if not found["masks"]:
        return []
    return [
        Table(
            "Learned masks",
            (
                "among",
                "seed",
                "heads and strengths",
                "gaze heads",
                "ranks by gaze score",
                *ON_TARGET,
                "junk",
                "nats per token",
            ),
            [_learned_cells(row) for row in found["masks"]],
            f"{COUNTING} Strengths by gradient on the captions of {found['learned_from']} strips of discovery, at a price of "
            f"{found['price']:g} per unit of strength; measured on {found['strips']} other strips. Nats are those of the "
            "captions, before and after learning.",
        )
    ]


def _learned_cells(row: LearnedRow) -> list[Cell]:
    pairs = zip(row["heads"], row["strengths"], strict=True)
    found = row["found"]
    return [
        row["among"],
        row["seed"],
        ", ".join(f"L{layer}H{head} {strength:.1f}" for (layer, head), strength in pairs) or "none",
        row["gaze_heads"],
        ", ".join(map(str, row["ranks"])),
        *(on_target(found) if found else ["–"] * len(ON_TARGET)),
        percent(found["junk"]) if found else "–",
        f"{row['nats'][0]:.3f} to {row['nats'][1]:.3f}",
    ]


def _compared(results: CauseResults) -> list[Compared]:
    single = {row["kind"]: row for row in results["controls"]["steered"] if row["setting"] == "single"}

    def ours(kind: str) -> str:
        return percent(single[kind]["found"]["by_paper"]["accuracy"]) if kind in single else "–"

    return [
        Compared("gaze heads at one strength, static question (8B, 100 heads)", "79.4%", ours("gaze")),
        Compared("Image Heads", "59.1%", ours("image")),
        Compared("Localization Heads (here, elbow by value)", "46.5%", ours("localization-value")),
        Compared("random heads (one draw)", "5.6%", ours("random")),
        Compared("all heads", "0.5%", ours("all")),
        Compared("any of these at its own best strength, or at equal dose", "not measured", "see the claims"),
    ]


def _caveats(results: CauseResults) -> list[str]:
    heads, found = results["map"], results["controls"]
    said = [
        f"Strengths are chosen on {found['choice_strips']} strips and everything is measured on {found['strips']} others: "
        "small differences between single heads are not to be read.",
        f"A set grows only by heads that are among the {CANDIDATES} that do most alone; heads that help only together may be "
        "missed.",
        "To cut off a head's look at the picture is not to remove the head: what it reads from words stays.",
    ]
    if len(heads["heads"]) < results["heads_in_all"]:
        tried = len(heads["heads"])
        said.append(
            f"Of {results['heads_in_all']:,} heads only the {tried} with the best gaze scores are tried one by one, so "
            "a head that acts without looking is missed; attribution patching, which would find candidates among all, "
            "is not done yet."
        )
    few = [
        f"{NAMES[row['kind']]} {row['sets']}" for row in found["cut"] if row["kind"] in RANDOM and row["sets"] < DRAWS
    ]
    if few:
        said.append(f"There are fewer than {DRAWS} different sets of some kinds, and all are taken: {', '.join(few)}.")
    dose = {row["kind"]: row["moved"]["won"] for row in found["steered"] if row["setting"] == "dose"}
    unequal = [
        f"{NAMES[kind]} {won:.2f}" for kind, won in dose.items() if abs(won - dose["gaze"]) > CLOSE * abs(dose["gaze"])
    ]
    if unequal:
        said.append(
            f"Not every set can move as much attention as the gaze heads, {dose['gaze']:.2f} of a head's: {', '.join(unequal)}."
        )
    looks = found["looks"]
    if "attention" in looks and looks["attention"] < 0.5 * looks["gaze"]:
        said.append(
            f"No other heads look at the picture as much as the gaze heads: those matched to them have {looks['attention']:.2f} "
            f"of their attention on it, the gaze heads {looks['gaze']:.2f}."
        )
    return said


def _told(row: SetsRow) -> str:
    against = row["found"]["against"]
    reached = drawn(against) if row["sets"] > 1 else share(row["found"])
    return f"{NAMES[row['kind']]} {reached}"


def _set_cells(row: SetsRow, looks: float) -> list[Cell]:
    found = row["found"]
    return [
        NAMES[row["kind"]],
        WHEN[row["setting"]],
        row["sets"],
        row["size"],
        _range(row["strengths"]),
        *on_target(found),
        drawn(found["against"]) if row["sets"] > 1 else "–",
        percent(row["junk"]),
        row["moved"]["won"],
        row["moved"]["from_text"],
        looks,
    ]


def _cut_cells(row: CutRow) -> list[Cell]:
    return [NAMES[row["kind"]], row["sets"], row["size"], share(row["left"]), drawn(row["lost"])]


def _head_cells(row: HeadRow) -> list[Cell]:
    return [
        _name(row),
        "yes" if row["chosen"] else "no",
        row["score"],
        f"{row['strength']:g}",
        *on_target(row),
        percent(row["junk"]),
        row["won"],
        row["from_text"],
        share(row["answered"]),
        *map(percent, row["curve"]),
    ]


def _curve(kind: str, curve: Sequence[Sequence[float]]) -> Line:
    means = [float(np.mean(some)) for some in curve]
    if len(curve[0]) == 1:
        return Line(NAMES[kind], ROLES[kind], controls.STRENGTHS, means)
    return Line(
        NAMES[kind],
        ROLES[kind],
        controls.STRENGTHS,
        means,
        [min(some) for some in curve],
        [max(some) for some in curve],
    )


def _rho(found: RankRow) -> str:
    if found["value"] is None:
        return "not defined, as all heads are alike"
    low, high = found["interval"]
    return f"{found['value']:.2f} ({low:.2f} to {high:.2f}, {found['heads']} heads)".replace("-", "−")


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3g}" if min(values) == max(values) else f"{min(values):.3g} to {max(values):.3g}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _name(row: HeadRow) -> str:
    return f"L{row['layer']}H{row['head']}"


def _names(heads: Sequence[Sequence[int]]) -> str:
    return " ".join(f"L{layer}H{head}" for layer, head in heads)
