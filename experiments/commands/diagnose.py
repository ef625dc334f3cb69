"""`gaze diagnose`: does a model have gaze heads, which, how stable are they, and what does steering with them cost?"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from experiments.commands.diagnosis import (
    Diagnosis,
    GridRow,
    HeldOut,
    SpoiltRow,
    SteeredHead,
    Strengths,
    TakenRow,
)
from experiments.data.coco import pycocotools
from experiments.paper import e9_checkpoints as checkpoints
from experiments.paper.e8_natural import pictures
from experiments.paper.reports.checkpoints import CheckpointRow, LookRow
from experiments.paper.steering_study import every_panel
from experiments.run.conditions import Condition
from experiments.run.models import source
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
from experiments.run.summaries import Counted, CountedRate, Rate, Share, estimated, least_sufficient
from experiments.testbed.scattered import draw_photos
from experiments.testbed.testbeds import TESTBEDS
from gaze.discovery.verdict import too_few_panels
from gaze.judges.outcomes import is_junk
from gaze.pictures.alignment import alignment
from gaze.pictures.strips import Photo, Strip
from gaze.prompts import STATIC
from gaze.steering import attention_cost
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load.source import open_checkpoint

STRIPS = {"discovery": 16, "selection": 8, "evaluation": 8, "images": 12}
"""How many strips and photos are enough for a diagnosis."""
STRENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0, 10_000.0)


def diagnose(model: str, out: Path | None, given: dict[str, Any]) -> Diagnosis:
    """Examines a model.

    Args:
      model: a converted checkpoint, a Hugging Face folder, a hub name, or "testbed".
      out: a folder to keep everything in and to go on in; without, nothing is kept.
      given: what else of `Settings` a person has chosen; None for what they have not.

    Raises InputError for a folder that is no model, and a model with a single layer or too few heads.
    """
    open_checkpoint(source(model))  # Before anything is written: a folder that is no model shall leave no run behind.
    chosen = resolve_settings(
        {"model": model, **STRIPS, **{name: value for name, value in given.items() if value is not None}}
    )
    if reason := too_few_panels(chosen.panels):
        raise InputError(reason)
    if chosen.photos not in TESTBEDS:
        pycocotools()
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(TemporaryDirectory(prefix="gaze-diagnose-")))
        return _examined(Run(folder, chosen))


def _examined(run: Run) -> Diagnosis:
    checkpoints.examine(run)
    found = checkpoints.report(run)
    verdict, steered = found["verdict"], found["conditions"]
    taken, spoilt, strips = costs(run), spoiled(run), found["strips"]
    return {
        "model": found["model"],
        "revision": found["revision"],
        "judge": run.judge.name,
        "layers": found["layers"],
        "heads_per_layer": found["heads_per_layer"],
        "strips": {
            "source": run.settings.strips,
            "discovery": strips["discovery"],
            "held_out": strips["held_out"],
        },
        "has_gaze_heads": verdict["has_gaze_heads"],
        "reason": verdict["reason"],
        "criteria": [*verdict["criteria"]],
        "heads": _heads(run, found),
        "stability": found["stability"],
        "steering": {
            "gaze": _short(steered["gaze"]),
            "random": _short(steered["random"]),
            "all": _short(steered["all"]),
            "draws": [*steered["random"]["against"]["accuracies"]],
            "draws_by_paper": [*steered["random"]["by_paper"]["against"]["accuracies"]],
        },
        "strength": strengths(run),
        "cost": {
            "prompt": taken["prompt"],
            "answer": taken["answer"],
            "steered": spoilt["steered"],
            "unsteered": spoilt["unsteered"],
        },
        "grid": {"strips": grid(run, run.pictures("evaluation")), "photos": grid(run, _photos(run))},
    }


def _heads(run: Run, found: CheckpointRow) -> list[SteeredHead]:
    looks = {(one["layer"], one["head"]): one for one in found["verdict"]["looks"]}
    scores = found["scores"]
    return [
        {
            "layer": layer,
            "head": head,
            "gaze": scores["gaze"][place],
            "selectivity": scores["selectivity"][place],
            "lift": scores["lift"][place],
            "routing": scores["routing"][place],
            "held_out": _held_out(looks[layer, head]),
        }
        for place, (layer, head) in enumerate(run.heads().heads)
    ]


def _held_out(one: LookRow) -> HeldOut:
    return {"routing": one["routing"], "lift": one["lift"], "p": one["p"], "gazes": one["gazes"]}


def _short(found: Counted) -> CountedRate:
    return {**_rate(found), "by_paper": _rate(found["by_paper"])}


def _rate(found: Share) -> Rate:
    return {"accuracy": found["accuracy"], "interval": found["interval"], "n": found["n"]}


def strengths(run: Run) -> Strengths:
    """What each strength of steering reaches, and the least that is enough."""
    strips, heads = run.pictures("evaluation"), run.heads()
    aims, length = every_panel(strips), run.settings.static
    conditions = [
        Condition(f"strength {strength:g}", STATIC, length, aims, heads, strength=strength) for strength in STRENGTHS
    ]
    rows = run.judged(strips, run.generate("strengths", strips, conditions))
    said = [row for row in run.answers(checkpoints.STEERING) if row["condition"] == "unsteered"]
    alone = run.judged(strips, said)
    found = [estimated([row for row in rows if row["condition"] == one.name], alone) for one in conditions]
    points = [*zip(STRENGTHS, found, strict=True)]
    return {
        "curve": [{"strength": strength, **_short(one)} for strength, one in points],
        "enough": least_sufficient(points),
    }


def costs(run: Run) -> dict[str, TakenRow | None]:
    """Where the attention of the steered heads comes from, by `gaze.steering.attention_cost.ROWS`."""
    strips, heads, given = run.pictures("evaluation"), run.heads(), run.settings
    rows = run.answers(checkpoints.STEERING)
    alone = _said(rows, "unsteered", None)

    def read(target: int, said: list[np.ndarray], strength: float) -> np.ndarray:
        how = (given.static, strength, given.mode, given.bias)
        return attention_cost.shares(run.model, run.processor, strips, STATIC, target, said, heads, *how)

    def measure() -> dict[str, np.ndarray]:
        targets = range(len(strips[0]))
        before = [read(target, alone, 0.0) for target in targets]
        after = [read(target, _said(rows, "gaze", target + 1), run.strength()) for target in targets]
        return {"before": _mean(before), "after": _mean(after)}

    tokens = [row["tokens"] for row in rows]
    # Answers of one token have no attention of their own.
    found = run.saved(run.folder / "cost.npz", measure, run.digests(strips), heads, tokens, gaps=("before", "after"))
    taken = attention_cost.taken(found["before"], found["after"])
    return {name: cast(TakenRow, asdict(taken[name])) if name in taken else None for name in attention_cost.ROWS}


def spoiled(run: Run) -> dict[str, SpoiltRow]:
    """How many answers are none."""
    rows = run.answers(checkpoints.STEERING)
    texts = {
        name: [row["text"] for row in rows if row["condition"] == condition]
        for name, condition in (("steered", "gaze"), ("unsteered", "unsteered"))
    }
    return {
        name: {
            "empty": float(np.mean([not text for text in some])),
            "junk": float(np.mean([is_junk(text) for text in some])),
            "n": len(some),
        }
        for name, some in texts.items()
    }


def grid(run: Run, pictures: Sequence[Strip] | Sequence[Photo]) -> GridRow:
    """How panels or boxes fall on the grid of image tokens."""
    found = [alignment(picture, run.processor.settings) for picture in pictures]
    tokens = np.concatenate([one.tokens for one in found])
    return {
        "pictures": len(found),
        "resized": sum(one.resized for one in found),
        "cell": found[0].cell,
        "tokens": {"least": int(tokens.min()), "median": float(np.median(tokens)), "most": int(tokens.max())},
        "aligned": sum(one.aligned for one in found),
        "off": max(distance for one in found for distance in (*one.off, 0.0)),
        "centreless": sum(one.centreless for one in found),
    }


def _photos(run: Run) -> list[Photo]:
    given = run.settings
    if given.photos not in TESTBEDS:
        return pictures(run).photos
    return draw_photos(given.seed, "evaluation", given.images, TESTBEDS[given.photos].draw_scattered)


def _said(rows: Sequence[Row], condition: str, target: int | None) -> list[np.ndarray]:
    return [
        np.array(row["tokens"], np.int32) for row in rows if (row["condition"], row["target"]) == (condition, target)
    ]


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of what is there; NaN where nothing is."""
    stacked = np.stack(values)
    there = np.isfinite(stacked)
    count = there.sum(axis=0)
    total = np.where(there, stacked, 0.0).sum(axis=0)
    mean: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
