"""Experiment 7: how many heads, how strong, with which words, on which rows (arXiv 2606.14703, section 3 and appendices).

All with the static question on the first strips of the evaluation. The number of heads is chosen on other strips; what the
best number on these very strips would have given stands beside it, as that is what the paper reports.
"""

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.commands.runner import script
from experiments.paper import e1_discovery
from experiments.paper.steering_study import every_panel
from experiments.run.conditions import Condition
from experiments.run.formatting import interval, line, percent, share, source
from experiments.run.run import Run
from experiments.run.summaries import estimated
from experiments.testbed.wordings import THIS_PANEL
from gaze.heads import HeadSet, all_heads
from gaze.prompts import STATIC
from gaze.report import plots
from gaze.report.html import Chapter, Compared, Plot, Table
from gaze.steering.masks import BIASES, MODES, QUERY_POSITIONS

NUMBER, NAME, TITLE = 7, "e7_sweeps", "How many heads, how strong, with which words, on which rows?"

STRIPS = 32
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 16.0, 32.0, 100.0, 1000.0, 10_000.0)
TAGS = ("sweep", "ranking", "count", "draw", "which", "size", "bias", "wording")
RANKINGS = ("gaze", *e1_discovery.BASELINES)


def collect(run: Run) -> None:
    strips = run.pictures("evaluation")[:STRIPS]
    aims = every_panel(strips)
    run.generate(
        NAME,
        strips,
        [
            Condition(
                " ".join(map(str, tags.values())),
                how.pop("question", STATIC),
                run.settings.static,
                aims,
                tags=tags,
                **how,
            )
            for tags, how in variants(run)
        ],
    )


def variants(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What is varied: tags that name it, and what a `Condition` makes of it."""
    heads, everything = run.heads(), all_heads(*run.shape)
    for ranking in RANKINGS:
        for count, some in _counted(run, ranking):
            yield {"sweep": "heads", "ranking": ranking, "count": count}, {"heads": some}
    for count, some in _counted(run, "gaze"):
        for draw, drawn in enumerate(run.controls(some)):
            yield {"sweep": "heads", "ranking": "random", "count": count, "draw": draw}, {"heads": drawn}
    for name, some in (("gaze", heads), ("all", everything)):
        for strength in STRENGTHS:
            yield {"sweep": "strength", "which": name, "size": strength}, {"heads": some, "strength": strength}
    for number, wording in enumerate((*THIS_PANEL.paper, *THIS_PANEL.paraphrases)):
        yield {"sweep": "wording", "wording": number}, {"heads": heads, "question": wording}
    for rows in QUERY_POSITIONS:
        yield {"sweep": "query positions", "which": rows}, {"heads": heads, "query_positions": rows}
    for mode in MODES:
        for bias in BIASES:
            yield (
                {"sweep": "mode", "which": mode, "bias": bias},
                {"heads": heads, "mode": mode, "bias": bias},
            )


def sum_up(run: Run) -> dict[str, Any]:
    strips = run.pictures("evaluation")[:STRIPS]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in run.judged(strips, run.answers(NAME)):
        groups.setdefault(row["condition"], []).append(row)
    found: dict[str, list[dict[str, Any]]] = {}
    for rows in groups.values():
        tags = {name: rows[0][name] for name in TAGS if name in rows[0]}
        found.setdefault(tags.pop("sweep"), []).append({**tags, **estimated(rows, run.settings.seed)})
    return {
        "strips": len(strips),
        "judge": run.judge.name,
        **found,
        **_chosen(run, found["heads"]),
        **_plateau(found["strength"]),
    }


def _counted(run: Run, ranking: str) -> Iterator[tuple[int, HeadSet]]:
    """The best heads of a ranking in growing numbers, up to half of all heads."""
    heads = HeadSet.load(e1_discovery.ranking_file(run, ranking))
    for count in e1_discovery.COUNTS:
        if count <= len(heads) and 2 * count <= run.shape[0] * run.shape[1]:
            yield count, heads.top(count)


def _chosen(run: Run, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The number of heads chosen on other strips, and for each ranking the best one on these, as the paper chooses."""
    by_ranking = {name: [row for row in found if row["ranking"] == name] for name in RANKINGS}
    return {
        "chosen": len(run.heads()),
        "best": {
            name: max(rows, key=lambda row: (row["accuracy"], -row["count"])) for name, rows in by_ranking.items()
        },
    }


def _plateau(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest strength of the gaze heads that reaches 95 % of what the greatest does."""
    gaze = [row for row in found if row["which"] == "gaze"]
    enough = [row["size"] for row in gaze if row["accuracy"] >= 0.95 * gaze[-1]["accuracy"]]
    return {"enough": min(enough)}


def chapter(run: Run, results: dict[str, Any]) -> Chapter:
    heads, chosen, best = results["heads"], results["chosen"], results["best"]
    here = next((row for row in heads if (row["ranking"], row["count"]) == ("gaze", chosen)), None)
    chance = {"blind pick": 1 / 6}
    strength = {name: [row for row in results["strength"] if row["which"] == name] for name in ("gaze", "all")}
    weak = {row["size"]: row for row in strength["gaze"]}
    return Chapter(
        NUMBER,
        NAME,
        TITLE,
        "Too few heads do not move the model, too many break it: heads that never look at the picture are forced to. "
        "So the number "
        "of heads matters, and which they are; so does how hard they are pushed, and while which words are read.",
        findings=[
            f"Over the number of gaze heads: {_curve([row for row in heads if row['ranking'] == 'gaze'])}.",
            f"{chosen} heads were chosen on other strips; here they reach {share(here)}."
            if here
            else f"{chosen} heads were given.",
            "The best any number gives on these very strips, as the paper picks it: "
            + "; ".join(f"{name} {share(row)} with {row['count']}" for name, row in best.items())
            + ".",
            f"Over the strength: {_strengths(strength['gaze'])}. {results['enough']:g} is enough for 95 % of the plateau.",
            "Rows that carry the mask: "
            + "; ".join(f"{row['which']} {share(row)}" for row in results["query positions"])
            + ".",
        ],
        plots=[
            Plot(
                "heads",
                plots.sweep(_lines(heads), "number of heads steered", chance, {"chosen": chosen}),
                "Accuracy over the number of heads, best first by each ranking; random heads are matched by layer.",
                "Table 5, Fig. 7",
            ),
            Plot(
                "strength",
                plots.sweep(
                    [
                        line("gaze heads", "gaze", [r["size"] for r in strength["gaze"]], strength["gaze"]),
                        line("all heads", "all", [r["size"] for r in strength["all"]], strength["all"]),
                    ],
                    "strength",
                    chance,
                    {"enough": results["enough"]},
                ),
                "Accuracy over the strength of the mask.",
                "Table 6",
            ),
            Plot(
                "rows",
                plots.rows(
                    [row["which"] for row in results["query positions"]],
                    [line("gaze heads", "gaze", range(len(QUERY_POSITIONS)), results["query positions"])],
                    1 / 6,
                ),
                "Which query rows carry the mask. With “text” the image is read as ever, so that all targets can share it.",
            ),
            Plot(
                "wordings",
                plots.rows(
                    [textwrap.shorten(row["question"], 52) for row in results["wording"]],
                    [line("gaze heads", "gaze", range(len(results["wording"])), results["wording"])],
                    1 / 6,
                ),
                "The same steering under other questions that name no panel.",
            ),
        ],
        tables=[
            Table(
                "Number of heads",
                ("ranking", "heads", "on target", "95 % interval", "answers", "made with"),
                [
                    [
                        row["ranking"] + (f", draw {row['draw'] + 1}" if "draw" in row else ""),
                        row["count"],
                        percent(row["accuracy"]),
                        interval(row),
                        row["n"],
                        source(row),
                    ]
                    for row in heads
                ],
            ),
            Table(
                "Strength",
                ("heads", "strength", "on target", "95 % interval", "answers", "made with"),
                [
                    [row["which"], row["size"], percent(row["accuracy"]), interval(row), row["n"], source(row)]
                    for row in results["strength"]
                ],
            ),
            Table(
                "Modes and biases",
                ("mode", "bias", "on target", "95 % interval", "answers", "made with"),
                [
                    [row["which"], row["bias"], percent(row["accuracy"]), interval(row), row["n"], source(row)]
                    for row in results["mode"]
                ],
            ),
            Table(
                "Rows",
                ("rows", "on target", "95 % interval", "answers", "made with"),
                [
                    [row["which"], percent(row["accuracy"]), interval(row), row["n"], source(row)]
                    for row in results["query positions"]
                ],
            ),
        ],
        compared=[
            Compared(
                "heads at the peak (8B of 1,152; 2B of 448)",
                "100; 10",
                f"{best['gaze']['count']} of {run.shape[0] * run.shape[1]}",
            ),
            Compared("accuracy at the peak (8B; 2B)", "83.1%; 68.6%", percent(best["gaze"]["accuracy"])),
            Compared("Image Heads at their best (8B)", "69.0%", percent(best["image"]["accuracy"])),
            Compared(
                "Localization Heads at their best (8B)",
                "60.2%",
                percent(max(best[f"localization-{elbow}"]["accuracy"] for elbow in e1_discovery.ELBOWS)),
            ),
            Compared("strength 1", "33.2%", percent(weak[1.0]["accuracy"])),
            Compared("strength 10", "79.8%", percent(weak[10.0]["accuracy"])),
            Compared("strength 10,000", "83.1%", percent(weak[10_000.0]["accuracy"])),
        ],
        caveats=_caveats(results),
    )


def _lines(heads: list[dict[str, Any]]) -> list[plots.Line]:
    roles: dict[str, plots.Role] = {
        "gaze": "gaze",
        "image": "image",
        "localization-index": "localization",
        "localization-value": "localization",
    }
    lines = []
    for name, role in roles.items():
        rows = [row for row in heads if row["ranking"] == name]
        lines.append(line(f"{name} heads", role, [row["count"] for row in rows], rows))
    random: dict[int, list[float]] = {}
    for row in heads:
        if row["ranking"] == "random":
            random.setdefault(row["count"], []).append(row["accuracy"])
    means = [float(np.mean(values)) for values in random.values()]
    low, high = [min(values) for values in random.values()], [max(values) for values in random.values()]
    return [*lines, plots.Line("random heads, all draws", "random", [*random], means, low, high)]


def _caveats(results: dict[str, Any]) -> list[str]:
    """What the sweeps do not show."""
    curve = [row["accuracy"] for row in results["heads"] if row["ranking"] == "gaze"]
    peak = int(np.argmax(curve))
    best = results["best"]
    said = []
    if not 0 < peak < len(curve) - 1:
        said.append(
            "The accuracy does not rise and then fall over the number of heads: its peak is at an end of the sweep."
        )
    for name in e1_discovery.BASELINES:
        if best[name]["accuracy"] >= best["gaze"]["accuracy"]:
            said.append(f"At their best, {name} heads steer as well as gaze heads.")
    least, most = (
        next(row for row in results["strength"] if (row["which"], row["size"]) == ("gaze", size))
        for size in (1.0, 10_000.0)
    )
    if least["accuracy"] > 0.5 * most["accuracy"]:
        said.append("A strength of 1 is not weak here: it reaches more than half of the plateau.")
    return said


def _curve(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['count']}: {percent(row['accuracy'])}" for row in rows)


def _strengths(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['size']:g}: {percent(row['accuracy'])}" for row in rows)


if __name__ == "__main__":
    script(sys.modules[__name__])
