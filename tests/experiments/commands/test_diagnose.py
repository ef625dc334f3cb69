"""`diagnose`: what it says of the testbed, in JSON and in words, and what it does not take for a model."""

import json

import numpy as np
import pytest

from experiments.commands.diagnose import STRENGTHS, diagnose
from experiments.commands.diagnosis import remarks, show
from gaze.steering.attention_cost import KEYS
from qwen3vl_jax.errors import InputError

GIVEN = {"discovery": 8, "selection": 4, "evaluation": 4, "draws": 3, "images": 4, "strips": None}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    kept = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(kept))
        told = diagnose("testbed", None, GIVEN)
    assert not list(kept.glob("gaze-diagnose-*"))
    return told


def test_the_testbed_has_gaze_heads(found):
    assert found["has_gaze_heads"] is True
    assert all(one["passed"] for one in found["criteria"])
    assert {one["about"] for one in found["criteria"]} == {"attention", "stability", "cause"}
    assert found["strips"] == {"source": "testbed", "discovery": 8, "held_out": 4}
    assert (found["model"], found["judge"]) == ("testbed", "exact")
    best = found["heads"][0]
    assert best["gaze"] > 0.5
    assert best["held_out"]["gazes"]
    assert [head["gaze"] for head in found["heads"]] == sorted((head["gaze"] for head in found["heads"]), reverse=True)
    assert found["steering"]["gaze"]["accuracy"] > max(found["steering"]["draws"])
    assert len(found["steering"]["draws"]) == GIVEN["draws"]


def test_it_is_plain_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_least_strength_that_is_enough(found):
    curve = {one["strength"]: one["accuracy"] for one in found["strength"]["curve"]}
    assert tuple(curve) == STRENGTHS
    enough = found["strength"]["enough"]
    assert curve[enough] >= 0.95 * curve[STRENGTHS[-1]]
    assert all(curve[strength] < 0.95 * curve[STRENGTHS[-1]] for strength in STRENGTHS if strength < enough)


def test_what_steering_takes(found):
    for row in ("prompt", "answer"):
        one = found["cost"][row]
        for shares in (one["before"], one["after"]):
            assert set(shares) == set(KEYS)
            assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert one["after"]["target"] == pytest.approx(1, abs=1e-3)
        assert sum(one["taken"].values()) == pytest.approx(1, abs=1e-3)
    assert found["cost"]["steered"] == {"empty": 0.0, "junk": 0.0, "n": 24}
    assert found["cost"]["unsteered"]["n"] == 4


def test_the_grid_of_tokens(found):
    strips, photos = found["grid"]["strips"], found["grid"]["photos"]
    assert (strips["pictures"], strips["resized"], strips["aligned"], strips["off"]) == (4, 0, 4, 0.0)
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
    for words in ("random heads, 3 draws", "left alone", "of what 10000 does", "every edge falls between two tokens"):
        assert words in said


def test_what_does_not_steer_is_said(found):
    spoilt = {"empty": 0.25, "junk": 0.5, "n": 4}
    said = remarks({**found, "strength": {"curve": [], "enough": None}, "cost": {**found["cost"], "steered": spoilt}})
    assert said[0] == "No strength moves an answer to its target."
    assert "25.0% are empty and 50.0% are junk" in said[1]


def test_what_is_kept_is_gone_on_with(tmp_path, monkeypatch):
    told = diagnose("testbed", tmp_path / "kept", {**GIVEN, "discovery": 4, "selection": 4})
    assert (tmp_path / "kept" / "heads.json").exists()
    monkeypatch.setattr(
        "gaze.steering.engine.answers", lambda *args, **settings: pytest.fail("an answer was made again")
    )
    assert diagnose("testbed", tmp_path / "kept", {**GIVEN, "discovery": 4, "selection": 4}) == told


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
