"""Experiment 9, across checkpoints: where their gaze heads lie, how many it takes, what steering does, and whether they have any.

Every checkpoint gets a run of its own in this one's folder, with fewer strips (arXiv 2606.14703, section 3, for the Qwen3-VL
sizes). The testbed stands beside two that cannot have gaze heads: one never trained, one with its queries scrambled.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from experiments import checkpoints_report, e1_discovery
from experiments.conditions import Condition
from experiments.lab import Lab
from experiments.models import TESTBED, open_model
from experiments.records import Row
from experiments.runner import script
from experiments.settings import Settings
from experiments.sources import Purpose
from experiments.study import every_panel, nowhere
from experiments.summaries import against, baseline, condition, provenance
from experiments.testbed.broken import BROKEN, write
from experiments.testbed.wordings import DISCOVERY, ORDINALS, STATIC, fill
from gaze import answers as asking
from gaze.book import Chapter
from gaze.heads import all_heads
from gaze.nulls import split_half
from gaze.score import CREDITS, Mass, gaze_score, per_strip
from gaze.statistics import Estimate
from gaze.verdict import verdict
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing import Processor

NUMBER, NAME, TITLE = 9, "e9_checkpoints", "Which models have gaze heads, and where?"

STRIPS = {"discovery": 24, "selection": 16, "evaluation": 16}
"""The most strips that a checkpoint gets; what has one number has one shape, and is compiled once."""
BATCH = 8
"""Strips whose attention is read at once."""
STEERING = "steering"
LEAST_LAYERS, LEAST_HEADS = 2, 8


class Examined(Lab):
    """A run with a model that is opened elsewhere."""

    def __init__(self, folder: Path, settings: Settings, open_one: Callable[[], tuple[Qwen3VL, Processor]]) -> None:
        self._open = open_one
        super().__init__(folder, settings)

    def close(self) -> None:
        """Lets go of the model, so that but one is in memory; it is opened again if it is needed."""
        for name in ("_opened", "model", "processor", "judge"):
            self.__dict__.pop(name, None)

    @cached_property
    def _opened(self) -> tuple[Qwen3VL, Processor]:
        return self._open()


def runs(lab: Lab) -> dict[str, Examined]:
    """The run of each checkpoint by a short name, this run's own first."""
    given = lab.settings
    found = {_short(given.model): _run(lab, given.model, lambda: (lab.model, lab.processor))}
    if given.model == TESTBED and not given.models:
        for name in BROKEN:
            found[name] = _run(lab, name, partial(open_model, str(weights_folder(lab, name)), given.dtype, lab.mesh))
    for name in given.models:
        short = _short(name)
        if short in found:
            raise InputError(f"two checkpoints are called {short}: give folders of different names")
        found[short] = _run(lab, name, partial(open_model, name, given.dtype, lab.mesh))
    return found


def collect(lab: Lab) -> None:
    if lab.settings.model == TESTBED and not lab.settings.models:
        for name, make in BROKEN.items():
            if not weights_folder(lab, name).exists():
                weights_folder(lab, name).parent.mkdir(parents=True, exist_ok=True)
                write(make(), weights_folder(lab, name))
    for one in runs(lab).values():
        examine(one)
        one.close()


def sum_up(lab: Lab) -> dict[str, Any]:
    return {"judge": lab.judge.name, "checkpoints": {name: report(one) for name, one in runs(lab).items()}}


def examine(lab: Lab) -> None:
    """All that one checkpoint has to answer: where its heads look, on two sets of strips, and what steering does."""
    layers, heads = lab.shape
    if layers < LEAST_LAYERS or layers * heads < LEAST_HEADS:
        raise InputError(
            f"{lab.settings.model} has {layers} layer(s) of {heads} heads, too few to tell gaze heads from random ones: "
            f"give a model of at least {LEAST_LAYERS} layers and {LEAST_HEADS} heads"
        )
    found = attention(lab, "discovery")
    e1_discovery.ranking(lab, gaze_score(found), "gaze").save(lab.folder / "ranking.json")
    attention(lab, "evaluation")
    e1_discovery.choose(lab)
    strips, chosen = lab.pictures("evaluation"), lab.heads()
    aims, length = every_panel(strips), lab.settings.static
    conditions = [
        Condition("unsteered", STATIC, length, nowhere(strips)),
        Condition("gaze", STATIC, length, aims, chosen),
        *(
            Condition(f"random {draw}", STATIC, length, aims, drawn, tags={"kind": "random", "draw": draw})
            for draw, drawn in enumerate(lab.controls(chosen))
        ),
        Condition("all", STATIC, length, aims, all_heads(*lab.shape), tags={"kind": "all"}),
    ]
    lab.judged(strips, lab.generate(STEERING, strips, conditions))


def attention(lab: Lab, purpose: Purpose) -> Mass:
    """The tensor of discovery on the strips of one purpose, kept in the run's folder."""
    strips = lab.pictures(purpose)
    questions = [fill(DISCOVERY, panel) for panel in range(len(ORDINALS))]
    found: Mass = lab.saved(
        lab.folder / "attention" / f"{purpose}.npz",
        lambda: {"mass": asking.discover(lab.model, lab.processor, strips, questions, batch=BATCH)},
    )["mass"]
    return found


def report(lab: Lab) -> dict[str, Any]:
    """What is known of one checkpoint, from what `examine` saved."""
    seed, heads = lab.settings.seed, lab.heads()
    discovery, held_out = attention(lab, "discovery"), attention(lab, "evaluation")
    found = {name: per_strip(discovery, credit) for name, credit in CREDITS.items()}
    stability = split_half(found["gaze"], len(heads), seed)
    alone, conditions = _steered(lab)
    gaze, everything, placed = conditions["gaze"], conditions["all"], conditions["random"]["against"]
    steered = Estimate(gaze["accuracy"], gaze["interval"][0], gaze["interval"][1], gaze["n"], gaze["strips"])
    said = verdict(discovery, held_out, heads, stability, steered, placed["accuracies"], everything["accuracy"], seed)
    return {
        "model": lab.settings.model,
        "revision": lab.revision,
        "layers": lab.shape[0],
        "heads_per_layer": lab.shape[1],
        "strips": {"discovery": len(discovery), "held_out": len(held_out)},
        "k": len(heads),
        "curve": json.loads((lab.place(e1_discovery.NAME) / "selection.json").read_text(encoding="utf-8")),
        "scores": {name: [float(strips[:, *head].mean()) for head in heads.heads] for name, strips in found.items()},
        "profile": found["gaze"].mean(axis=0).max(axis=1).tolist(),
        "lift_profile": found["lift"].mean(axis=0).max(axis=1).tolist(),
        "stability": asdict(stability),
        "unsteered": alone,
        "conditions": conditions,
        "verdict": asdict(said),
    }


def _steered(lab: Lab) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the model says left alone, and what steering makes of it, with these heads, random ones and all."""
    seed = lab.settings.seed
    groups: dict[str, list[Row]] = {}
    for row in lab.judged(lab.pictures("evaluation"), lab.answers(STEERING)):
        groups.setdefault(row["condition"], []).append(row)
    alone = groups["unsteered"]
    draws = [rows for rows in groups.values() if rows[0].get("kind") == "random"]
    random = condition([row for rows in draws for row in rows], alone, seed)
    return {**provenance(alone[0]), **baseline(alone)}, {
        **{name: condition(groups[name], alone, seed) for name in ("gaze", "all")},
        "random": {**random, "against": against(draws, groups["gaze"], seed)},
    }


def _run(lab: Lab, model: str, open_one: Callable[[], tuple[Qwen3VL, Processor]]) -> Examined:
    given = lab.settings
    fewer = {purpose: min(count, getattr(given, purpose)) for purpose, count in STRIPS.items()}
    mine = replace(given, model=model, models=(), heads=None, k=None, **fewer)  # type: ignore[arg-type]
    return Examined(lab.place(NAME) / _short(model), mine, open_one)


def weights_folder(lab: Lab, name: str) -> Path:
    return lab.folder / NAME / "weights" / name


def _short(model: str) -> str:
    """A name for folders and figures: the last part of a path or of a hub's name."""
    return re.sub(r"[^\w.-]+", "-", Path(model).name) or "model"


def chapter(lab: Lab, results: dict[str, Any]) -> Chapter:
    return checkpoints_report.chapter(results, NUMBER, NAME, TITLE)


if __name__ == "__main__":
    script(sys.modules[__name__])
