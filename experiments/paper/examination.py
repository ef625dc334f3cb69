"""Examines one checkpoint: do heads look where the question says, and what becomes of the answers if just these are steered?

Strips of discovery say which heads look. Each kind of heads is steered at the strength that is its best on the strips of
selection: what a strength breaks cannot be compared. The strips of evaluation have no part in either.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import NotRequired, cast

import numpy as np
from typing_extensions import TypedDict

from experiments.data.sources import Purpose
from experiments.paper.causes import answers
from experiments.paper.causes.answers import UNSTEERED, Groups, hits
from experiments.paper.e1_discovery import panel_questions
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import (
    ConditionRow,
    Counted,
    Share,
    UnsteeredRow,
    baseline,
    clusters,
    condition,
    controls,
    estimated,
    least_sufficient,
    numbered_draws,
    provenance,
    shared,
)
from gaze.discovery.scores import CREDITS, Mass, per_strip
from gaze.discovery.verdict import Asked, HeldOut, Steered, Verdict, looking, too_few_panels, verdict
from gaze.heads import HeadSet, all_heads
from gaze.statistics import UNATTRIBUTABLE, accuracy
from gaze.steering import engine as asking
from qwen3vl_jax.errors import InputError

BATCH = 8
"""Strips whose attention is read at once."""
CHOICE, STEERING = "choice", "steering"
"""The answers that choose strengths, and those that count."""
STRENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0, 100.0, 10_000.0)
"""Of which each kind of heads gets its best, unless the settings give one."""
TRIED = 3
"""Draws of random heads that choose the strength of all."""
LEAST_LAYERS, LEAST_HEADS = 2, 8


class CriterionRow(TypedDict):
    """One thing that is measured, see `gaze.discovery.verdict.Criterion`."""

    about: str
    what: str
    value: float
    low: float
    high: float
    threshold: float
    state: str


class HeadRow(TypedDict):
    """A head, its scores on the strips that chose it, and how it looks on others."""

    layer: int
    head: int
    scores: dict[str, float]
    routing: float
    lift: float


class VerdictRow(TypedDict):
    """A `gaze.discovery.verdict.Verdict`; its answer is None where its strips cannot tell."""

    answer: str | None
    reason: str
    looks: str
    beside: Sequence[int] | None
    criteria: Sequence[CriterionRow]


class StrengthRow(Counted):
    """Answers on target at one strength, on the strips of selection."""

    strength: float


class SteeringRow(TypedDict):
    """What steering the heads does, at each kind's best strength.

    Attributes:
      strengths: of "gaze", "random" and "all" heads.
      curve: of the gaze heads, on the strips of selection.
      enough: the least strength that reaches 95 % of what the best does; None if that moves no answer.
      conditions: the answers steered with each kind.
      cut: answers about the panel asked for without the gaze heads, and without random ones.
    """

    strengths: dict[str, float]
    curve: list[StrengthRow]
    enough: float | None
    conditions: dict[str, ConditionRow]
    cut: dict[str, Share]


class ExaminedRow(TypedDict):
    """What is known of one checkpoint; `steering` only where heads look."""

    model: str
    revision: str
    layers: int
    heads_per_layer: int
    strips: dict[str, int]
    looking: int
    heads: list[HeadRow]
    profile: list[float]
    lift_profile: list[float]
    unsteered: UnsteeredRow
    asked: Share
    verdict: VerdictRow
    steering: NotRequired[SteeringRow]


def examine(run: Run) -> None:
    """All that one checkpoint has to answer. Raises InputError for a model that has too few heads to compare with others."""
    layers, heads = run.shape
    if layers < LEAST_LAYERS or layers * heads < LEAST_HEADS:
        raise InputError(
            f"{run.settings.model} has {layers} layer(s) of {heads} heads, too few to tell gaze heads from random ones: "
            f"give a model of at least {LEAST_LAYERS} layers and {LEAST_HEADS} heads"
        )
    strips = run.pictures("evaluation")
    attention(run, "evaluation")
    conditions = [answers.alone(run, strips), *answers.asked(run, strips, "none")]
    if some := chosen(run):
        some.save(run.folder / "heads.json")
        choice = run.pictures("selection")
        tries = [
            answers.steered(run, choice, name, kind, strength)
            for name, kind in _kinds(run, some)[: 2 + TRIED]
            for strength in _tried(run)
        ]
        run.generate(CHOICE, choice, [answers.alone(run, choice), *tries])
        best = strengths(run)
        for name, kind in _kinds(run, some):
            conditions.append(answers.steered(run, strips, name, kind, best[_kind(name)]))
            if name != "all":
                conditions += answers.asked(run, strips, name, kind)
    run.generate(STEERING, strips, conditions)


def attention(run: Run, purpose: Purpose) -> Mass:
    """The tensor of discovery on the strips of one purpose, kept in the run's folder."""
    strips = run.pictures(purpose)
    questions = panel_questions(len(strips[0]))
    found: Mass = run.saved(
        run.folder / "attention" / f"{purpose}.npz",
        lambda: {"mass": asking.discover(run.model, run.processor, strips, questions, batch=BATCH)},
        run.digests(strips),
        questions,
    )["mass"]
    return found


def chosen(run: Run) -> HeadSet | None:
    """The heads that look, at most half of all; None if there are none."""
    found, given = attention(run, "discovery"), run.settings
    most = min(given.k or np.inf, run.shape[0] * run.shape[1] // 2)
    heads = looking(found)[: int(most)]
    lift = per_strip(found, CREDITS["lift"]).mean(axis=0)
    scores = tuple(float(lift[head]) for head in heads)
    about = {"strips": given.discovery, "source": given.strips, "seed": given.seed}
    return HeadSet(tuple(heads), scores, "lift", given.model, run.revision, about) if heads else None


def strengths(run: Run) -> dict[str, float]:
    """The least strength at which each kind of heads steers best on the strips of selection."""
    groups = _judged(run, "selection", CHOICE)
    draws = range(min(TRIED, run.settings.draws))
    names = {"gaze": ["gaze"], "all": ["all"], "random": [f"random {draw}" for draw in draws]}
    reached = {
        kind: {
            strength: np.mean([hits(groups[answers.at(name, strength)]).mean() for name in some])
            for strength in _tried(run)
        }
        for kind, some in names.items()
    }
    return {kind: max(_tried(run), key=lambda one: (curve[one], -one)) for kind, curve in reached.items()}


def report(run: Run) -> ExaminedRow:
    """Returns what is known of one checkpoint, from what `examine` saved."""
    discovery, held_out = attention(run, "discovery"), attention(run, "evaluation")
    some, groups = chosen(run), _judged(run, "evaluation", STEERING)
    found = {name: per_strip(discovery, credit).mean(axis=0) for name, credit in CREDITS.items()}
    judged, others = _verdict(run, groups, discovery, held_out)
    alone, panels = groups[UNSTEERED], held_out.shape[-1]
    row: ExaminedRow = {
        "model": run.settings.model,
        "revision": run.revision,
        "layers": run.shape[0],
        "heads_per_layer": run.shape[1],
        "strips": {"discovery": len(discovery), "selection": run.settings.selection, "held_out": len(held_out)},
        "looking": len(some or ()),
        "heads": [
            {
                "layer": layer,
                "head": head,
                "scores": {name: float(scores[layer, head]) for name, scores in found.items()},
                "routing": float(others["routing"][layer, head]),
                "lift": float(others["lift"][layer, head]),
            }
            for layer, head in (some.heads if some else ())
        ],
        "profile": found["gaze"].max(axis=1).tolist(),
        "lift_profile": found["lift"].max(axis=1).tolist(),
        "unsteered": {**provenance(alone[0]), **baseline(alone, panels)},
        "asked": _share(groups["none cut"]),
        "verdict": judged,
    }
    if some:
        row["steering"] = _steering(run, groups, panels)
    return row


def steered_rows(run: Run) -> dict[str, list[Row]]:
    """The answers that count, steered with the heads that look ("gaze") and not ("unsteered"); none if no head looks."""
    if not chosen(run):
        return {}
    rows, name = run.answers(STEERING), answers.at("gaze", strengths(run)["gaze"])
    return {
        kind: [row for row in rows if row["condition"] == title]
        for kind, title in (("gaze", name), (UNSTEERED, UNSTEERED))
    }


def _kinds(run: Run, some: HeadSet) -> list[tuple[str, HeadSet]]:
    drawn = [(f"random {draw}", heads) for draw, heads in enumerate(run.controls(some))]
    return [("gaze", some), ("all", all_heads(*run.shape)), *drawn]


def _tried(run: Run) -> Sequence[float]:
    return STRENGTHS if run.settings.strength is None else (run.settings.strength,)


def _kind(name: str) -> str:
    return name.split()[0]


def _judged(run: Run, purpose: Purpose, part: str) -> Groups:
    return answers.by_name(run.judged(run.pictures(purpose), run.answers(part)))


def _draws(run: Run, groups: Groups) -> tuple[list[list[Row]], list[list[Row]]]:
    """The answers with each draw of random heads: steered, and about the panel asked for without them."""
    names, strength = [f"random {draw}" for draw in range(run.settings.draws)], strengths(run)["random"]
    return [groups[answers.at(name, strength)] for name in names], [groups[f"{name} cut"] for name in names]


def _verdict(run: Run, groups: Groups, discovery: Mass, held_out: HeldOut) -> tuple[VerdictRow, dict[str, np.ndarray]]:
    others = {name: per_strip(held_out, CREDITS[name]).mean(axis=0) for name in ("routing", "lift")}
    if reason := too_few_panels(held_out.shape[-1]):
        return {"answer": None, "reason": f"{reason}.", "looks": "uncertain", "beside": None, "criteria": []}, others
    some, told = chosen(run), groups["none cut"]
    described = [UNATTRIBUTABLE if row["panel"] is None else row["panel"] - 1 for row in told]
    asked = Asked(np.array([row["target"] - 1 for row in told]), np.array(described), clusters(told)[0])
    steered = cut = None
    if some:
        drawn, lost = _draws(run, groups)
        gaze = groups[answers.at("gaze", strengths(run)["gaze"])], groups["gaze cut"]
        steered, cut = (
            Steered(hits(mine), np.stack([hits(rows) for rows in theirs]), clusters(mine)[0])
            for mine, theirs in zip(gaze, (drawn, lost), strict=True)
        )
    found: Verdict = verdict(discovery, held_out, some.heads if some else (), asked, steered, cut, run.settings.seed)
    rows = [cast(CriterionRow, asdict(one)) for one in found.criteria]
    return {
        "answer": found.answer,
        "reason": found.reason,
        "looks": found.looks,
        "beside": None if found.beside is None else [*found.beside],
        "criteria": rows,
    }, others


def _steering(run: Run, groups: Groups, panels: int) -> SteeringRow:
    choice, best = _judged(run, "selection", CHOICE), strengths(run)
    curve = [(one, estimated(choice[answers.at("gaze", one)], choice[UNSTEERED])) for one in _tried(run)]
    drawn, lost = _draws(run, groups)
    alone = groups[UNSTEERED]
    gaze, everything = (groups[answers.at(name, best[name])] for name in ("gaze", "all"))
    return {
        "strengths": best,
        "curve": [{"strength": strength, **_counted(one)} for strength, one in curve],
        "enough": least_sufficient([point for point in curve if point[0] <= best["gaze"]]),
        "conditions": {
            "gaze": condition(gaze, alone, panels),
            "random": controls(drawn, gaze, alone, panels),
            "all": condition(everything, alone, panels),
        },
        "cut": {"gaze": _share(groups["gaze cut"]), "random": _share(numbered_draws(lost))},
    }


def _share(rows: Sequence[Row]) -> Share:
    return shared(accuracy(hits(rows), *clusters(rows)))


def _counted(found: Counted) -> Counted:
    names = ("accuracy", "interval", "n", "strips", "by_paper")
    return cast(Counted, {name: found[name] for name in names})  # type: ignore[literal-required]
