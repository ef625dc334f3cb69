"""Experiment 8, natural images: the gaze held to an object's box, and the question which object is there.

The heads are those found on strips: nothing is learnt from pictures like these (arXiv 2606.14703, section 3; the paper's code
for COCO was not released). An answer hits if the category that it names first, of those in the picture, is that of the box.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool, Int, Shaped

from experiments.data.coco import Coco, names_object, read_coco
from experiments.paper.reports import natural as natural_report
from experiments.paper.reports.natural import NaturalResults, NaturalRow
from experiments.paper.steering_study import controls, every_panel, nowhere, strength
from experiments.run.conditions import Condition
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import (
    Among,
    Counted,
    EstimateRow,
    OutcomeCounts,
    among,
    estimate_row,
    grouped,
    provenance,
    shared,
)
from experiments.testbed.coco import write_coco
from experiments.testbed.testbeds import TESTBEDS
from gaze.judges.outcomes import Outcome, count, is_junk, outcome
from gaze.pictures.alignment import centred, token_grid
from gaze.pictures.strips import Photo
from gaze.prompts import PART_OBJECT
from gaze.report.html import Chapter
from gaze.report.plots_pictures import boxes as draw_boxes
from gaze.statistics import accuracy, difference, group_accuracy
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import new_folder

NUMBER, NAME, TITLE = 8, "e8_natural", "Pictures without panels: held to an object, does the model name it?"

DRAWN = ("random", "all", "gaze, paper", "paper", "all, paper")
"""The kinds of heads to compare with."""
TOKENS = (1, 2, 3, 5, 9, 17)
"""Where the classes of numbers of image tokens of a box begin."""
JUDGE = "names the category"
EXAMPLES = 3


@dataclass(frozen=True)
class Boxes:
    """All boxes of all photos in a row.

    Attributes:
      picture: the number of its photo.
      size: COCO's class of its object.
      tokens: how many image tokens it has.
      centred: whether it holds the centre of one; if not, it has the one that it overlaps most.
    """

    picture: Int[np.ndarray, " box"]
    size: Shaped[np.ndarray, " box"]
    tokens: Int[np.ndarray, " box"]
    centred: Bool[np.ndarray, " box"]


@dataclass(frozen=True)
class Scored:
    """The answers of one condition, one for each box.

    Attributes:
      row: one of them, for where they come from.
      by_paper: whether it hits by the paper's rule, which calls an answer that equals the unsteered one a miss.
      exact: whether it is the name of the category and nothing else.
    """

    row: Row
    hit: Bool[np.ndarray, " box"]
    by_paper: Bool[np.ndarray, " box"]
    exact: Bool[np.ndarray, " box"]
    outcomes: list[Outcome]


def pictures(run: Run) -> Coco:
    """The photos of a run; a testbed's are drawn, written as COCO's files in the run's folder, and read from there.

    Raises InputError for another `photos`, and as `read_coco`.
    """
    spec, given = run.settings.photos, run.settings
    if spec in TESTBEDS:
        folder = run.place(NAME) / "pictures"
        if not folder.exists():
            with new_folder(folder) as partial:
                write_coco(partial, given.seed, given.images, TESTBEDS[spec].draw_scattered)
        return _read(folder / "instances.json", folder / "images", given.images, given.seed)
    kind, _, places = spec.partition(":")
    annotations, comma, images = places.rpartition(",")
    if kind != "coco" or not comma:
        raise InputError(f"--photos {spec} names no pictures with boxes: give a testbed or coco:ANNOTATIONS,FOLDER")
    return _read(Path(annotations), Path(images), given.images, given.seed)


@lru_cache(maxsize=1)
def _read(annotations: Path, images: Path, limit: int, seed: int) -> Coco:
    return read_coco(annotations, images, limit=limit, seed=seed)


def collect(run: Run) -> None:
    coco, heads, length = pictures(run), run.heads(), run.settings.brief
    aims, sets = every_panel(coco.photos), controls(run, heads)
    conditions = [
        Condition("unsteered", PART_OBJECT, length, nowhere(coco.photos)),
        Condition("gaze", PART_OBJECT, length, aims, heads),
        *(
            Condition(
                f"{kind} {draw}",
                PART_OBJECT,
                length,
                aims,
                drawn,
                strength=strength(run, kind),
                tags={"kind": kind, "draw": draw},
            )
            for kind in DRAWN
            for draw, drawn in enumerate(sets[kind])
        ),
    ]
    run.generate(NAME, coco.photos, conditions)
    all_boxes(run, coco)


def all_boxes(run: Run, coco: Coco) -> Boxes:
    """The boxes of the photos that `pictures` gave; what needs the model's processor is kept."""
    photos = coco.photos

    def count_tokens() -> dict[str, np.ndarray]:
        settings = run.processor.settings
        cells = [photo.cells(token_grid(photo, settings), settings.merge_size).sum(axis=1) for photo in photos]
        inside = [centred(photo, box, settings) for photo in photos for box in photo.boxes]
        return {"tokens": np.concatenate(cells), "centred": np.array(inside)}

    found = run.saved(run.place(NAME) / "boxes.npz", count_tokens, run.digests(photos))
    size = np.array([one for sizes in coco.sizes for one in sizes])
    return Boxes(np.repeat(np.arange(len(photos)), [*map(len, photos)]), size, found["tokens"], found["centred"])


def sum_up(run: Run) -> NaturalResults:
    coco = pictures(run)
    boxes, scored = all_boxes(run, coco), score(run, coco.photos)
    drawn = {kind: [one for one in scored.values() if one.row.get("kind") == kind] for kind in DRAWN}
    gaze, alone = scored["gaze"], scored["unsteered"]
    conditions = {
        kind: _condition(some, boxes) for kind, some in {"gaze": [gaze], **drawn, "unsteered": [alone]}.items()
    }
    for kind in ("random", "paper"):
        found, draws = conditions[kind], drawn[kind]
        every = np.ones(boxes.size.size, bool)
        found["against"] = _against(gaze.hit, [one.hit for one in draws], boxes, every)
        found["by_paper"]["against"] = _against(gaze.by_paper, [one.by_paper for one in draws], boxes, every)
        found["against_by_size"] = {
            name: _against(gaze.hit, [one.hit for one in draws], boxes, some) for name, some in _sizes(boxes).items()
        }
    prior, prior_by_size = _over(gaze.hit, alone.hit, boxes)
    return {
        "photos": run.settings.photos,
        "pictures": len(coco.photos),
        "boxes": {
            "all": boxes.size.size,
            **{one: int(np.sum(boxes.size == one)) for one in np.unique(boxes.size).tolist()},
        },
        "left_out": {
            "objects too small": coco.below,
            "crowds": coco.crowds,
            "pictures without objects": coco.empty,
            "unusable": len(coco.skipped),
        },
        "tokens": {
            "least": int(boxes.tokens.min()),
            "median": float(np.median(boxes.tokens)),
            "most": int(boxes.tokens.max()),
            "centreless": int(np.sum(~boxes.centred)),
        },
        "conditions": conditions,
        "over_unsteered": prior,
        "over_unsteered_by_size": prior_by_size,
        "skipped_lines": run.skipped,
    }


def score(run: Run, photos: Sequence[Photo]) -> dict[str, Scored]:
    """The answers of each condition; the unsteered answer to a picture counts for each of its boxes."""
    by_name = {photo.name: photo for photo in photos}
    groups = by_condition(run)
    alone = {row["strip"]: row for row in groups["unsteered"]}
    groups["unsteered"] = [
        {**alone[photo.name], "target": target + 1} for photo in photos for target in range(len(photo))
    ]
    return {
        name: _scored(rows, [by_name[row["strip"]] for row in rows], [alone[row["strip"]]["text"] for row in rows])
        for name, rows in groups.items()
    }


def by_condition(run: Run) -> dict[str, list[Row]]:
    return grouped(run.answers(NAME), lambda row: row["condition"])


def named(photo: Photo, text: str, target: int) -> int | None:
    """The box whose category a text names first, from 0: the target if its category is that one; None if none is named."""
    found = None if is_junk(text) else names_object(text, photo.captions)
    return target if found is not None and photo.captions[found] == photo.captions[target] else found


def _scored(rows: Sequence[Row], photos: Sequence[Photo], unsteered: Sequence[str]) -> Scored:
    outcomes, exact = [], []
    for row, photo, alone in zip(rows, photos, unsteered, strict=True):
        text, target = row["text"], row["target"] - 1
        outcomes.append(outcome(text, named(photo, text, target), target, alone, named(photo, alone, target)))
        exact.append(text.strip().rstrip(".").lower() == photo.captions[target].lower())
    hit = np.array([one.kind == "hit" for one in outcomes])
    same = np.array([one.same_code for one in outcomes])
    return Scored({**rows[0], "judge": JUDGE}, hit, hit & ~same, np.array(exact), outcomes)


def _condition(some: Sequence[Scored], boxes: Boxes) -> NaturalRow:
    """Returns the numbers of a kind of heads, over all its draws."""
    hit, by_paper = (np.concatenate([getattr(one, name) for one in some]) for name in ("hit", "by_paper"))
    picture, draw = np.tile(boxes.picture, len(some)), np.repeat(np.arange(len(some)), boxes.size.size)
    clusters = (picture, draw) if len(some) > 1 else (picture,)
    first = np.array(TOKENS)[np.searchsorted(TOKENS, boxes.tokens, side="right") - 1]

    def by(group: Shaped[np.ndarray, " box"]) -> dict[str, Counted]:
        groups = np.tile(group, len(some))
        ours, papers = (group_accuracy(one, groups, *clusters) for one in (hit, by_paper))
        return {name: {**shared(found), "by_paper": shared(papers[name])} for name, found in ours.items()}

    return {
        **provenance(some[0].row),
        **shared(accuracy(hit, *clusters)),
        "by_paper": shared(accuracy(by_paper, *clusters)),
        "by_size": by(boxes.size),
        "by_tokens": by(first),
        "exact": float(np.mean([one.exact for one in some])),
        "outcomes": cast(OutcomeCounts, asdict(count([found for one in some for found in one.outcomes]))),
    }


def _against(
    gaze: Bool[np.ndarray, " box"],
    draws: Sequence[Bool[np.ndarray, " box"]],
    boxes: Boxes,
    some: Bool[np.ndarray, " box"],
) -> Among:
    """Returns where the gaze heads stand among draws of others, over some of the boxes."""
    return among(gaze[some], [draw[some] for draw in draws], boxes.picture[some])


def _over(
    gaze: Bool[np.ndarray, " box"], alone: Bool[np.ndarray, " box"], boxes: Boxes
) -> tuple[EstimateRow, dict[str, EstimateRow]]:
    """Returns how much more often the gaze heads hit than the model left alone, over all boxes and by size."""

    def gap(some: Bool[np.ndarray, " box"]) -> EstimateRow:
        picture = boxes.picture[some]
        return estimate_row(difference(gaze[some], picture, alone[some], picture))

    return gap(np.ones_like(gaze)), {name: gap(some) for name, some in _sizes(boxes).items()}


def _sizes(boxes: Boxes) -> dict[str, Bool[np.ndarray, " box"]]:
    return {str(name): boxes.size == name for name in np.unique(boxes.size)}


def chapter(run: Run, results: NaturalResults) -> Chapter:
    groups = by_condition(run)
    alone = {row["strip"]: row["text"] for row in groups["unsteered"]}
    shown = [photo for photo in pictures(run).photos if len(photo) > 1][:EXAMPLES]
    examples = {}
    for photo in shown:
        rows = [row for row in groups["gaze"] if row["strip"] == photo.name]
        said = [(row["text"], named(photo, row["text"], row["target"] - 1) == row["target"] - 1) for row in rows]
        examples[photo.name] = draw_boxes(photo.image, photo.boxes, PART_OBJECT, alone[photo.name], said)
    return natural_report.chapter(results, NUMBER, NAME, TITLE, TOKENS, examples)
