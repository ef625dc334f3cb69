"""Experiment 8: pictures as COCO files, answers scored box by box, and a run on the testbed with a few pictures."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments.paper import e8_natural as natural
from experiments.paper.e1_discovery import ranking
from experiments.run.records import Records
from experiments.run.run import Run
from experiments.run.settings import presets
from gaze.heads import HeadSet
from gaze.pictures.strips import Photo
from gaze.prompts import PART_OBJECT
from gaze.report.html import Cover, write_report
from gaze.testbed import SPARSE
from qwen3vl_jax.errors import InputError

IMAGES, DRAWS = 6, 2
SETTINGS = replace(presets("testbed-sparse"), images=IMAGES, draws=DRAWS, brief=6, strength=10_000.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in a folder that knows its heads already."""
    reopened = Run(tmp_path_factory.mktemp("natural") / "run", SETTINGS)
    heads = HeadSet.load(SPARSE / "heads.json")
    heads.save(reopened.folder / "heads.json")
    ranking(reopened, heads.to_mask(*reopened.shape).astype(np.float64), "gaze").save(reopened.folder / "ranking.json")
    natural.collect(reopened)
    return reopened


def again(run, folder=None, **changes):
    """The same run opened anew, with no model at hand."""
    reopened = Run(folder or run.folder, replace(SETTINGS, **changes))
    reopened.__dict__["_opened"] = None
    return reopened


def rewrite(path, rows):
    """Answers as if the model had given these."""
    path.unlink()
    chunks = {}
    for row in rows:
        chunks.setdefault(row["chunk"], []).append(row)
    Records(path).add(chunks)


@pytest.fixture
def told(run, tmp_path):
    """A copy of the run, whose answers are what `say(condition, photo, target)` makes of them."""
    folder = tmp_path / "told"
    shutil.copytree(run.folder, folder)

    def tell(say):
        photos = {photo.name: photo for photo in natural.pictures(run).photos}
        path = folder / natural.NAME / "answers.jsonl"
        rows = Records(path).rows()
        for row in rows:
            row["text"] = say(row["condition"], photos[row["strip"]], row["target"] and row["target"] - 1)
        rewrite(path, rows)
        return natural.sum_up(again(run, folder))

    return tell


def largest(photo):
    return int(np.argmax([(right - left) * (bottom - top) for left, top, right, bottom in photo.boxes]))


def test_every_box_is_asked_about_under_every_condition(run):
    photos, rows = natural.pictures(run).photos, run.answers(natural.NAME)
    boxes = {(photo.name, target + 1) for photo in photos for target in range(len(photo))}
    assert len(photos) == IMAGES
    names = {row["condition"] for row in rows}
    drawn = {f"{kind} {draw}" for kind in ("random", "paper") for draw in range(DRAWS)}
    assert names == {"unsteered", "gaze", "all 0", "gaze, paper 0", "all, paper 0", *drawn}
    for name in names - {"unsteered"}:
        assert [(row["strip"], row["target"]) for row in rows if row["condition"] == name] == sorted(
            boxes, key=lambda box: ([photo.name for photo in photos].index(box[0]), box[1])
        )
    assert [row["strip"] for row in rows if row["condition"] == "unsteered"] == [photo.name for photo in photos]
    for row in rows:
        assert (row["model"], row["question"], row["seed"], row["revision"]) == (
            "testbed-sparse",
            PART_OBJECT,
            0,
            run.revision,
        )
        assert (row["heads"] is None) == (row["condition"] == "unsteered")


def test_what_is_saved_is_summed_up_and_told_without_the_model(run, tmp_path):
    reopened = again(run)
    natural.collect(reopened)
    results = natural.sum_up(reopened)
    json.dumps(results, allow_nan=False)
    boxes = results["boxes"]
    assert boxes["all"] == sum(count for size, count in boxes.items() if size != "all")
    for kind, draws in (("gaze", 1), ("random", DRAWS), ("paper", DRAWS), ("all", 1), ("unsteered", 1)):
        one = results["conditions"][kind]
        assert one["n"] == boxes["all"] * draws
        assert {size: found["n"] for size, found in one["by_size"].items()} == {
            size: count * draws for size, count in boxes.items() if size != "all"
        }
        assert sum(found["n"] for found in one["by_tokens"].values()) == one["n"]
        assert one["judge"] == natural.JUDGE
    assert len(results["conditions"]["random"]["against"]["accuracies"]) == DRAWS
    chapter = natural.chapter(reopened, results)
    assert len(chapter.plots) == 3 + natural.EXAMPLES
    assert "%" in chapter.findings[0]
    assert write_report(tmp_path, Cover("t", "s", [], []), [chapter]).exists()


def test_answers_that_name_the_box(told):
    results = told(lambda condition, photo, target: photo.captions[0 if target is None else target] + ".")
    conditions = results["conditions"]
    assert conditions["gaze"]["accuracy"] == conditions["gaze"]["exact"] == 1
    assert {found["accuracy"] for found in conditions["random"]["by_size"].values()} == {1}
    assert not conditions["random"]["against"]["above_all"]


def test_the_answer_of_the_model_left_alone_is_scored_against_every_box(told):
    def say(condition, photo, target):
        return photo.captions[target] if condition == "gaze" else photo.captions[largest(photo)]

    results = told(say)
    conditions, boxes = results["conditions"], results["boxes"]["all"]
    assert conditions["gaze"]["accuracy"] == 1
    assert conditions["unsteered"]["accuracy"] == pytest.approx(IMAGES / boxes)
    assert conditions["random"]["against"]["advantage"]["value"] == pytest.approx(1 - IMAGES / boxes)
    assert results["over_unsteered"]["value"] == pytest.approx(1 - IMAGES / boxes)
    assert conditions["gaze"]["outcomes"]["same_code"] == IMAGES
    assert conditions["random"]["outcomes"]["wrong"] == (boxes - IMAGES) * DRAWS


def test_junk_and_other_words_name_nothing(told):
    results = told(lambda condition, photo, target: "star star star star" if condition == "gaze" else "")
    outcomes = results["conditions"]["gaze"]["outcomes"]
    assert outcomes["junk"] == outcomes["unattributable"] == results["boxes"]["all"]
    assert results["conditions"]["all"]["outcomes"]["empty"] == results["boxes"]["all"]
    assert results["conditions"]["gaze"]["accuracy"] == 0


def test_boxes_of_one_category_are_alike():
    photo = Photo(
        "p", Image.new("RGB", (64, 64)), ((0, 0, 9, 9), (9, 9, 30, 30), (40, 40, 60, 60)), ("dog", "cat", "dog")
    )
    assert natural.named(photo, "A dog.", 2) == 2
    assert natural.named(photo, "A dog.", 0) == 0
    assert natural.named(photo, "A dog beside a cat.", 1) == 0
    assert natural.named(photo, "A tree.", 1) is None
    assert natural.named(photo, "dog dog dog dog", 0) is None


def test_boxes_without_the_centre_of_a_token_are_counted(run):
    coco = natural.pictures(run)
    boxes = natural.all_boxes(again(run), coco)
    assert len(boxes.tokens) == sum(map(len, coco.photos)) == len(boxes.size)
    assert (boxes.tokens >= 1).all()
    assert (boxes.tokens[~boxes.centred] == 1).all()
    assert boxes.picture.tolist() == [number for number, photo in enumerate(coco.photos) for _ in photo.boxes]


def test_pictures_of_ones_own(run, tmp_path):
    folder = run.folder / natural.NAME / "pictures"
    spec = f"coco:{folder / 'instances.json'},{folder / 'images'}"
    own = natural.pictures(Run(tmp_path / "own", replace(SETTINGS, photos=spec)))
    assert [photo.name for photo in own.photos] == [photo.name for photo in natural.pictures(run).photos]
    for number, wrong in enumerate(("coco:nothing", "somewhere", "hub:a,b")):
        with pytest.raises(InputError, match="names no pictures with boxes"):
            natural.pictures(Run(tmp_path / str(number), replace(SETTINGS, photos=wrong)))


def test_an_interrupted_run_ends_as_one_that_was_not(run, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(run.folder, folder)
    path = folder / natural.NAME / "answers.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20])
    assert Records(path).skipped == 1
    reopened = Run(folder, SETTINGS)
    reopened.__dict__["_opened"] = (run.model, run.processor)
    natural.collect(reopened)
    assert path.read_bytes() == whole
