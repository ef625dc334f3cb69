"""Experiment 9, across checkpoints: where their gaze heads lie, how many it takes, what steering does, and whether they have any.

Every checkpoint gets a run of its own in this one's folder, with fewer strips (arXiv 2606.14703, section 3, for the Qwen3-VL
sizes). The testbed stands beside two that cannot have gaze heads: one never trained, one with its queries scrambled.
"""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from experiments.data.sources import Purpose
from experiments.paper import e1_discovery
from experiments.paper.reports import checkpoints as checkpoints_report
from experiments.paper.reports.checkpoints import (
    CheckpointResults,
    CheckpointRow,
    LookRow,
    VerdictRow,
)
from experiments.paper.reports.discovery import StabilityRow
from experiments.paper.steering_study import every_panel, nowhere
from experiments.run.conditions import Condition
from experiments.run.run import Run
from experiments.run.summaries import ConditionRow, UnsteeredRow, baseline, condition, controls, grouped, provenance
from experiments.testbed.broken import BROKEN, write
from experiments.testbed.testbeds import TESTBED
from gaze.discovery.nulls import split_half
from gaze.discovery.scores import CREDITS, Mass, gaze_score, per_strip
from gaze.discovery.verdict import look, too_few_panels, verdict
from gaze.heads import all_heads
from gaze.prompts import STATIC
from gaze.report.html import Chapter
from gaze.statistics import Estimate
from gaze.steering import engine as asking
from qwen3vl_jax.errors import InputError

NUMBER, NAME, TITLE = 9, "e9_checkpoints", "Which models have gaze heads, and where?"

STRIPS = {"discovery": 24, "selection": 16, "evaluation": 16}
"""The most strips that a checkpoint gets; what has one number has one shape, and is compiled once."""
BATCH = 8
"""Strips whose attention is read at once."""
STEERING = "steering"
LEAST_LAYERS, LEAST_HEADS = 2, 8


def runs(run: Run) -> dict[str, Run]:
    """The run of each checkpoint by a short name, this run's own first."""
    given = run.settings
    found = {_short(given.model): _run(run, given.model, run.checkpoint)}
    if given.model == TESTBED and not given.models:
        for name in BROKEN:
            found[name] = _run(run, name, weights_folder(run, name))
    for name in given.models:
        short = _short(name)
        if short in found:
            raise InputError(f"two checkpoints are called {short}: give folders of different names")
        found[short] = _run(run, name, name)
    return found


def collect(run: Run) -> None:
    if run.settings.model == TESTBED and not run.settings.models:
        for name, make in BROKEN.items():
            if not weights_folder(run, name).exists():
                weights_folder(run, name).parent.mkdir(parents=True, exist_ok=True)
                write(make(), weights_folder(run, name))
    for one in runs(run).values():
        examine(one)
        one.close()


def sum_up(run: Run) -> CheckpointResults:
    return {"judge": run.judge.name, "checkpoints": {name: report(one) for name, one in runs(run).items()}}


def examine(run: Run) -> None:
    """All that one checkpoint has to answer: where its heads look, on two sets of strips, and what steering does."""
    layers, heads = run.shape
    if layers < LEAST_LAYERS or layers * heads < LEAST_HEADS:
        raise InputError(
            f"{run.settings.model} has {layers} layer(s) of {heads} heads, too few to tell gaze heads from random ones: "
            f"give a model of at least {LEAST_LAYERS} layers and {LEAST_HEADS} heads"
        )
    found = attention(run, "discovery")
    e1_discovery.ranking(run, gaze_score(found), "gaze").save(run.folder / "ranking.json")
    attention(run, "evaluation")
    e1_discovery.choose(run)
    strips, chosen = run.pictures("evaluation"), run.heads()
    aims, length = every_panel(strips), run.settings.static
    conditions = [
        Condition("unsteered", STATIC, length, nowhere(strips)),
        Condition("gaze", STATIC, length, aims, chosen),
        *(
            Condition(f"random {draw}", STATIC, length, aims, drawn, tags={"kind": "random", "draw": draw})
            for draw, drawn in enumerate(run.controls(chosen))
        ),
        Condition("all", STATIC, length, aims, all_heads(*run.shape), tags={"kind": "all"}),
    ]
    run.judged(strips, run.generate(STEERING, strips, conditions))


def attention(run: Run, purpose: Purpose) -> Mass:
    """The tensor of discovery on the strips of one purpose, kept in the run's folder."""
    strips = run.pictures(purpose)
    questions = e1_discovery.panel_questions(len(strips[0]))
    found: Mass = run.saved(
        run.folder / "attention" / f"{purpose}.npz",
        lambda: {"mass": asking.discover(run.model, run.processor, strips, questions, batch=BATCH)},
        run.digests(strips),
        questions,
    )["mass"]
    return found


def report(run: Run) -> CheckpointRow:
    """Returns what is known of one checkpoint, from what `examine` saved."""
    seed, heads = run.settings.seed, run.heads()
    discovery, held_out = attention(run, "discovery"), attention(run, "evaluation")
    found = {name: per_strip(discovery, credit) for name, credit in CREDITS.items()}
    stability = split_half(found["gaze"], len(heads), seed)
    alone, conditions = _steered(run)
    gaze, everything, placed = conditions["gaze"], conditions["all"], conditions["random"]["against"]
    steered = Estimate(gaze["accuracy"], gaze["interval"][0], gaze["interval"][1], gaze["n"], gaze["strips"])
    if reason := too_few_panels(held_out.shape[-1]):
        looks = look(discovery, held_out, heads, seed)
        said: VerdictRow = {
            "has_gaze_heads": None,
            "reason": f"{reason}.",
            "criteria": [],
            "looks": [cast(LookRow, asdict(one)) for one in looks],
        }
    else:
        draws = placed["accuracies"]
        found_out = verdict(discovery, held_out, heads, stability, steered, draws, everything["accuracy"], seed)
        said = cast(VerdictRow, asdict(found_out))
    return {
        "model": run.settings.model,
        "revision": run.revision,
        "layers": run.shape[0],
        "heads_per_layer": run.shape[1],
        "strips": {"discovery": len(discovery), "held_out": len(held_out)},
        "k": len(heads),
        "curve": json.loads((run.place(e1_discovery.NAME) / "selection.json").read_text(encoding="utf-8")),
        "scores": {name: [float(strips[:, *head].mean()) for head in heads.heads] for name, strips in found.items()},
        "profile": found["gaze"].mean(axis=0).max(axis=1).tolist(),
        "lift_profile": found["lift"].mean(axis=0).max(axis=1).tolist(),
        "stability": cast(StabilityRow, asdict(stability)),
        "unsteered": alone,
        "conditions": conditions,
        "verdict": said,
    }


def _steered(run: Run) -> tuple[UnsteeredRow, dict[str, ConditionRow]]:
    """Returns what the model says left alone, and what steering makes of it, with these heads, random ones and all."""
    strips = run.pictures("evaluation")
    panels = len(strips[0])
    groups = grouped(run.judged(strips, run.answers(STEERING)), lambda row: row["condition"])
    alone = groups["unsteered"]
    draws = [rows for rows in groups.values() if rows[0].get("kind") == "random"]
    return {**provenance(alone[0]), **baseline(alone, panels)}, {
        **{name: condition(groups[name], alone, panels) for name in ("gaze", "all")},
        "random": controls(draws, groups["gaze"], alone, panels),
    }


def _run(run: Run, model: str, checkpoint: str | Path) -> Run:
    given = run.settings
    mine = replace(
        given,
        model=model,
        models=(),
        heads=None,
        k=None,
        discovery=min(STRIPS["discovery"], given.discovery),
        selection=min(STRIPS["selection"], given.selection),
        evaluation=min(STRIPS["evaluation"], given.evaluation),
    )
    return Run(run.place(NAME) / _short(model), mine, checkpoint, parent=run)


def weights_folder(run: Run, name: str) -> Path:
    return run.folder / NAME / "weights" / name


def _short(model: str) -> str:
    """A name for folders and figures: the last part of a path or of a hub's name."""
    return re.sub(r"[^\w.-]+", "-", Path(model).name) or "model"


def chapter(run: Run, results: CheckpointResults) -> Chapter:
    return checkpoints_report.chapter(results, NUMBER, NAME, TITLE)
