"""`gaze diagnose`: does a model have gaze heads, which, how stable are they, and what does steering with them cost?

What `diagnose` returns, and `gaze diagnose MODEL --json` prints:

    model, revision, judge   which model (a hash of its weights tells the revision), and who judged its answers
    layers, heads_per_layer
    strips                   {source, discovery, held_out}: where they come from, and how many
    has_gaze_heads, reason   the answer, true or false, and a sentence that says why
    criteria                 [{about, what, value, threshold, passed}]: all must hold; see `gaze.discovery.verdict`
    heads                    [{layer, head, gaze, selectivity, lift, routing, held_out: {routing, lift, p, gazes}}]: the heads
                             that are steered, best first, by their scores on the strips that chose them and on others
    stability                {overlap, low, high, chance, spearman, count, splits}: of `gaze.discovery.nulls.split_half`
    steering                 {gaze, random, all}: {accuracy, interval, n, by_paper: {accuracy, interval, n}}, and the accuracy of
                             each draw of random heads (draws, draws_by_paper); by_paper counts an answer that equals the
                             unsteered one as a miss
    strength                 {curve: [{strength, accuracy, interval, n, by_paper}], enough}: the least strength that reaches
                             95 % of what the greatest does; null if that moves no answer to its target
    cost                     {prompt, answer}: {before, after, taken}, attention of the steered heads by `KEYS`, null if
                             there is none; {steered, unsteered}: {empty, junk, n}, shares of the answers
    grid                     {strips, photos}: {pictures, resized, cell, tokens: {least, median, most}, aligned, off, centreless}:
                             how many are resized, and how many have every edge of a panel or box between two tokens; how many
                             pixels the worst edge is off; boxes that hold the centre of no token
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.data.coco import pycocotools
from experiments.paper import e9_checkpoints as checkpoints
from experiments.paper.e8_natural import pictures
from experiments.paper.reports.checkpoints import CheckpointRow
from experiments.paper.steering_study import every_panel
from experiments.run.conditions import Condition
from experiments.run.formatting import COUNTING, ON_TARGET, on_target, percent
from experiments.run.models import TESTBED, source
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
from experiments.run.summaries import PLATEAU, Counted, estimated, least_sufficient
from experiments.testbed.scattered import draw_photos
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


def diagnose(model: str, out: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Examines a model.

    Args:
      model: a converted checkpoint, a Hugging Face folder, a hub name, or "testbed".
      out: a folder to keep everything in and to go on in; without, nothing is kept.
      given: what else of `Settings` a person has chosen; None for what they have not.

    Returns:
      What the head of this file describes: plain JSON.

    Raises InputError for a folder that is no model, and a model with a single layer or too few heads.
    """
    open_checkpoint(source(model))  # Before anything is written: a folder that is no model shall leave no run behind.
    chosen = resolve_settings(
        {"model": model, **STRIPS, **{name: value for name, value in given.items() if value is not None}}
    )
    if reason := too_few_panels(chosen.panels):
        raise InputError(reason)
    if chosen.photos != TESTBED:
        pycocotools()
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(TemporaryDirectory(prefix="gaze-diagnose-")))
        return _examined(Run(folder, chosen))


def _examined(run: Run) -> dict[str, Any]:
    checkpoints.examine(run)
    found = checkpoints.report(run)
    verdict, steered = found["verdict"], found["conditions"]
    return {
        **{name: found[name] for name in ("model", "revision")},
        "judge": run.judge.name,
        **{name: found[name] for name in ("layers", "heads_per_layer")},
        "strips": {"source": run.settings.strips, **found["strips"]},
        **{name: verdict[name] for name in ("has_gaze_heads", "reason")},
        "criteria": [*verdict["criteria"]],
        "heads": _heads(run, found),
        "stability": found["stability"],
        "steering": {
            **{name: _short(steered[name]) for name in ("gaze", "random", "all")},
            "draws": [*steered["random"]["against"]["accuracies"]],
            "draws_by_paper": [*steered["random"]["by_paper"]["against"]["accuracies"]],
        },
        "strength": strengths(run),
        "cost": {**costs(run), **spoiled(run)},
        "grid": {"strips": grid(run, run.pictures("evaluation")), "photos": grid(run, _photos(run))},
    }


def _heads(run: Run, found: CheckpointRow) -> list[dict[str, Any]]:
    looks = {(one["layer"], one["head"]): one for one in found["verdict"]["looks"]}
    return [
        {
            "layer": layer,
            "head": head,
            **{name: values[place] for name, values in found["scores"].items()},
            "held_out": {name: looks[layer, head][name] for name in ("routing", "lift", "p", "gazes")},
        }
        for place, (layer, head) in enumerate(run.heads().heads)
    ]


def _short(found: Counted) -> dict[str, Any]:
    by_paper = found["by_paper"]
    return {
        **{name: found[name] for name in ("accuracy", "interval", "n")},
        "by_paper": {name: by_paper[name] for name in ("accuracy", "interval", "n")},
    }


def strengths(run: Run) -> dict[str, Any]:
    """What each strength of steering reaches, and the least that is enough."""
    strips, heads = run.pictures("evaluation"), run.heads()
    aims, length = every_panel(strips), run.settings.static
    conditions = [
        Condition(f"strength {strength:g}", STATIC, length, aims, heads, strength=strength) for strength in STRENGTHS
    ]
    rows = run.judged(strips, run.generate("strengths", strips, conditions))
    alone = [row for row in run.answers(checkpoints.STEERING) if row["condition"] == "unsteered"]
    found = [
        estimated([row for row in rows if row["condition"] == one.name], alone, run.settings.seed) for one in conditions
    ]
    points = [*zip(STRENGTHS, found, strict=True)]
    return {
        "curve": [{"strength": strength, **_short(one)} for strength, one in points],
        "enough": least_sufficient(points),
    }


def costs(run: Run) -> dict[str, Any]:
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
        after = [read(target, _said(rows, "gaze", target + 1), given.strength) for target in targets]
        return {"before": _mean(before), "after": _mean(after)}

    tokens = [row["tokens"] for row in rows]
    # Answers of one token have no attention of their own.
    found = run.saved(run.folder / "cost.npz", measure, run.digests(strips), heads, tokens, gaps=("before", "after"))
    taken = attention_cost.taken(found["before"], found["after"])
    return {name: asdict(taken[name]) if name in taken else None for name in attention_cost.ROWS}


def spoiled(run: Run) -> dict[str, Any]:
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


def grid(run: Run, pictures: Sequence[Strip] | Sequence[Photo]) -> dict[str, Any]:
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
    return draw_photos(given.seed, "evaluation", given.images) if given.photos == TESTBED else pictures(run).photos


def _said(rows: Sequence[dict[str, Any]], condition: str, target: int | None) -> list[np.ndarray]:
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


def show(found: dict[str, Any]) -> None:
    """Prints a diagnosis for people."""
    console = Console()
    answer = "has gaze heads" if found["has_gaze_heads"] else "has no gaze heads"
    console.print(f"{found['model']} (weights {found['revision']}) {answer}. {found['reason']}")
    console.print(_criteria(found), _chosen(found), _steering(found), _costs(found))
    for line in remarks(found):
        console.print(line)


def _criteria(found: dict[str, Any]) -> Table:
    strips = found["strips"]
    title = f"What must hold, on {strips['held_out']} strips that did not choose the heads"
    table = _table(title, "", "what must hold", "value", "threshold", "holds")
    for one in found["criteria"]:
        numbers = (f"{one[name]:.3f}" for name in ("value", "threshold"))
        table.add_row(one["about"], one["what"], *numbers, "yes" if one["passed"] else "no")
    return table


def _chosen(found: dict[str, Any]) -> Table:
    stability = found["stability"]
    table = _table("The heads", "head", "gaze", "lift", "routing", "lift, held out", "routing, held out", "p")
    for one in found["heads"][:12]:
        held_out = one["held_out"]
        scores = (one["gaze"], one["lift"], one["routing"], held_out["lift"], held_out["routing"], held_out["p"])
        table.add_row(f"L{one['layer']}H{one['head']}", *(f"{score:.3f}" for score in scores))
    table.caption = (
        f"{len(found['heads'])} of {found['layers'] * found['heads_per_layer']} heads. Halves of the strips agree on "
        f"{percent(stability['overlap'])} of them, chance is {percent(stability['chance'])}."
    )
    return table


def _steering(found: dict[str, Any]) -> Table:
    steering, draws, by_paper = (found["steering"], *(found["steering"][name] for name in ("draws", "draws_by_paper")))
    table = _table("Answers that describe the target panel", "steered", *ON_TARGET, "answers")
    names = {"gaze": "these heads", "random": f"random heads, {len(draws)} draws", "all": "all heads"}
    for name, label in names.items():
        table.add_row(label, *on_target(steering[name]), str(steering[name]["n"]))
    table.caption = (
        f"Single draws of random heads reach {percent(min(draws))} to {percent(max(draws))}, by the paper's counting "
        f"{percent(min(by_paper))} to {percent(max(by_paper))}. {COUNTING}"
    )
    return table


def _costs(found: dict[str, Any]) -> Table:
    table = _table("Attention of these heads", "row", "", *attention_cost.KEYS)
    for row, label in (("prompt", "last of the prompt"), ("answer", "of the answer")):
        if one := found["cost"][row]:
            for name, how in (("before", "left alone"), ("after", "steered")):
                table.add_row(label, how, *(percent(one[name][key]) for key in attention_cost.KEYS))
        if one and one["taken"]:
            table.add_row(
                label, "target won from", "", *(percent(one["taken"][key]) for key in attention_cost.KEYS[1:])
            )
    return table


def remarks(found: dict[str, Any]) -> list[str]:
    """What is left to say, a sentence each."""
    enough, spoilt, grids = found["strength"]["enough"], found["cost"]["steered"], found["grid"]
    said = [
        f"A strength of {enough:g} reaches {PLATEAU:.0%} of what {STRENGTHS[-1]:g} does."
        if enough is not None
        else "No strength moves an answer to its target.",
        f"Of the steered answers {percent(spoilt['empty'])} are empty and {percent(spoilt['junk'])} are junk; of the others "
        f"{percent(found['cost']['unsteered']['empty'])} and {percent(found['cost']['unsteered']['junk'])}.",
    ]
    said += [_on_grid(name, kind, grids[name]) for name, kind in (("strips", "panel"), ("photos", "box"))]
    if grids["photos"]["centreless"]:
        said.append(
            f"Boxes that hold the centre of no token: {grids['photos']['centreless']}; they get the one that they overlap most."
        )
    return said


def _on_grid(name: str, kind: str, one: dict[str, Any]) -> str:
    least, most, cell = one["tokens"]["least"], one["tokens"]["most"], one["cell"]
    tokens = f"{least}" if least == most else f"{least} to {most}"
    edges = (
        "every edge falls between two tokens"
        if one["aligned"] == one["pictures"]
        else f"edges are up to {one['off']:.0f} pixels off the tokens' grid, so that some tokens show both sides"
    )
    return (
        f"{one['resized']} of {one['pictures']} {name} are resized; a {kind} has {tokens} image "
        f"tokens of {cell} x {cell} pixels; {edges}."
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    return table
