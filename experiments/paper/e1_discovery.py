"""Experiment 1, discovery: which heads look at the panel that the prompt asks about (arXiv 2606.14703, section 2).

Keeps the whole tensor [strip, question, layer, head, panel], so that every score, null and interval comes from it later,
without the model; and chooses how many heads to steer on strips of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from experiments.data.sources import Purpose
from experiments.paper.reports import discovery as discovery_report
from experiments.paper.reports.discovery import CurveRow, DiscoveryResults, NullRow, StabilityRow, TopRow
from experiments.paper.steering_study import every_panel, nowhere
from experiments.run.cache import read_arrays
from experiments.run.conditions import Condition
from experiments.run.run import Run, progress
from experiments.run.summaries import grouped, measured
from gaze.discovery.baselines import Elbow, ImageAttention, image_attention, image_heads, localization_heads
from gaze.discovery.nulls import (
    Null,
    permuted_panels,
    relabelled_questions,
    score_interval,
    shuffled_questions,
    split_half,
)
from gaze.discovery.scores import CREDITS, Mass, Scores, per_strip, position_and_content, rank
from gaze.heads import HeadSet
from gaze.pictures.compose import permuted
from gaze.pictures.strips import Strip
from gaze.prompts import DISCOVERY, STATIC, fill
from gaze.report.html import Chapter
from gaze.steering import engine as asking
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import whole_file, write_json

NUMBER, NAME, TITLE = 1, "e1_discovery", "Which heads look at the panel that is asked about?"

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 50, 75, 100, 125, 150, 200, 300, 500, 1000)
"""Numbers of heads that are tried: the paper's sweeps, with more at the low end."""
STRIPS = 10
"""Strips that are looked at, and saved, at once."""
SHOWN = 10
"""Heads in tables."""
NULL_DRAWS = 1000
ELBOWS: tuple[Elbow, ...] = ("index", "value")
NULLS = {
    "shuffled questions": shuffled_questions,
    "permuted panels": permuted_panels,
    "relabelled questions": relabelled_questions,
}
BASELINES = ("image", "localization-index", "localization-value")


def collect(run: Run) -> None:
    if run.settings.heads is not None:
        run.given_heads()  # if they cannot be used, that is told before anything is done
    strips = run.pictures("discovery")
    attend(run, "attention", strips)
    orders = shuffles(run, len(strips))
    attend(run, "shuffled", [permuted(strip, order.tolist()) for strip, order in zip(strips, orders, strict=True)])
    rankings = {name: ranking(run, scores(run, name), name) for name in CREDITS}
    looked = looking(run)
    rankings["image"] = image_heads(looked)
    for elbow in ELBOWS:
        rankings[f"localization-{elbow}"] = localization_heads(looked, elbow)
    for name, heads in rankings.items():
        heads.save(ranking_file(run, name))
    rankings["gaze"].save(run.folder / "ranking.json")
    rankings["gaze"].save_ranking(run.folder / "gaze_head_ranking.json")
    with whole_file(run.folder / "gaze_scores.npy") as half, half.open("wb") as file:  # as the paper's scripts read it
        np.save(file, scores(run, "gaze").astype(np.float32), allow_pickle=False)
    choose(run)


def attend(run: Run, name: str, strips: Sequence[Strip]) -> None:
    """Saves the attention of every head under the six questions, and how it looks at the picture as a whole."""
    questions = panel_questions(len(strips[0]))
    place = run.place(NAME)
    starts = range(0, len(strips), STRIPS)
    with progress(name, len(starts)) as done:
        for start in starts:
            some = strips[start : start + STRIPS]
            size = min(STRIPS, len(strips))
            make = partial(_attention, run, some, questions, size)
            run.saved(place / name / f"{start:05}.npz", make, run.digests(some), questions, size)
            done(1)


def panel_questions(panels: int) -> list[str]:
    """Returns the question of discovery for each panel of a strip of so many."""
    return [fill(DISCOVERY, panel, panels) for panel in range(panels)]


def mass(run: Run, name: str = "attention") -> Mass:
    """The tensor [strip, question, layer, head, panel] of a run in float32; kept in float16."""
    return _concatenated(run, name, "mass").astype(np.float32)


def scores(run: Run, name: str) -> Scores:
    """The score of every head by one of the names in `gaze.discovery.scores.CREDITS`."""
    found: Scores = by_strip(run, name).mean(axis=0)
    return found


def by_strip(run: Run, name: str) -> np.ndarray:
    """The same for every strip by itself: [strip, layer, heads]."""
    return _concatenated(run, "attention", "gaze") if name == "gaze" else per_strip(mass(run), CREDITS[name])


def looking(run: Run) -> ImageAttention:
    """How every head looks at the picture, whatever is asked."""
    return ImageAttention(_concatenated(run, "attention", "image"), _concatenated(run, "attention", "entropy"))


def ranking(run: Run, scores: np.ndarray, score: str) -> HeadSet:
    """Every head, best score first."""
    rows = rank(scores)
    return HeadSet(
        tuple((layer, head) for layer, head, _ in rows),
        tuple(score for _, _, score in rows),
        score,
        run.settings.model,
        run.revision,
        {
            "question": DISCOVERY,
            "strips": run.settings.discovery,
            "source": run.settings.strips,
            "seed": run.settings.seed,
        },
    )


def ranking_file(run: Run, name: str) -> Path:
    """Where all heads stand by one of the scores, or by one of `BASELINES`."""
    return run.place(NAME) / "rankings" / f"{name}.json"


def shuffles(run: Run, count: int) -> np.ndarray:
    """For each strip an order of its panels."""
    rng = np.random.default_rng([run.settings.seed, 4])
    return np.stack([rng.permutation(run.settings.panels) for _ in range(count)])


def sweep(run: Run, purpose: Purpose, name: str, head_sets: dict[str, HeadSet]) -> list[CurveRow]:
    """Returns a row of numbers per head set: the static question steered to every panel with it."""
    strips = run.pictures(purpose)
    conditions = [
        Condition("unsteered", STATIC, run.settings.static, nowhere(strips)),
        *(
            Condition(title, STATIC, run.settings.static, every_panel(strips), some)
            for title, some in head_sets.items()
        ),
    ]
    groups = grouped(run.judged(strips, run.generate(name, strips, conditions)), lambda row: row["condition"])
    return [
        {"name": title, "k": len(heads), **measured(groups[title], groups["unsteered"])}
        for title, heads in head_sets.items()
    ]


def choose(run: Run) -> None:
    """Writes the head set that all experiments steer, and the curve that it was chosen by."""
    found, given = run.ranking(), run.settings
    curve: list[CurveRow] = []
    if given.heads is not None:
        heads = run.given_heads()
    elif given.k is not None:
        heads = found.top(given.k)
    else:
        # More than half of all heads could not be compared with as many others.
        counts = [count for count in COUNTS if 2 * count <= len(found)]
        curve = sweep(run, "selection", f"{NAME}/selection", {f"top {count}": found.top(count) for count in counts})
        heads = found.top(max(curve, key=lambda point: (point["accuracy"], -point["k"]))["k"])
    heads.save(run.folder / "heads.json")
    write_json(run.place(NAME) / "selection.json", curve)


def sum_up(run: Run) -> DiscoveryResults:
    seed, heads, attention = run.settings.seed, run.heads(), mass(run)
    found = {name: by_strip(run, name) for name in CREDITS}
    best = {name: ranking(run, strips.mean(axis=0), name).heads[: len(heads)] for name, strips in found.items()}
    return {
        **run.provenance(DISCOVERY, heads),
        "strips": len(attention),
        "shared": run.sources["discovery"].shared,
        "skipped": [list(entry) for entry in run.sources["discovery"].skipped],
        "chosen": [list(head) for head in heads.heads],
        "top": _top(run, found),
        "scores": {
            name: {
                "stability": cast(StabilityRow, asdict(split_half(strips, len(heads), seed))),
                "shared_with_gaze": len({*best[name]} & {*best["gaze"]}),
                **_null(shuffled_questions(attention, CREDITS[name], seed, NULL_DRAWS), len(heads)),
            }
            for name, strips in found.items()
        },
        "nulls": {
            name: _null(test(attention, CREDITS["gaze"], seed, NULL_DRAWS), len(heads)) for name, test in NULLS.items()
        },
        "baselines": {
            name: len({*HeadSet.load(ranking_file(run, name)).heads[: len(heads)]} & {*best["gaze"]})
            for name in BASELINES
        },
        "curve": json.loads((run.place(NAME) / "selection.json").read_text(encoding="utf-8")),
    }


def _top(run: Run, found: dict[str, np.ndarray]) -> list[TopRow]:
    """The best heads: their scores, and whether they look at a place or at what used to be there."""
    low, high = score_interval(found["gaze"])
    moved = mass(run, "shuffled")
    place, content = position_and_content(moved, shuffles(run, len(moved)))
    return [
        {
            "layer": layer,
            "head": head,
            "gaze": float(found["gaze"][:, layer, head].mean()),
            "selectivity": float(found["selectivity"][:, layer, head].mean()),
            "lift": float(found["lift"][:, layer, head].mean()),
            "routing": float(found["routing"][:, layer, head].mean()),
            "interval": [float(low[layer, head]), float(high[layer, head])],
            "at_place": float(place[layer, head]),
            "at_content": float(content[layer, head]),
        }
        for layer, head in run.ranking().heads[:SHOWN]
    ]


def _null(null: Null, count: int) -> NullRow:
    contrast = null.contrast(count)
    return {
        "real": contrast.real,
        "null": contrast.same_heads,
        "null_best": contrast.own_heads,
        "ratio": contrast.ratio,
        "p_any": null.p_any(),
        "above": int(null.above().sum()),
    }


def _attention(run: Run, strips: Sequence[Strip], questions: Sequence[str], batch: int) -> dict[str, np.ndarray]:
    """What is saved of some strips."""
    model, processor = run.model, run.processor
    found = asking.discover(model, processor, strips, questions, batch=batch)
    whole = image_attention(model, processor, strips, questions, batch=batch)
    exact = per_strip(found, CREDITS["gaze"])  # ranks must not depend on what half precision rounds away
    return {"mass": found.astype(np.float16), "gaze": exact, "image": whole.mass, "entropy": whole.entropy}


def _concatenated(run: Run, name: str, part: str) -> np.ndarray:
    files = sorted((run.place(NAME) / name).glob("*.npz"))
    if not files:
        raise InputError(f"{run.folder} has no attention yet: run experiment 1, discovery, in it first")
    return np.concatenate([read_arrays(file)[part] for file in files])


def chapter(run: Run, results: DiscoveryResults) -> Chapter:
    null = shuffled_questions(mass(run), CREDITS["gaze"], run.settings.seed, 50).drawn
    return discovery_report.chapter(results, scores(run, "gaze"), mass(run).mean(axis=0), null, (NUMBER, NAME, TITLE))
