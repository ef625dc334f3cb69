"""POPE's files and copies of them: what is read, what is counted, what is refused in one sentence."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaze.hallucination import pope_files
from gaze.hallucination.pope_files import PopeSplit, read_pope, read_split
from qwen3vl_jax.errors import InputError

from ...spoiling import Edit, edits, fuzz, mutations, spoiled

THINGS = ("kite", "dog", "umbrella", "boat")


def entries() -> list[dict[str, Any]]:
    """Questions about two pictures, yes and no by turns, as the official files have them."""
    return [
        {
            "question_id": number + 1,
            "image": f"picture_{number // 4}.jpg",
            "text": f"Is there a{'n' * (thing[0] in 'aeiou')} {thing} in the image?",
            "label": "no" if number % 2 else "yes",
        }
        for number, thing in enumerate(THINGS * 2)
    ]


def write(path: Path, rows: Any, lines: bool = True) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows, indent=4)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in pope_files.SPLITS:
        write(tmp_path / f"coco_pope_{split}.json", entries())
    return tmp_path


def by_split(found: list[PopeSplit]) -> dict[str, PopeSplit]:
    return {one.split: one for one in found}


def test_lines_and_an_array_are_the_same(tmp_path: Path) -> None:
    lines = read_split(write(tmp_path / "a_random.json", entries()))
    array = read_split(write(tmp_path / "b_random.json", entries(), lines=False))
    assert lines.questions == array.questions
    assert (lines.set, lines.split, lines.official, len(lines.questions)) == ("a", "random", None, 8)
    assert [question.label for question in lines.questions[:3]] == [True, False, True]


def test_a_folder_has_its_splits_and_other_files_are_left_alone(folder: Path) -> None:
    (folder / "coco_ground_truth_objects.json").write_text("{")
    (folder / "readme.txt").write_text("random")
    found = read_pope(folder)
    assert sorted(one.name for one in found) == ["coco_pope_adversarial", "coco_pope_popular", "coco_pope_random"]
    assert {one.set for one in found} == {"coco_pope"}


def test_a_released_file_is_known_by_its_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({*pope_files.OFFICIAL}) == len({*pope_files.OFFICIAL.values()}) == 12
    path = folder / "coco_pope_random.json"
    monkeypatch.setitem(pope_files.OFFICIAL, hashlib.sha256(path.read_bytes()).hexdigest(), "coco random")
    assert read_split(path).official == "coco random"
    path.write_text(path.read_text().replace("kite", "kit"))
    assert read_split(path).official is None


def test_the_typo_and_repeated_questions_are_counted(tmp_path: Path) -> None:
    rows = entries()
    rows[0]["text"] = rows[0]["text"].replace("image", "imange")
    rows.append({**rows[1], "question_id": 99})
    found = read_split(write(tmp_path / "x_popular.jsonl", rows))
    assert (found.typos, found.repeated) == (1, 1)
    assert found.questions[0].text.endswith("imange?")  # asked as it stands
    assert found.questions[0].asked[1].endswith("image?")


def test_corrected_labels_lie_beside_the_questions(folder: Path) -> None:
    rows = entries()[:5]
    rows[0]["label"] = "no"
    write(folder / "coco_repope_popular.json", rows)
    found = by_split(read_pope(folder))
    assert found["random"].relabels is None
    relabels = found["popular"].relabels
    assert relabels is not None
    assert len(relabels) == 5
    assert relabels[found["popular"].questions[0].asked] is False
    assert found["popular"].questions[0].label is True


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda rows: rows[2].pop("label"), r"line 3\.label is missing"),
        (lambda rows: rows[2].update(label="maybe"), r"line 3\.label is 'maybe', but .*'yes' or 'no'"),
        (lambda rows: rows[2].update(label="Yes"), r"line 3\.label is 'Yes'"),
        (lambda rows: rows[2].update(label=True), r"line 3\.label is True"),
        (lambda rows: rows[2].update(question_id=1), "several questions of the question_id 1"),
        (lambda rows: rows[2].update(question_id=1.0), "line 3.question_id"),
        (lambda rows: rows[2].update(image="../secret.jpg"), "question 3 .* image '../secret.jpg'"),
        (lambda rows: rows[2].update(image="/etc/passwd"), "folder of pictures"),
        (lambda rows: rows[2].update(image=""), "line 3.image"),
        (lambda rows: rows[2].update(image="a\0.jpg"), "image"),
        (lambda rows: rows[2].update(text=""), "line 3.text"),
        (lambda rows: rows.append({**rows[0], "question_id": 50, "label": "no"}), "question 50 .* labelled yes and no"),
        (lambda rows: rows.clear(), "holds no question"),
        (lambda rows: rows.insert(1, "yes"), "line 2 is 'yes'"),
    ],
)
def test_a_spoiled_file_is_named(folder: Path, spoil: Callable[[Any], object], fault: str) -> None:
    rows = entries()
    spoil(rows)
    path = write(folder / "coco_pope_popular.json", rows)
    with pytest.raises(InputError, match=fault) as error:
        read_pope(folder)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_cannot_be(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="holds no POPE file"):
        read_pope(empty)
    with pytest.raises(InputError, match="there is no folder of POPE files"):
        read_pope(empty / "none")
    write(empty / "coco_repope_random.json", entries())
    with pytest.raises(InputError, match="holds no POPE file"):
        read_pope(empty)
    write(empty / "coco_pope_popular.json", entries())
    with pytest.raises(InputError, match="no coco_pope_random"):
        read_pope(empty)
    strange = entries()
    strange[0]["text"] = "Is there a lamp in the image?"
    write(folder / "coco_repope_random.json", strange)
    with pytest.raises(InputError, match=r"coco_repope_random labels .*lamp.* does not ask"):
        read_pope(folder)
    (folder / "coco_repope_random.json").unlink()
    write(folder / "coco_pope_random.jsonl", entries())
    with pytest.raises(InputError, match=r"as \.json and as \.jsonl"):
        read_pope(folder)


def test_a_line_that_is_no_json_is_named(folder: Path) -> None:
    path = folder / "coco_pope_random.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:-5], *lines[4:]]))
    with pytest.raises(InputError, match=r"line 4 of .*coco_pope_random"):
        read_pope(folder)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    write(folder / "coco_pope_random.json", entries())
    write(folder / "coco_pope_popular.json", entries(), lines=False)
    write(folder / "coco_repope_popular.json", entries()[:3])
    return folder


@fuzz(120, 5000)
@given(name=st.sampled_from(["coco_pope_random", "coco_pope_popular", "coco_repope_popular"]), edit=edits())
def test_spoiled_bytes_are_read_or_refused(fuzzed: Path, name: str, edit: Edit) -> None:
    spoiled(fuzzed, fuzzed / f"{name}.json", edit, read_pope)


@fuzz(120, 5000)
@given(lines=st.booleans(), mutate=mutations())
def test_spoiled_values_are_read_or_refused(fuzzed: Path, lines: bool, mutate: Callable[[Any], Any]) -> None:
    rows = mutate(entries())
    name = "coco_pope_random.json" if lines else "coco_pope_popular.json"
    if lines:
        text = "".join(json.dumps(row) + "\n" for row in rows) if isinstance(rows, list) else json.dumps(rows)
    else:
        text = json.dumps(rows)
    spoiled(fuzzed, fuzzed / name, lambda raw: text.encode(), read_pope)
