"""COCO's annotations for CHAIR: what they say, and what is refused in one sentence."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaze.hallucination.chair_files import read_truth
from gaze.hallucination.chair_words import ChairRules, chair_rules
from qwen3vl_jax.errors import InputError

from ...spoiling import Edit, edits, fuzz, mutations, spoiled

IMAGES = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2, 3)]
INSTANCES = {
    "images": IMAGES,
    "annotations": [{"id": 5, "image_id": 1, "category_id": 18, "iscrowd": 1}, {"image_id": 2, "category_id": 20}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 20, "name": "kite"}],
}
CAPTIONS = {
    "images": IMAGES,
    "annotations": [{"image_id": 1, "caption": "A puppy on a boat."}, {"image_id": 1, "caption": "Two men."}],
}
FILES = {"instances_val.json": INSTANCES, "captions_val.json": CAPTIONS}


@pytest.fixture(scope="module")
def rules() -> ChairRules:
    return chair_rules()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, raw in FILES.items():
        (tmp_path / name).write_text(json.dumps(raw))
    return tmp_path


def test_truth_is_instances_and_what_captions_mention(folder: Path, rules: ChairRules) -> None:
    found = read_truth(folder, rules)
    assert found.objects == {
        "1.jpg": frozenset({"dog", "boat", "person"}),
        "2.jpg": frozenset({"kite"}),
        "3.jpg": frozenset(),
    }
    assert found.untold == 2


def test_train_and_val_are_put_together(folder: Path, rules: ChairRules) -> None:
    other = copy.deepcopy(INSTANCES)
    other["images"] = [{"id": 1, "file_name": "train.jpg"}]
    other["annotations"] = [{"image_id": 1, "category_id": 18}]
    (folder / "instances_train.json").write_text(json.dumps(other))
    assert read_truth(folder, rules).objects["train.jpg"] == frozenset({"dog"})


@pytest.mark.parametrize(
    ("name", "spoil", "fault"),
    [
        ("instances_val.json", lambda raw: raw["annotations"][0].update(image_id=9), "object of image 9"),
        ("instances_val.json", lambda raw: raw["annotations"][0].update(category_id=9), "category 9"),
        ("instances_val.json", lambda raw: raw["categories"][0].update(name="unicorn"), "a category 'unicorn'"),
        ("instances_val.json", lambda raw: raw["images"].append({"id": 1, "file_name": "x"}), "images of the id 1"),
        ("instances_val.json", lambda raw: raw["images"].append({"id": 7, "file_name": "1.jpg"}), "the name '1.jpg'"),
        ("instances_val.json", lambda raw: raw.pop("categories"), "categories is missing"),
        ("instances_val.json", lambda raw: raw["annotations"][0].update(image_id="1"), "annotations.0.image_id"),
        ("captions_val.json", lambda raw: raw["annotations"][0].update(image_id=9), "caption of image 9"),
        ("captions_val.json", lambda raw: raw["annotations"][0].update(caption=None), "annotations.0.caption"),
    ],
)
def test_a_spoiled_file_is_named(
    folder: Path, rules: ChairRules, name: str, spoil: Callable[[Any], object], fault: str
) -> None:
    raw = copy.deepcopy(FILES[name])
    spoil(raw)
    (folder / name).write_text(json.dumps(raw))
    with pytest.raises(InputError, match=fault) as error:
        read_truth(folder, rules)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_both_kinds_are_needed(folder: Path, rules: ChairRules) -> None:
    (folder / "captions_val.json").unlink()
    with pytest.raises(InputError, match=r"holds no captions\*\.json"):
        read_truth(folder, rules)
    with pytest.raises(InputError, match=r"holds no instances\*\.json"):
        read_truth(folder / "none", rules)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotations")
    for name, raw in FILES.items():
        (folder / name).write_text(json.dumps(raw))
    return folder


@fuzz(80, 5000)
@given(name=st.sampled_from([*FILES]), edit=edits(), mutate=mutations(), bytewise=st.booleans())
def test_spoiled_files_are_read_or_refused(
    fuzzed: Path, rules: ChairRules, name: str, edit: Edit, mutate: Callable[[Any], Any], bytewise: bool
) -> None:
    other = edit if bytewise else lambda raw: json.dumps(mutate(FILES[name])).encode()
    spoiled(fuzzed, fuzzed / name, other, lambda folder: read_truth(folder, rules))
