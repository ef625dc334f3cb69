"""One model of each kind is called what it is, at small sizes; the whole suite is `python -m experiments.error_rates models`."""

import json
from collections import Counter

import numpy as np
import pytest

from experiments.error_rates.models import PANELS, Source, models
from experiments.error_rates.suite import diagnosed, save
from experiments.paper.e1_discovery import panel_questions
from experiments.testbed.broken import write
from gaze.discovery.scores import gaze_score
from gaze.steering.engine import discover
from gaze.testbed import SPARSE
from qwen3vl_jax.load import load

SIZES = {"discovery": 8, "selection": 2, "evaluation": 6, "draws": 4, "static": 9}
SOME = (
    "heads in another order 0",
    "queries scrambled 1",
    "outputs zeroed",
    "outputs scrambled 0",
    "1 further",
    "numbers alike",
)
ALL = {one.name: one for one in models()}


@pytest.fixture(scope="module")
def source():
    return Source.open(SPARSE)


@pytest.fixture(scope="module")
def rows(source, tmp_path_factory):
    found = [*diagnosed([ALL[name] for name in SOME], source, tmp_path_factory.mktemp("models"), SIZES)]
    return {row["name"]: row for row in found}


def scores(source, weights, place):
    write(weights, place, source.folder)
    model, processor = load(place, "float32")
    return gaze_score(discover(model, processor, source.strips[:8], panel_questions(PANELS), batch=8))


@pytest.mark.parametrize("name", SOME)
def test_the_answer_is_the_truth(rows, name):
    assert rows[name]["answer"] == rows[name]["truth"], rows[name]["reason"]


def test_heads_that_look_but_are_disconnected_do_not_count(rows):
    for name in ("outputs zeroed", "outputs scrambled 0"):
        assert (rows[name]["looks"], rows[name]["states"]["look"]) == ("asked", ["holds"] * 3)
        assert rows[name]["states"]["cause"][0] == "fails"


def test_looking_beside_is_told_from_not_looking(rows):
    assert rows["1 further"]["beside"] == [2, 3, 4, 5, 6, 1]
    for name in ("queries scrambled 1", "numbers alike"):
        assert (rows[name]["looks"], rows[name]["advantage"]) == ("nowhere", None)


def test_there_are_models_enough_of_every_kind():
    counted = Counter(one.truth for one in ALL.values() if one.truth != "grey")
    assert counted["yes"] >= 10
    assert counted.total() >= 40
    assert len(ALL) == len(models())


@pytest.mark.parametrize(
    "name", ["heads in another order 1", "norms folded into projections", "values and outputs rescaled"]
)
def test_what_is_to_be_the_same_computes_the_same(source, tmp_path, name):
    before = scores(source, source.weights, tmp_path / "before")
    after = scores(source, ALL[name].make(source), tmp_path / "after")
    np.testing.assert_allclose(np.sort(after, axis=1), np.sort(before, axis=1), atol=0.01)


def test_noise_does_not(source, tmp_path):
    before = scores(source, source.weights, tmp_path / "before")
    after = scores(source, ALL["noise of 0.5"].make(source), tmp_path / "after")
    assert np.abs(np.sort(after, axis=1) - np.sort(before, axis=1)).max() > 0.1


def test_the_page_tells_every_model(rows, tmp_path):
    save([*rows.values()], "testbed-sparse", tmp_path)
    page = (tmp_path / "models.md").read_text()
    assert all(f"| {name} |" in page for name in SOME)
    assert "| yes | 1 | 1 | 0 | 0 |" in page
    assert "**!**" not in page
    assert [row["name"] for row in json.loads((tmp_path / "models.json").read_text())] == [*SOME]
