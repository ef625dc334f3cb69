"""`gaze hallucination` on folders made here: what it counts, what it names, and that a killed run ends as one that was not."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter

from experiments.commands.hallucination import hallucination
from experiments.hallucination import collect
from experiments.hallucination.results import HallucinationResults
from experiments.testbed.coco import write_coco
from gaze.hallucination.answers import Answer
from gaze.hallucination.chair_words import chair_rules
from gaze.hallucination.pope_files import SPLITS
from qwen3vl_jax.errors import InputError

Command = Callable[..., int]

GIVEN = {"images": 3, "narration": 12}
ABSENT = "absent.png"
PICTURES = [f"{number:06}.png" for number in (1, 2, 3, 4)]


def questions(split: str) -> list[dict[str, Any]]:
    """Three pictures and one that is not there, two questions each; the same ones are yes in all splits."""
    things = {"random": "kite", "popular": "boat", "adversarial": "umbrella"}
    rows = []
    for name in [*PICTURES[:3], ABSENT]:
        for thing, label in (("dog", "yes"), (things[split], "no")):
            text = f"Is there {'an' if thing[0] in 'aeiou' else 'a'} {thing} in the image?"
            rows.append({"question_id": len(rows), "image": name, "text": text, "label": label})
    return rows


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pope`, `annotations` and `images`; what is drawn goes by names of COCO's, as the words of CHAIR are COCO's."""
    folder = tmp_path_factory.mktemp("hallucination")
    path, images = write_coco(folder, 0, len(PICTURES))
    for one in images.iterdir():  # of one size, so that little is compiled
        Image.open(one).resize((128, 96)).save(one)
    raw = json.loads(path.read_text())
    names = chair_rules().categories
    raw["categories"] = [{**one, "name": names[place % len(names)]} for place, one in enumerate(raw["categories"])]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_toy.json").write_text(json.dumps(raw))
    captions = [{"image_id": one["id"], "caption": "A dog beside two boats."} for one in raw["images"][:3]]
    told = {"images": raw["images"], "annotations": captions}
    (folder / "annotations" / "captions_toy.json").write_text(json.dumps(told))
    pope = folder / "pope"
    pope.mkdir()
    for split in SPLITS:
        (pope / f"toy_pope_{split}.json").write_text(lines(questions(split)))
    (pope / "toy_repope_popular.json").write_text(lines(questions("popular")[1:]))
    path.unlink()
    return folder


@pytest.fixture(scope="module", autouse=True)
def little_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "ROWS", 8)
        yield


def run(places: Path, out: Path) -> None:
    hallucination("testbed-sparse", places / "pope", f"{places / 'annotations'},{places / 'images'}", out, GIVEN)


@pytest.fixture(scope="module")
def whole(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(places, folder)
    return folder


@pytest.fixture(scope="module")
def results(whole: Path) -> HallucinationResults:
    raw = json.loads((whole / "results.json").read_text())
    return TypeAdapter(HallucinationResults).validate_python(raw, strict=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pope_is_scored_by_split_labels_parser_and_arm(results: HallucinationResults) -> None:
    pope = results["pope"]
    assert pope is not None
    assert [(one["questions"], one["asked"]) for one in pope["files"]] == [(8, 6)] * 3
    assert pope["absent"] == [ABSENT]
    assert {one["name"]: one["relabelled"] for one in pope["files"]}["toy_pope_popular"] == 7
    kinds = {(row["split"], row["labels"], row["parser"], row["arm"]) for row in pope["rows"]}
    assert len(kinds) == len(pope["rows"]) == (3 + 1) * 2 * 2
    assert {row["n"] for row in pope["rows"] if row["labels"] == "POPE"} == {6}
    assert {row["n"] for row in pope["rows"] if row["labels"] == "RePOPE"} == {5}
    assert {row["accuracy"]["strips"] for row in pope["rows"]} == {3}
    assert all(row["equal"] for row in pope["recall"])
    assert not {*pope["yes_tokens"]} & {*pope["no_tokens"]}


def test_without_the_picture_all_pictures_get_one_answer(whole: Path, results: HallucinationResults) -> None:
    rows = [json.loads(line) for line in (whole / "pope" / "answers.jsonl").read_text().splitlines()]
    blind = [row for row in rows if row["arm"] == "no image"]
    seen = [row for row in rows if row["arm"] == "plain"]
    assert len(blind) == len({row["question"] for row in blind}) == 4
    assert len(seen) == 3 * 4
    margins = {row["question"]: {one["margin"] for one in seen if one["question"] == row["question"]} for row in blind}
    assert all(len(some) == 3 for some in margins.values())  # each picture has a say
    pope = results["pope"]
    assert pope is not None
    # The same question about every picture: nothing tells yes from no within the split but the thing itself.
    assert {row["auroc"]["value"] for row in pope["rows"] if row["arm"] == "no image" and row["auroc"]} <= {0.0, 1.0}


def test_chair_is_scored_as_written_and_at_a_common_length(results: HallucinationResults) -> None:
    chair = results["chair"]
    assert chair is not None
    assert len(chair["images"]) == 3
    assert {(row["arm"], row["captions"]) for row in chair["rows"] if row["length"] == "as written"} == {
        ("plain", 3),
        ("no image", 3),
    }
    assert chair["untold"] == 1
    assert chair["longest"] == 12


def test_text_inertia_counts_every_word_once(results: HallucinationResults, whole: Path) -> None:
    chair = results["chair"]
    assert chair is not None
    rows = chair["inertia"]["rows"]
    everything = [row["n"] for row in rows if row["part"] is None and row["words"] == "all"]
    assert everything == [sum(row["n"] for row in rows if row["part"] is not None)]
    assert everything == [sum(row["n"] for row in rows if row["words"] != "all")]
    for row in rows:
        assert 0 < row["share"]["value"] < 1
        assert row["lift"]["value"] > 0
        assert row["dependence"]["value"] > 0
        assert row["gaze"] is not None
        assert row["gaze"]["value"] > row["share"]["value"]
    assert [one["at"] for one in chair["inertia"]["swaps"]] == [0.25, 0.5, 0.75]
    assert "Another picture in mid-answer" in (whole / "report.html").read_text()


def test_the_page_says_that_the_numbers_mean_nothing(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    assert "has never learned to answer yes or no" in page
    assert "not byte for byte what the authors released" in page
    assert "2 questions" not in page
    assert "6 questions were not asked" in page


ARMS = ("gaze-pai:amount=2", "vcd")


def test_arms_stand_beside_the_plain_model(
    places: Path, tmp_path: Path, gaze: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    given = ["--coco", f"{places / 'annotations'},{places / 'images'}", "--pope", places / "pope", "--images", 2]
    given += [part for arm in ARMS for part in ("--arm", arm)]
    assert gaze("hallucination", "testbed-sparse", *given, "--out", folder) == 0
    raw = json.loads((folder / "results.json").read_text())
    results = TypeAdapter(HallucinationResults).validate_python(raw, strict=True)
    pope, chair = results["pope"], results["chair"]
    assert pope is not None
    assert chair is not None
    for part in (pope, chair):
        found = {row["arm"]: row for row in part["arms"]}
        assert [*found] == ["plain", *ARMS, "no image"]
        assert [(row["prompt_passes"], row["token_passes"]) for row in found.values()] == [
            (1, 1),
            (1, 1),
            (2, 2),
            (1, 1),
        ]
        boosted, contrasted = (found[name] for name in ARMS)
        assert boosted["added"] is not None
        assert boosted["added"]["value"] > 0.001
        assert contrasted["added"] is None
        assert {row["steered"] and row["steered"]["value"] for row in found.values()} == {1.0, None}
    for row in pope["rows"]:
        steered = row["arm"] in ARMS
        assert (row["paired"] is not None) == (row["gain"] is not None) == (row["offset"] is not None) == steered
    assert sum(row["paired"] is not None for row in chair["rows"]) >= len(ARMS)
    page = (folder / "report.html").read_text()
    assert "What the arms do and cost" in page
    assert "a mere shift" in page
    before = contents(folder)
    monkeypatch.setattr(collect, "answer", lambda *given: pytest.fail("asked again"))
    assert gaze("hallucination", "testbed-sparse", *given, "--out", folder) == 0
    assert contents(folder) == before


class Killed(BaseException):
    """Like a kill, nothing catches it."""


def test_stopped_dead_it_ends_the_same(
    places: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly, seen, fsync = [1, 3, 5], [0], os.fsync

    def synced(number: int) -> None:
        seen[0] += 1
        if seen[0] in deadly:
            os.ftruncate(number, max(os.fstat(number).st_size - 40, 0))  # half a line
            raise Killed
        fsync(number)

    monkeypatch.setattr("os.fsync", synced)
    died = 0
    while died <= len(deadly):
        try:
            run(places, tmp_path / "run")
            break
        except Killed:
            died += 1
            assert not (tmp_path / "run" / "results.json").exists()
    assert died == len(deadly)
    assert contents(tmp_path / "run") == contents(whole)


def test_what_is_there_is_not_asked_again(
    places: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    spoiled = folder / "pope" / "answers.jsonl"
    text = spoiled.read_text().splitlines()
    text[0] = text[0].replace('"arm": "plain"', '"arm": "Plain"')
    spoiled.write_text("\n".join(text) + "\n")
    made = []
    answer = collect.answer
    monkeypatch.setattr(collect, "answer", lambda *given: (made.append(given), answer(*given))[1])
    run(places, folder)
    assert len(made) == 1  # the chunk of the line that was spoiled
    assert "answers.jsonl:1 cannot be read and is left out" in capsys.readouterr().err
    assert contents(folder) == contents(whole)


def test_other_questions_drop_what_others_gave(
    places: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pope = tmp_path / "run", tmp_path / "pope"
    shutil.copytree(whole, folder)
    pope.mkdir()
    rows = questions("random")
    for row in rows:
        row["text"] = row["text"].replace("image?", "imange?")
    (pope / "other_random.json").write_text(lines(rows))
    hallucination("testbed-sparse", pope, f"{places / 'annotations'},{places / 'images'}", folder, GIVEN)
    assert "other settings, heads, pictures or weights gave" in capsys.readouterr().err
    found = json.loads((folder / "results.json").read_text())["pope"]
    assert found["files"][0]["typos"] == 8
    assert {one["equal"] for one in found["recall"]} == {None}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--coco", "{places}/annotations"], "names no two folders"),
        (["--coco", ",{places}/images"], "names no two folders"),
        (["--coco", "{places}/annotations,{places}/none"], "there is no folder"),
        (["--coco", "{places}/images,{places}/images"], "holds no instances"),
        (["--coco", "{places}/none,{places}/images"], "holds no instances"),
        (["--coco", "{places}/annotations,{places}/images", "--pope", "{places}/images"], "holds no POPE file"),
        (["--coco", "{places}/annotations,{places}/images", "--pope", "{places}/none"], "no folder of POPE files"),
        (["--coco", "{places}/annotations,{places}/pope", "--pope", "{places}/pope"], "has none of the pictures"),
        (["--coco", "{places}/annotations,{places}/pope"], "has no picture"),
        (["--coco", "{places}/annotations,{places}/images", "--arm", "opera"], "there is no arm 'opera'"),
        (["--coco", "{places}/annotations,{places}/images", "--arm", "pai:alpha=1"], "has no setting 'alpha'"),
        (["--coco", "{places}/annotations,{places}/images", *("--arm", "vcd") * 2], "--arm vcd is given twice"),
        (["--coco", "{places}/annotations,{places}/images", "--arm", "pai:layers=3-9"], "layers 3-9 are none"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    options: list[str],
    fault: str,
    places: Path,
    gaze: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    given = [option.format(places=places) for option in options]
    assert gaze("hallucination", "testbed-sparse", *given, "--out", out) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert fault in last
    assert not (out / "results.json").exists()


def test_a_spoiled_picture_is_named_and_left_out(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(places / "images", images)
    (images / PICTURES[0]).write_bytes((images / PICTURES[0]).read_bytes()[:200])
    found, lost = collect.find_pictures([*PICTURES, ABSENT, "../x.png"], images)
    assert [*found] == PICTURES[1:]
    assert [name for name, _ in lost] == [PICTURES[0], ABSENT, "../x.png"]
    told = capsys.readouterr().err
    assert f"left out {PICTURES[0]}" in told
    assert f"left out {ABSENT}" in told


def test_a_margin_that_is_no_number_is_not_kept(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "answer", lambda *given: [Answer([1], True, float("nan")) for _ in given[4]])
    with pytest.raises(InputError, match="margin of yes over no is nan"):
        run(places, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "pope" / "answers.jsonl").exists()
