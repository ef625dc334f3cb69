"""Experiment 1, discovery: which heads look at the panel that the prompt asks about (arXiv 2606.14703, section 2).

Keeps the whole tensor [strip, question, layer, head, panel], so that every score, null and interval comes from it later,
without the model; and chooses how many heads to steer on strips of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import cast

import numpy as np

from experiments.paper.reports import discovery as discovery_report
from experiments.paper.reports.discovery import CurveRow, DiscoveryResults, NullRow, StabilityRow, TopRow
from experiments.paper.steering_study import every_panel, nowhere
from experiments.run.cache import read_arrays
from experiments.run.conditions import Condition
from experiments.run.records import Row
from experiments.run.run import Run, Strengths, progress
from experiments.run.settings import PAPER_STRENGTH
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
from gaze.heads import HeadSet, all_heads
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
COARSE = (1, 2, 4, 8, 16, 32, 48, 100, 200, 500)
"""Those at which every strength is tried."""
STRENGTHS = (2.0, 3.0, 5.0, 10.0, PAPER_STRENGTH)
TRIED, DRAWS = 8, 3
"""Strips to choose strengths on, and random sets to choose that of random heads with."""
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


def sweep(
    run: Run, strips: Sequence[Strip], name: str, sets: Sequence[HeadSet], strengths: Sequence[float]
) -> list[CurveRow]:
    """Returns a row of numbers per strength and head set: the static question steered to every panel with it."""
    rows = run.judged(strips, _answers(run, strips, name, sets, strengths))
    groups = grouped(rows, lambda row: row["condition"])
    return [
        {
            "k": len(heads),
            "strength": strength,
            **measured(groups[_title(number, strength)], groups["unsteered"]),
        }
        for strength in strengths
        for number, heads in enumerate(sets)
    ]


def _answers(
    run: Run, strips: Sequence[Strip], name: str, sets: Sequence[HeadSet], strengths: Sequence[float]
) -> list[Row]:
    """The answers that `sweep` judges."""
    length, aims = run.settings.static, every_panel(strips)
    steered = [
        Condition(_title(number, strength), STATIC, length, aims, heads, strength=strength)
        for strength in strengths
        for number, heads in enumerate(sets)
    ]
    return run.generate(name, strips, [Condition("unsteered", STATIC, length, nowhere(strips)), *steered])


def _title(number: int, strength: float) -> str:
    return f"{number} at {strength:g}"


def choose(run: Run) -> None:
    """Writes the head set that all experiments steer, the curve of how many, and how hard each kind is steered.

    What the run's first judge has chosen stays: another judge judges the same answers.
    """
    found, given = run.ranking(), run.settings
    if given.heads is not None:
        sets = [run.given_heads()]
    elif given.k is not None:
        sets = [found.top(given.k)]
    else:
        # Of more than a third of all heads the controls would be nearly the same heads, draw after draw.
        sets = [found.top(count) for count in COUNTS if 3 * count <= len(found)]
    depends = run.digests(run.pictures("selection")), [heads.heads for heads in sets]
    chosen = run.saved(run.place(NAME) / "choice.npz", partial(_choice, run, sets), *depends)
    gaze, random, everything = chosen["strengths"].tolist()
    strengths: Strengths = {"gaze": gaze, "random": random, "all": everything}
    heads = sets[int(chosen["heads"])]
    if given.strength is None:
        for kind, some in _tried(run, sets, heads).items():
            _answers(run, *_tries(run, kind), some, STRENGTHS)  # kept and checked, whoever has chosen by them
    replace(heads, settings={**heads.settings, "strength": gaze}).save(run.folder / "heads.json")
    write_json(run.folder / "strengths.json", strengths)
    write_json(run.place(NAME) / "selection.json", _curve(run, sets, gaze))


def _choice(run: Run, sets: Sequence[HeadSet]) -> dict[str, np.ndarray]:
    """Which of the head sets steers best, and the strengths of gaze heads, random heads and all heads."""
    strength = best_strength(run, "gaze", _tried(run, sets, sets[0])["gaze"])
    curve = [point["accuracy"] for point in _curve(run, sets, strength)]
    best = curve.index(max(curve)) if curve else 0
    tried = _tried(run, sets, sets[best])
    others = [best_strength(run, kind, tried[kind]) for kind in ("random", "all")]
    return {"heads": np.array(best), "strengths": np.array([strength, *others])}


def _tried(run: Run, sets: Sequence[HeadSet], heads: HeadSet) -> dict[str, list[HeadSet]]:
    """The head sets by which the strength of each kind is chosen, the random ones like the `heads`."""
    some = [one for one in sets if len(sets) == 1 or len(one) in COARSE]
    return {"gaze": some, "random": run.controls(heads)[:DRAWS], "all": [all_heads(*run.shape)]}


def _tries(run: Run, kind: str) -> tuple[list[Strip], str]:
    return run.pictures("selection")[:TRIED], f"{NAME}/strengths/{kind}"


def _curve(run: Run, sets: Sequence[HeadSet], strength: float) -> list[CurveRow]:
    """Returns a row for each head set, if there are several to choose from."""
    return sweep(run, run.pictures("selection"), f"{NAME}/selection", sets, [strength]) if len(sets) > 1 else []


def best_strength(run: Run, kind: str, sets: Sequence[HeadSet]) -> float:
    """The least of `STRENGTHS` at which no other steers more answers on the first selection strips, unless one is given.

    Of gaze heads the best set counts, as their number is to be chosen too; of random heads the mean.
    """
    if run.settings.strength is not None:
        return run.settings.strength
    rows = sweep(run, *_tries(run, kind), sets, STRENGTHS)
    shares = [[row["accuracy"] for row in rows if row["strength"] == one] for one in STRENGTHS]
    reached = [mean(some) if kind == "random" else max(some) for some in shares]
    return STRENGTHS[reached.index(max(reached))]


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
