"""`diagnose`: what it says of the testbed, in JSON and in words, and what it does not take for a model."""

import json

import numpy as np
import pytest

from experiments.commands.diagnose import diagnose
from experiments.commands.diagnosis import remarks, show
from experiments.paper.examination import STRENGTHS
from gaze.heads import HeadSet
from gaze.steering.attention_cost import KEYS
from qwen3vl_jax.errors import InputError

GIVEN = {"discovery": 8, "selection": 2, "evaluation": 6, "draws": 4, "images": 4, "strips": None}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    kept = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(kept))
        told = diagnose("testbed-sparse", None, GIVEN)
    assert not list(kept.glob("gaze-diagnose-*"))
    return told


def test_the_testbed_has_gaze_heads(found):
    judged, steering = found["verdict"], found["steering"]
    assert (judged["answer"], judged["looks"], judged["beside"]) == ("yes", "asked", None)
    assert {one["about"] for one in judged["criteria"]} == {"answers", "look", "stability", "cause", "need"}
    assert all(one["state"] == "holds" for one in judged["criteria"] if one["about"] != "need")
    assert found["strips"] == {"discovery": 8, "selection": 2, "held_out": 6}
    assert (found["model"], found["judge"], found["source"]) == ("testbed-sparse", "exact", "testbed-sparse")
    assert len(found["heads"]) == found["looking"]
    assert all(one["lift"] > 0.05 and one["routing"] > 0.5 for one in found["heads"])
    lifts = [head["scores"]["lift"] for head in found["heads"]]
    assert lifts == sorted(lifts, reverse=True)
    assert steering["conditions"]["gaze"]["accuracy"] > steering["conditions"]["random"]["against"]["mean"]["value"]
    assert len(steering["conditions"]["random"]["against"]["accuracies"]) == GIVEN["draws"]
    assert steering["cut"]["gaze"]["accuracy"] < found["asked"]["accuracy"]


def test_what_is_steered_are_the_heads_that_look(found):
    heads = HeadSet(tuple((one["layer"], one["head"]) for one in found["heads"]))
    assert found["steering"]["conditions"]["gaze"]["heads"] == heads.fingerprint
    assert found["steering"]["conditions"]["random"]["k"] == len(heads)


def test_it_is_plain_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_strengths_are_chosen_on_other_strips(found):
    steering = found["steering"]
    curve = {one["strength"]: one["accuracy"] for one in steering["curve"]}
    assert tuple(curve) == STRENGTHS
    assert {one["n"] for one in steering["curve"]} == {GIVEN["selection"] * 6}
    best = steering["strengths"]["gaze"]
    assert curve[best] == max(curve.values())
    assert steering["enough"] <= best
    assert curve[steering["enough"]] >= 0.95 * curve[best]
    assert {kind: one["strength"] for kind, one in steering["conditions"].items()} == steering["strengths"]


def test_what_steering_takes(found):
    for row in ("prompt", "answer"):
        one = found["cost"][row]
        for shares in (one["before"], one["after"]):
            assert set(shares) == set(KEYS)
            assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert one["after"]["target"] > one["before"]["target"]
        assert sum(one["taken"].values()) == pytest.approx(1, abs=1e-3)
    assert found["cost"]["steered"] == {"empty": 0.0, "junk": 0.0, "n": 36}
    assert found["cost"]["unsteered"]["n"] == 6


def test_the_grid_of_tokens(found):
    strips, photos = found["grid"]["strips"], found["grid"]["photos"]
    assert (strips["pictures"], strips["resized"], strips["aligned"], strips["off"]) == (6, 0, 6, 0.0)
    assert strips["tokens"]["least"] == strips["tokens"]["most"]
    assert photos["pictures"] == 4
    assert photos["aligned"] == 0
    assert 0.5 < photos["off"] <= photos["cell"] / 2


def test_it_is_told_in_words(found, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    show(found)
    said = capsys.readouterr().out
    head = found["heads"][0]
    assert "testbed" in said
    assert "has gaze heads." in said
    assert f"L{head['layer']}H{head['head']}" in said
    for words in ("random, 4 draws", "left alone", "the best on other strips", "every edge falls between two tokens"):
        assert words in said


def test_what_does_not_steer_is_said(found, capsys, monkeypatch):
    spoilt = {"empty": 0.25, "junk": 0.5, "n": 4}
    steering = {**found["steering"], "enough": None}
    said = remarks({**found, "steering": steering, "cost": {**found["cost"], "steered": spoilt}})
    assert said[0] == "No strength moves an answer to its target."
    assert "25.0% are empty and 50.0% are junk" in said[1]
    nothing = {**found, "heads": [], "cost": None}
    del nothing["steering"]
    assert remarks(nothing)[0] == "No head looks where the question says, so none was steered."
    monkeypatch.setenv("COLUMNS", "160")
    show(nothing)
    assert "every edge falls" in capsys.readouterr().out


def test_what_is_kept_is_gone_on_with(tmp_path, monkeypatch):
    told = diagnose("testbed-sparse", tmp_path / "kept", {**GIVEN, "discovery": 4, "draws": 2})
    assert (tmp_path / "kept" / "heads.json").exists()
    monkeypatch.setattr(
        "gaze.steering.engine.answers", lambda *args, **settings: pytest.fail("an answer was made again")
    )
    assert diagnose("testbed-sparse", tmp_path / "kept", {**GIVEN, "discovery": 4, "draws": 2}) == told


def test_folders_that_are_no_model(tmp_path):
    empty, damaged, kept = tmp_path / "empty", tmp_path / "damaged", tmp_path / "kept"
    empty.mkdir()
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    for folder in (empty, damaged, tmp_path / "absent"):
        with pytest.raises(InputError):
            diagnose(str(folder), kept, GIVEN)
    assert not kept.exists()


def test_numbers_of_a_mean_with_gaps():
    from experiments.commands.diagnose import _mean

    values = [np.array([[1.0, 2.0], [np.nan, np.nan]]), np.array([[3.0, 4.0], [5.0, np.nan]])]
    assert np.array_equal(_mean(values), [[2.0, 3.0], [5.0, np.nan]], equal_nan=True)
