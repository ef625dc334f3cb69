"""How far the judges can be trusted: each is shown captions whose panel is known, and then judges the same answers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
from typing_extensions import TypedDict

from experiments.run.formatting import percent
from experiments.run.records import Records, Row, chunk_name
from experiments.run.run import Run
from gaze.judges.by_name import make_judge
from gaze.judges.judge import agreement, calibrate
from gaze.report.html import Cell, Chapter, Plot, Table
from gaze.report.plots_compare import picks

NUMBER, NAME, TITLE = 13, "judge_calibration", "How far can the judges be trusted?"

COULD_FAIL = (
    "A judge that prefers one panel, or cannot tell panels apart, makes any steering look good or bad. It would fail when the "
    "same captions are shown with the panels in another order."
)
FREE = ("exact", "caption", "likelihood")
"""Judges that cost nothing and need no network."""
STRIPS = 32


class JudgeRow(TypedDict):
    """The `gaze.judges.judge.Calibration` of one judge."""

    judge: str
    version: str
    captions: int
    accuracy: float
    per_panel: Sequence[float]
    picks: Sequence[int]
    abstained: int
    failed: int
    shuffled_accuracy: float
    strangers: float | None
    passed: bool


class CalibrationResults(TypedDict):
    """What `sum_up` returns; `kappa` is None where the run's own judge was not calibrated, and of no judge it had before."""

    judge: str
    strips: int
    judges: list[JudgeRow]
    answers: int
    kappa: dict[str, float | None]


def collect(run: Run) -> None:
    """Calibrates the run's judge and, where captions are known, the free ones."""
    strips = run.pictures("evaluation")[:STRIPS]
    if not all(strip.captions for strip in strips):
        return
    records, shown = _records(run), run.digests(strips)
    for name in dict.fromkeys((run.settings.judge, *FREE)):
        judge = make_judge(name, run.likelihood)
        chunk = chunk_name(judge.name, run.key(shown, judge.version))
        if records.missing([chunk]):
            found = asdict(calibrate(judge, strips, run.settings.seed))
            records.add({chunk: [{"judge": judge.name, "version": judge.version, **found}]})
    # Judges that this run had before stay, as long as they were shown these strips.
    rows = [row for row in records.rows() if row["chunk"] == chunk_name(row["judge"], run.key(shown, row["version"]))]
    kept = {row["judge"]: row["chunk"] for row in rows}
    records.tell_stale(kept.values())
    records.finish([*kept.values()])


def sum_up(run: Run) -> CalibrationResults:
    found = [
        cast(JudgeRow, {name: one[name] for name in one if name not in ("chunk", "of")})
        for one in sorted(_records(run).rows(), key=_judge_name)
    ]
    rows = [row for row in run.answers("e5_static") if row["condition"] in ("gaze", "unsteered", "all 0", "random 0")]
    strips = run.pictures("evaluation")
    texts = [(row["strip"], row["text"]) for row in rows]
    said = {}
    for name in [one["judge"] for one in found]:
        if name == run.judge.name:  # which has its endpoint; those of judges that the run had before are not known
            said[name] = run.verdicts(strips, texts)
        elif name in FREE:
            said[name] = run.with_judge(name).verdicts(strips, texts)
    mine = said.get(run.judge.name)
    return {
        "judge": run.judge.name,
        "strips": min(STRIPS, len(strips)),
        "judges": found,
        "answers": len(rows),
        "kappa": {name: None if mine is None else agreement(mine, other) for name, other in said.items()},
    }


def chapter(run: Run, results: CalibrationResults) -> Chapter:
    judges = results["judges"]
    panels = len(judges[0]["picks"]) if judges else 0
    findings = [
        f"The {one['judge']} judge finds the panel of {percent(one['accuracy'])} of {one['captions']} true captions, of "
        f"{percent(one['shuffled_accuracy'])} with the panels in another order, and of {percent(min(one['per_panel']))} at its "
        "worst panel: it "
        + ("passes" if one["passed"] else "does not pass")
        + " (0.9 overall in either order, 0.8 for every panel)."
        for one in judges
    ]
    rows: list[list[Cell]] = [
        [
            one["judge"],
            one["version"],
            percent(one["accuracy"]),
            percent(one["shuffled_accuracy"]),
            *(percent(value) for value in one["per_panel"]),
            *one["picks"],
            one["abstained"],
            one["failed"],
            "–" if one["strangers"] is None else percent(one["strangers"]),
            _kappa(results["kappa"].get(one["judge"])),
        ]
        for one in judges
    ]
    columns = (
        "judge",
        "version",
        "captions known",
        "shuffled",
        *(f"panel {n + 1}" for n in range(panels)),
        *(f"picked {n + 1}" for n in range(panels)),
        "abstained",
        "failed",
        "strangers attributed",
        "kappa",
    )
    shares = {one["judge"]: np.array(one["picks"]) / max(sum(one["picks"]), 1) for one in judges}
    plot = [
        Plot(
            "picks",
            picks(shares, [str(n + 1) for n in range(panels)]),
            "Which panels the judges name when every panel is right equally often.",
        )
    ]
    return Chapter(
        NUMBER,
        NAME,
        TITLE,
        "A judge says which panel an answer describes. Before its word counts, it is shown captions whose panel is known.",
        findings or ["These strips have no captions, so no judge could be calibrated."],
        plots=plot if judges else [],
        tables=[
            Table(
                "Calibration",
                columns,
                rows,
                f"Strangers attributed: captions of other strips that the judge gives to a panel of this one. Kappa: agreement "
                f"with the {results['judge']} judge on {results['answers']:,} answers of experiment 5.",
            )
        ]
        if judges
        else [],
        caveats=[] if judges else ["No judge was calibrated: read every accuracy with care."],
        could_fail=COULD_FAIL,
        conclusion=_conclusion(results),
    )


def _conclusion(results: CalibrationResults) -> str:
    mine = next((one for one in results["judges"] if one["judge"] == results["judge"]), None)
    if mine is None:
        return "The judge of this report was not calibrated."
    strangers = mine["strangers"]
    return (
        f"The judge of this report, {mine['judge']}, finds the panel of {percent(mine['accuracy'])} of the captions"
        + (
            "."
            if strangers is None
            else f", and gives {percent(strangers)} of the captions of other strips to some panel."
        )
    )


def _records(run: Run) -> Records:
    return Records(run.place(NAME) / "calibration.jsonl")


def _judge_name(row: Row) -> str:
    return str(row["judge"])


def _kappa(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
