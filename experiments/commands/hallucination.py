"""`gaze hallucination`: POPE and CHAIR on a checkpoint, with the picture and without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from experiments.data.sources import natural
from experiments.hallucination import page
from experiments.hallucination.collect import (
    DESCRIBE,
    Asked,
    PictureFile,
    check_folder,
    find_pictures,
    generate,
    is_present,
    passes,
)
from experiments.hallucination.inertia import text_inertia
from experiments.hallucination.results import (
    ArmRow,
    ChairResults,
    HallucinationResults,
    PopeResults,
    arm_rows,
    chair_rows,
    pope_files,
    pope_rows,
    recall_checks,
)
from experiments.run.models import source
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.settings import is_testbed, resolve_settings
from experiments.testbed.testbeds import TESTBEDS, find_testbed
from gaze.hallucination.answers import BLIND, PLAIN, Arm, yes_no
from gaze.hallucination.arms import ArmModel, make_arm, parse_arm
from gaze.hallucination.chair_files import CocoTruth, read_truth
from gaze.hallucination.chair_words import ChairRules, chair_rules
from gaze.hallucination.pope_files import PopeSplit, read_pope
from gaze.heads import HeadSet
from gaze.report.html import write_report
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_json
from qwen3vl_jax.load.source import open_checkpoint

LONGEST, IMAGES = 512, 500
"""The usual protocol of CHAIR: tokens of a description, and how many pictures."""


class CocoPlaces(NamedTuple):
    """Where COCO lies: a folder of annotations and one of pictures."""

    annotations: Path
    images: Path

    @classmethod
    def parse(cls, text: str) -> "CocoPlaces":
        annotations, comma, images = text.rpartition(",")
        if not (comma and annotations.strip() and images.strip()):
            raise InputError(f"--coco {text!r} names no two folders: give ANNOTATIONS,IMAGES as annotations,val2014")
        return cls(Path(annotations), Path(images))


def hallucination(
    model: str, pope: Path | None, coco: str, out: Path, given: dict[str, Any], arms: Sequence[str] = ()
) -> Path:
    """Measures a model and writes results.json and report.html in `out`; what is there of an earlier try is not asked again.

    Args:
      arms: what steers it, see `gaze.hallucination.arms`; beside the plain model and the one without pictures.

    Raises InputError for files that cannot be used, before anything is written.
    """
    places, rules = CocoPlaces.parse(coco), chair_rules()
    _check_arms(arms)
    splits = None if pope is None else read_pope(pope)
    check_folder(places.images)
    truth = read_truth(places.annotations, rules)
    open_checkpoint(source(model))
    longest = {} if is_testbed(model) else {"narration": LONGEST}
    chosen = {name: value for name, value in given.items() if value is not None}
    spec = f"coco:{places.annotations},{places.images}"
    run = Run(out, resolve_settings({"model": model, "photos": spec, "images": IMAGES, **longest, **chosen}))
    gaze = _gaze_heads(run)
    known = ArmModel(run.model.config, tuple(run.processor.stop_tokens), gaze)
    all_arms = [PLAIN, *(make_arm(text, known) for text in arms), BLIND]
    results: HallucinationResults = {
        "model": run.settings.model,
        "revision": run.revision,
        "seed": run.settings.seed,
        "dtype": str(run.model.dtype),
        "pope": None if splits is None else _pope(run, splits, places, all_arms),
        "chair": _chair(run, truth, places, rules, all_arms, gaze),
    }
    write_json(run.folder / "results.json", results)
    report = write_report(run.folder, page.cover(results), page.chapters(results))
    click.echo(f"Report: {report}")
    return report


def _check_arms(arms: Sequence[str]) -> None:
    for place, text in enumerate(arms):
        parse_arm(text)
        if text in arms[:place]:
            raise InputError(f"--arm {text} is given twice: give each arm once")


def _gaze_heads(run: Run) -> HeadSet | None:
    if run.settings.heads is not None:
        return run.given_heads()
    name = find_testbed(run.settings.model)
    if name is None:
        return None
    heads = HeadSet.load(TESTBEDS[name].checkpoint / "heads.json", run.settings.k)
    return heads if heads.revision == run.revision else None  # or other weights of that shape


def _arm_rows(
    run: Run, arms: Sequence[Arm], rows: Sequence[Row], pictures: Mapping[str, PictureFile], asked: Sequence[Asked]
) -> list[ArmRow]:
    name, text = asked[0]
    return arm_rows(arms, rows, {arm.name: passes(run, arm, pictures[name], text) for arm in arms})


def _pope(run: Run, splits: Sequence[PopeSplit], places: CocoPlaces, arms: Sequence[Arm]) -> PopeResults:
    questions = [question for split in splits for question in split.questions]
    pictures, lost = find_pictures(dict.fromkeys(question.image for question in questions), places.images)
    if not pictures:
        raise InputError(
            f"{places.images} has none of the pictures that POPE asks about: give the folder that has them"
        )
    asked: list[Asked] = [*dict.fromkeys((one.image, one.text) for one in questions if one.image in pictures)]
    rows = generate(run, "pope", arms, asked, pictures, run.settings.brief)
    there, tokens = {*pictures}, yes_no(run.processor)
    scored = pope_rows(splits, rows, there, arms)
    return {
        "files": pope_files(splits, there),
        "absent": [name for name, _ in lost],
        "yes_tokens": [*tokens.yes],
        "no_tokens": [*tokens.no],
        "whole_words": tokens.whole,
        "arms": _arm_rows(run, arms, rows, pictures, asked),
        "rows": scored,
        "recall": recall_checks(scored),
    }


def _chair(
    run: Run,
    truth: CocoTruth,
    places: CocoPlaces,
    rules: ChairRules,
    arms: Sequence[Arm],
    gaze: HeadSet | None,
) -> ChairResults:
    names, absent = _drawn(truth, places, run.settings.images, run.settings.seed)
    pictures, lost = find_pictures(names, places.images)
    if not pictures:
        raise InputError(
            f"{places.images} has no picture of {places.annotations} that can be read: give both of one COCO"
        )
    asked: list[Asked] = [(name, DESCRIBE) for name in sorted(pictures, key=natural)]
    rows = generate(run, "chair", arms, asked, pictures, run.settings.narration)
    scored, wordless = chair_rows(rules, rows, asked, truth.objects, arms)
    return {
        "question": DESCRIBE,
        "longest": run.settings.narration,
        "images": [name for name, _ in asked],
        "absent": absent + len(lost),
        "untold": truth.untold,
        "wordless": wordless,
        "arms": _arm_rows(run, arms, rows, pictures, asked),
        "inertia": text_inertia(run, asked, pictures, rows, rules, gaze),
        "rows": scored,
    }


def _drawn(truth: CocoTruth, places: CocoPlaces, count: int, seed: int) -> tuple[list[str], int]:
    """Names of annotated pictures in a seeded order, up to so many that are there; and how many of those passed are not."""
    names = sorted(truth.objects, key=natural)
    found: list[str] = []
    absent = 0
    for place in np.random.default_rng(seed).permutation(len(names)).tolist():
        if len(found) == count:
            break
        if is_present(names[place], places.images):
            found.append(names[place])
        else:
            absent += 1
    return found, absent
