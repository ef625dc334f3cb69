"""Experiment 9: the testbed has gaze heads; untrained and with its queries scrambled it has none."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from experiments.paper import e9_checkpoints as checkpoints
from experiments.paper.examination import examine
from experiments.run.run import Run
from experiments.run.settings import presets
from experiments.testbed.broken import BROKEN, QUERIES, untrained, write
from gaze.report.html import Cover, write_report
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.weights import tensors

SETTINGS = replace(presets("testbed"), discovery=8, selection=2, evaluation=8, draws=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    reopened = Run(tmp_path_factory.mktemp("checkpoints") / "run", SETTINGS)
    checkpoints.collect(reopened)
    return reopened


@pytest.fixture(scope="module")
def results(run):
    return checkpoints.sum_up(Run(run.folder, SETTINGS))


def stored(folder):
    opened = open_checkpoint(folder)
    return {name: np.array(tensor.to_hf(opened.read(tensor))) for name, tensor in tensors(opened.config).items()}


def small(folder, **text):
    """An untrained model with the testbed's words and another text tower."""
    shape = folder / "shape"
    shutil.copytree(CHECKPOINT, shape)
    config = json.loads((shape / "config.json").read_text())
    config["text_config"] |= text
    config["vision_config"]["deepstack_visual_indexes"] = [0]
    (shape / "config.json").write_text(json.dumps(config))
    write(untrained(shape), folder / "small", shape)
    return folder / "small"


def test_only_the_testbed_has_gaze_heads(results):
    found = results["checkpoints"]
    assert {name: one["verdict"]["answer"] for name, one in found.items()} == {
        "testbed": "yes",
        "untrained": "no",
        "scrambled": "no",
    }
    for name in BROKEN:
        assert found[name]["looking"] == 0
        assert "steering" not in found[name]
        assert any(one["state"] == "fails" for one in found[name]["verdict"]["criteria"] if one["about"] == "look")
        assert max(found[name]["lift_profile"]) < 0.05
    assert len({one["revision"] for one in found.values()}) == 3
    steered = found["testbed"]["steering"]["conditions"]
    assert steered["gaze"]["accuracy"] > steered["random"]["against"]["mean"]["value"]
    assert found["testbed"]["looking"] == len(found["testbed"]["heads"]) == steered["gaze"]["k"]


def test_results_are_plain_and_told_without_the_models(run, results, tmp_path):
    json.dumps(results, allow_nan=False)
    chapter = checkpoints.chapter(Run(run.folder, SETTINGS), results)
    assert len(chapter.findings) == 3
    assert chapter.findings[0].startswith("testbed has gaze heads.")
    assert chapter.findings[1].startswith("untrained has no gaze heads. ")
    criteria = next(table for table in chapter.tables if table.title == "Every criterion")
    assert len(criteria.rows) == sum(len(one["verdict"]["criteria"]) for one in results["checkpoints"].values())
    assert write_report(tmp_path, Cover("t", "s", [], []), [chapter]).exists()


def test_every_number_says_where_it_comes_from(run, results):
    for name, one in results["checkpoints"].items():
        for condition in (one["unsteered"], *one.get("steering", {"conditions": {}})["conditions"].values()):
            assert (condition["model"], condition["revision"]) == (name, one["revision"])
            assert condition["judge"] == "exact"


def test_scrambling_moves_queries_to_other_layers_and_nothing_else(run):
    whole = stored(CHECKPOINT)
    mixed = stored(checkpoints.weights_folder(run, "scrambled"))
    layers, heads, width = 8, 12, 24
    changed = {name for name in whole if not np.array_equal(whole[name], mixed[name])}
    assert changed == {QUERIES.format(layer) for layer in range(layers)}

    def rows(weights):
        return {
            (layer, head): weights[QUERIES.format(layer)].reshape(heads, width, -1)[head].tobytes()
            for layer in range(layers)
            for head in range(heads)
        }

    before = {content: place for place, content in rows(whole).items()}
    after = rows(mixed)
    assert set(after.values()) == before.keys()
    assert all(before[content][0] != layer for (layer, _), content in after.items())


def test_an_untrained_model_is_as_before_training(run):
    weights = stored(checkpoints.weights_folder(run, "untrained"))
    queries = weights[QUERIES.format(0)].astype(np.float32)
    assert queries.std() == pytest.approx(0.02, rel=0.05)
    assert (weights["model.language_model.norm.weight"].astype(np.float32) == 1).all()


def test_models_that_are_named(tmp_path):
    reopened = Run(tmp_path / "run", replace(SETTINGS, models=("a/model-x", "/b/model y")))
    assert [*checkpoints.runs(reopened)] == ["testbed", "model-x", "model-y"]
    assert checkpoints.runs(reopened)["model-x"].settings.model == "a/model-x"
    reopened = Run(tmp_path / "other", replace(SETTINGS, models=("a/same", "b/same")))
    with pytest.raises(InputError, match="two checkpoints are called same"):
        checkpoints.runs(reopened)


def test_a_checkpoint_gets_no_more_strips_than_the_run(tmp_path):
    most = Run(tmp_path / "most", replace(SETTINGS, discovery=500, k=3, heads="h.json"))
    one = checkpoints.runs(most)["testbed"].settings
    assert (one.discovery, one.evaluation, one.k, one.heads) == (checkpoints.STRIPS["discovery"], 8, None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"num_hidden_layers": 1}, "1 layer"),
        ({"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}, "2 layer"),
    ],
)
def test_a_model_that_is_too_small(tmp_path, text, said):
    folder = small(tmp_path, **text)
    one = checkpoints.runs(Run(tmp_path / "run", replace(SETTINGS, models=(str(folder),))))["small"]
    with pytest.raises(InputError, match=f"has {said}.*too few"):
        examine(one)
