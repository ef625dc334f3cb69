"""Experiment 7: how many heads, how strong, with which words, on which rows (arXiv 2606.14703, section 3 and appendices).

All with the static question on the first strips of the evaluation. The number of heads is chosen on other strips; what the
best number on these very strips would have given stands beside it, as that is what the paper reports.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, cast

import numpy as np
from typing_extensions import TypedDict

from experiments.paper import e1_discovery
from experiments.paper.reports.discovery import RANKINGS as NAMED
from experiments.paper.steering_study import every_panel, nowhere
from experiments.run.conditions import Condition
from experiments.run.formatting import COUNTING, ON_TARGET, both, line, made_with, on_target, percent, plural, share
from experiments.run.run import Run
from experiments.run.summaries import PLATEAU, EstimatedRow, estimated, grouped, least_sufficient
from experiments.testbed.wordings import THIS_PANEL
from gaze.heads import HeadSet, all_heads
from gaze.prompts import STATIC
from gaze.report import plots
from gaze.report.html import Cell, Chapter, Compared, Plot, Table
from gaze.steering.masks import BIASES, MODES, QUERY_POSITIONS

NUMBER, NAME, TITLE = 7, "e7_sweeps", "How many heads, how strong, with which words, on which rows?"

STRIPS = 32
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 16.0, 32.0, 100.0, 1000.0, 10_000.0)
TAGS = ("sweep", "ranking", "count", "draw", "which", "size", "bias", "wording")
WORDINGS = (*THIS_PANEL.paper, *THIS_PANEL.paraphrases)
UNSTEERED = "unsteered"
RANKINGS = ("gaze", *e1_discovery.BASELINES)
RANKED = {**NAMED, "random": "random heads"}


STORY = (
    "Too few heads do not move the model. Too many break it, as heads that never look at the picture are forced to. So it "
    "matters how many heads are steered, and which; how hard they are pushed; and at which words."
)
COULD_FAIL = (
    "If the choice of heads did not matter, as many heads of any other ranking would steer as well. All heads are pushed with "
    "every strength, too: a control that fails only when it is pushed too hard says nothing about gaze."
)
POSITIONS = {
    "all": "every position",
    "text": "text only",
    "answer": "from the last word of the prompt on",
    "decoded": "generated words",
    "prompt": "prompt",
}
"""Query positions, as the report calls them."""


class SweepRow(EstimatedRow):
    """The numbers of one condition, and the tags that say what is varied in it."""

    ranking: NotRequired[str]
    count: NotRequired[int]
    draw: NotRequired[int]
    which: NotRequired[str]
    size: NotRequired[float]
    wording: NotRequired[int]


SweepResults = TypedDict(
    "SweepResults",
    {
        "strips": int,
        "panels": int,
        "judge": str,
        "heads": list[SweepRow],
        "strength": list[SweepRow],
        "wording": list[SweepRow],
        "query positions": list[SweepRow],
        "mode": list[SweepRow],
        "chosen": int,
        "best": dict[str, SweepRow],
        "best_by_paper": dict[str, SweepRow],
        "enough": float | None,
    },
)
"""What `sum_up` returns: a row for each point of each sweep, the best points, and the least strength that is enough."""


def collect(run: Run) -> None:
    strips = run.pictures("evaluation")[:STRIPS]
    aims, alone = every_panel(strips), nowhere(strips)
    run.generate(
        NAME,
        strips,
        [
            Condition(
                " ".join(map(str, tags.values())),
                how.pop("question", STATIC),
                run.settings.static,
                alone if tags["sweep"] == UNSTEERED else aims,
                tags=tags,
                **how,
            )
            for tags, how in variants(run)
        ],
    )


def variants(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields what is varied: tags that name it, and what a `Condition` makes of it."""
    heads, everything = run.heads(), all_heads(*run.shape)
    for ranking in RANKINGS:
        for count, some in _counted(run, ranking):
            yield {"sweep": "heads", "ranking": ranking, "count": count}, {"heads": some}
    for count, some in _counted(run, "gaze"):
        for draw, drawn in enumerate(run.controls(some, heads.heads)):
            tags = {"sweep": "heads", "ranking": "random", "count": count, "draw": draw}
            yield tags, {"heads": drawn, "strength": run.strength("random")}
    for name, some in (("gaze", heads), ("all", everything)):
        for strength in STRENGTHS:
            yield {"sweep": "strength", "which": name, "size": strength}, {"heads": some, "strength": strength}
    for number, wording in enumerate(WORDINGS):
        yield {"sweep": "wording", "wording": number}, {"heads": heads, "question": wording}
        yield {"sweep": UNSTEERED, "wording": number}, {"question": wording}
    for rows in QUERY_POSITIONS:
        yield {"sweep": "query positions", "which": rows}, {"heads": heads, "query_positions": rows}
    for mode in MODES:
        for bias in BIASES:
            yield (
                {"sweep": "mode", "which": mode, "bias": bias},
                {"heads": heads, "mode": mode, "bias": bias},
            )


def sum_up(run: Run) -> SweepResults:
    strips = run.pictures("evaluation")[:STRIPS]
    groups = grouped(run.judged(strips, run.answers(NAME)), lambda row: row["condition"]).values()
    alone = {rows[0]["question"]: rows for rows in groups if rows[0]["sweep"] == UNSTEERED}
    found: dict[str, list[SweepRow]] = {}
    for rows in groups:
        tags = {name: rows[0][name] for name in TAGS if name in rows[0]}
        if (sweep := tags.pop("sweep")) != UNSTEERED:
            numbers = estimated(rows, alone[rows[0]["question"]])
            found.setdefault(sweep, []).append(cast(SweepRow, {**tags, **numbers}))
    by_ranking = {name: [row for row in found["heads"] if row["ranking"] == name] for name in RANKINGS}
    return {
        "strips": len(strips),
        "panels": len(strips[0]),
        "judge": run.judge.name,
        "heads": found["heads"],
        "strength": found["strength"],
        "wording": found["wording"],
        "query positions": found["query positions"],
        "mode": found["mode"],
        "chosen": len(run.heads()),
        "best": {
            name: max(rows, key=lambda row: (row["accuracy"], -row["count"])) for name, rows in by_ranking.items()
        },
        "best_by_paper": {
            name: max(rows, key=lambda row: (row["by_paper"]["accuracy"], -row["count"]))
            for name, rows in by_ranking.items()
        },
        "enough": least_sufficient((row["size"], row) for row in found["strength"] if row["which"] == "gaze"),
    }


def _counted(run: Run, ranking: str) -> Iterator[tuple[int, HeadSet]]:
    """Yields the best heads of a ranking in growing numbers, up to half of all heads."""
    heads = HeadSet.load(e1_discovery.ranking_file(run, ranking))
    for count in e1_discovery.COUNTS:
        if count <= len(heads) and 2 * count <= run.shape[0] * run.shape[1]:
            yield count, heads.top(count)


def chapter(run: Run, results: SweepResults) -> Chapter:
    return Chapter(
        NUMBER,
        NAME,
        TITLE,
        STORY,
        findings=_findings(results),
        plots=_plots(results),
        tables=_tables(results),
        compared=_compared(results, run.shape[0] * run.shape[1]),
        caveats=_caveats(results),
        could_fail=COULD_FAIL,
        conclusion=_conclusion(results),
    )


def _conclusion(results: SweepResults) -> str:
    """Says how many gaze heads are best, and whether all heads fail at every strength or only at the greatest."""
    best, everything = results["best"]["gaze"], _pushed(results, "all")
    strongest, most = max(everything, key=lambda row: row["size"]), max(everything, key=lambda row: row["accuracy"])
    return (
        f"Steering works best with {plural(best['count'], 'gaze head')} ({percent(best['accuracy'])} of the answers). All heads "
        f"together reach {percent(most['accuracy'])} at strength {most['size']:,g} and {percent(strongest['accuracy'])} at "
        f"{strongest['size']:,g}: what a comparison shows depends on the strength."
    )


def _findings(results: SweepResults) -> list[str]:
    heads, chosen, enough = results["heads"], results["chosen"], results["enough"]
    here = next((row for row in heads if (row["ranking"], row["count"]) == ("gaze", chosen)), None)
    best = (f"{RANKED[name]} {share(row)} with {row['count']}" for name, row in results["best"].items())
    rows = (f"{POSITIONS[row['which']]} {share(row)}" for row in results["query positions"])
    plateau = (
        f"{enough:,g} is enough for 95% of what the greatest gives."
        if enough is not None
        else "None is enough: even the greatest moves no answer to its target."
    )
    return [
        f"Over the number of gaze heads: {_curve([row for row in heads if row['ranking'] == 'gaze'])}.",
        f"On other strips, {plural(chosen, 'head')} did best; here they reach {both(here)}."
        if here
        else f"{plural(chosen, 'head')} to steer, as given.",
        f"The best number of each, chosen on these very strips as in the paper: {'; '.join(best)}.",
        f"Over the strength: {_strengths(_pushed(results, 'gaze'))}. {plateau}",
        f"Steered while these positions are read: {'; '.join(rows)}.",
    ]


def _plots(results: SweepResults) -> list[Plot]:
    chance, enough = 1 / results["panels"], results["enough"]
    gaze, everything = (_pushed(results, which) for which in ("gaze", "all"))
    rows, wordings = results["query positions"], results["wording"]
    return [
        Plot(
            "heads",
            plots.sweep(
                _lines(results["heads"]),
                "number of heads steered",
                {"blind pick": chance},
                {"chosen": results["chosen"]},
            ),
            "Accuracy by the number of heads, best first by each ranking; random heads are from the same layers as gaze heads.",
            "Table 5, Fig. 7",
        ),
        Plot(
            "strength",
            plots.sweep(
                [
                    line("gaze heads", "gaze", [row["size"] for row in gaze], gaze),
                    line("all heads", "all", [row["size"] for row in everything], everything),
                ],
                "strength",
                {"blind pick": chance},
                {} if enough is None else {"enough": enough},
            ),
            "Accuracy by strength.",
            "Table 6",
        ),
        Plot(
            "rows",
            plots.rows(
                [POSITIONS[row["which"]] for row in rows],
                [line("gaze heads", "gaze", range(len(QUERY_POSITIONS)), rows)],
                chance,
            ),
            "Positions whose attention is steered. With “text only” the picture is read as ever, so all targets can share it.",
        ),
        Plot(
            "wordings",
            plots.rows(
                [textwrap.shorten(row["question"], 52) for row in wordings],
                [line("gaze heads", "gaze", range(len(wordings)), wordings)],
                chance,
            ),
            "The same steering under other questions that name no panel.",
        ),
    ]


def _tables(results: SweepResults) -> list[Table]:
    def table(title: str, columns: Sequence[str], rows: Sequence[SweepRow], cells: Sequence[Sequence[Cell]]) -> Table:
        numbers = [
            [*some, *on_target(row), row["n"], row["outcomes"]["empty"], row["outcomes"]["junk"]]
            for row, some in zip(rows, cells, strict=True)
        ]
        return Table(
            title, (*columns, *ON_TARGET, "answers", "empty", "junk"), numbers, COUNTING, [*map(made_with, rows)]
        )

    heads, strength, mode = results["heads"], results["strength"], results["mode"]
    rows, wordings = results["query positions"], results["wording"]
    return [
        table(
            "Number of heads",
            ("ranking", "heads"),
            heads,
            [
                [RANKED[row["ranking"]] + (f", draw {row['draw'] + 1}" if "draw" in row else ""), row["count"]]
                for row in heads
            ],
        ),
        table("Strength", ("heads", "strength"), strength, [[row["which"], row["size"]] for row in strength]),
        table("Modes and biases", ("mode", "bias"), mode, [[row["which"], row["bias"]] for row in mode]),
        table("Positions", ("steered",), rows, [[POSITIONS[row["which"]]] for row in rows]),
        table("Wordings", ("question",), wordings, [[row["question"]] for row in wordings]),
    ]


def _compared(results: SweepResults, heads: int) -> list[Compared]:
    best = results["best_by_paper"]
    weak = {row["size"]: row for row in _pushed(results, "gaze")}
    localization = max(best[f"localization-{elbow}"]["by_paper"]["accuracy"] for elbow in e1_discovery.ELBOWS)
    return [
        Compared("heads at the peak (8B of 1,152; 2B of 448)", "100; 10", f"{best['gaze']['count']} of {heads}"),
        Compared("accuracy at the peak (8B; 2B)", "83.1%; 68.6%", percent(best["gaze"]["by_paper"]["accuracy"])),
        Compared("Image Heads at their best (8B)", "69.0%", percent(best["image"]["by_paper"]["accuracy"])),
        Compared("Localization Heads at their best (8B)", "60.2%", percent(localization)),
        Compared("strength 1", "33.2%", percent(weak[1.0]["by_paper"]["accuracy"])),
        Compared("strength 10", "79.8%", percent(weak[10.0]["by_paper"]["accuracy"])),
        Compared("strength 10,000", "83.1%", percent(weak[10_000.0]["by_paper"]["accuracy"])),
    ]


def _pushed(results: SweepResults, which: str) -> list[SweepRow]:
    """Returns the sweep over strengths of the gaze heads or of all heads."""
    return [row for row in results["strength"] if row["which"] == which]


def _lines(heads: Sequence[SweepRow]) -> list[plots.Line]:
    roles: dict[str, plots.Role] = {
        "gaze": "gaze",
        "image": "image",
        "localization-index": "localization",
        "localization-value": "localization",
    }
    lines = []
    for name, role in roles.items():
        rows = [row for row in heads if row["ranking"] == name]
        lines.append(line(RANKED[name], role, [row["count"] for row in rows], rows))
    draws = grouped((row for row in heads if row["ranking"] == "random"), lambda row: row["count"])
    values = [[row["accuracy"] for row in rows] for rows in draws.values()]
    means = [float(np.mean(some)) for some in values]
    low, high = [min(some) for some in values], [max(some) for some in values]
    return [*lines, plots.Line("random heads, all draws", "random", [*draws], means, low, high)]


def _caveats(results: SweepResults) -> list[str]:
    """Returns what the sweeps do not show."""
    curve = [row["accuracy"] for row in results["heads"] if row["ranking"] == "gaze"]
    peak = int(np.argmax(curve))
    best = results["best"]
    said = []
    if not 0 < peak < len(curve) - 1:
        said.append(
            "The accuracy does not rise and then fall over the number of heads: its peak is at an end of the sweep."
        )
    if results["enough"] is None:
        return [
            *said,
            "Steering moves no answer to its target at the greatest strength: no curve here shows an effect.",
        ]
    said += [
        f"At their best, {RANKED[name]} steer as well as the gaze heads."
        for name in e1_discovery.BASELINES
        if best[name]["accuracy"] >= best["gaze"]["accuracy"]
    ]
    reached = {row["size"]: row["accuracy"] for row in _pushed(results, "gaze")}
    if reached[1.0] > 0.5 * reached[10_000.0]:
        said.append("A strength of 1 is not weak here: it reaches more than half of what 10,000 does.")
    everything = max(_pushed(results, "all"), key=lambda row: row["accuracy"])
    if everything["accuracy"] >= PLATEAU * best["gaze"]["accuracy"]:
        said.append(
            f"At strength {everything['size']:,g}, all heads steer as well as the gaze heads. That they fail when pushed harder "
            "does not show that only gaze heads can steer."
        )
    return said


def _curve(rows: Sequence[SweepRow]) -> str:
    return ", ".join(f"{row['count']}: {percent(row['accuracy'])}" for row in rows)


def _strengths(rows: Sequence[SweepRow]) -> str:
    return ", ".join(f"{row['size']:,g}: {percent(row['accuracy'])}" for row in rows)
