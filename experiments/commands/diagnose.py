"""`gaze diagnose`: does a model have gaze heads, which, and what does steering with them do and cost?"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from experiments.commands.diagnosis import Diagnosis, GridRow, SpoiltRow, SteeringCost, TakenRow
from experiments.data.coco import pycocotools
from experiments.paper.e8_natural import pictures
from experiments.paper.examination import chosen, examine, report, steered_rows
from experiments.run.models import source
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
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

STRIPS = {"discovery": 16, "selection": 4, "evaluation": 12, "draws": 20, "images": 12}
"""How many strips, random head sets and photos are enough for a diagnosis, see `experiments.error_rates`."""


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
    examine(run)
    found = report(run)
    return {
        **found,
        "judge": run.judge.name,
        "source": run.settings.strips,
        "cost": costs(run),
        "grid": {"strips": grid(run, run.pictures("evaluation")), "photos": grid(run, _photos(run))},
    }


def costs(run: Run) -> SteeringCost | None:
    """Where the attention of the steered heads comes from, and how many answers are none; None if no head looks."""
    rows, heads = steered_rows(run), chosen(run)
    if heads is None:
        return None
    strips, given, strength = run.pictures("evaluation"), run.settings, rows["gaze"][0]["strength"]
    targets = range(len(strips[0]))
    alone = [_tokens(row) for row in rows["unsteered"]]
    steered = [[_tokens(row) for row in rows["gaze"] if row["target"] == target + 1] for target in targets]

    def read(target: int, said: list[np.ndarray], strength: float) -> np.ndarray:
        how = (given.static, strength, given.mode, "add")
        return attention_cost.shares(run.model, run.processor, strips, STATIC, target, said, heads, *how)

    def measure() -> dict[str, np.ndarray]:
        before = [read(target, alone, 0.0) for target in targets]
        after = [read(target, steered[target], strength) for target in targets]
        return {"before": _mean(before), "after": _mean(after)}

    tokens = [row["tokens"] for some in rows.values() for row in some]
    # Answers of one token have no attention of their own.
    saved = run.saved(
        run.folder / "cost.npz", measure, run.digests(strips), heads, strength, tokens, gaps=("before", "after")
    )
    taken = attention_cost.taken(saved["before"], saved["after"])
    shares = {name: cast(TakenRow, asdict(taken[name])) if name in taken else None for name in attention_cost.ROWS}
    return {
        "prompt": shares["prompt"],
        "answer": shares["answer"],
        "steered": _spoilt(rows["gaze"]),
        "unsteered": _spoilt(rows["unsteered"]),
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


def _tokens(row: Row) -> np.ndarray:
    return np.array(row["tokens"], np.int32)


def _spoilt(rows: Sequence[Row]) -> SpoiltRow:
    texts = [row["text"] for row in rows]
    return {
        "empty": float(np.mean([not text for text in texts])),
        "junk": float(np.mean([is_junk(text) for text in texts])),
        "n": len(texts),
    }


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of what is there; NaN where nothing is."""
    stacked = np.stack(values)
    there = np.isfinite(stacked)
    count = there.sum(axis=0)
    total = np.where(there, stacked, 0.0).sum(axis=0)
    mean: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
