"""What a testbed's name stands for, in every place where it is given."""

import json

import pytest

from experiments.data.sources import open_source
from experiments.run.models import source
from experiments.run.settings import Settings, is_testbed, presets
from experiments.testbed import scattered, strips
from experiments.testbed.sparse.strips import draw_strips as draw_sparse_strips
from experiments.testbed.testbeds import SPARSE, TESTBED, TESTBEDS, find_testbed
from gaze.heads import HeadSet


@pytest.mark.parametrize("name", TESTBEDS)
def test_a_testbed_is_known_by_its_name_its_folder_and_its_shape(name, tmp_path):
    checkpoint = TESTBEDS[name].checkpoint
    assert find_testbed(name) == find_testbed(checkpoint) == find_testbed(str(checkpoint)) == name
    assert source(name) == checkpoint
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    assert find_testbed(tmp_path) == name
    other = json.loads((checkpoint / "config.json").read_text())
    other["text_config"]["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(other))
    assert find_testbed(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"text_config": 3}'])
def test_what_is_no_checkpoint_is_no_testbed(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert not is_testbed(str(tmp_path))
    assert not is_testbed(str(tmp_path / "absent"))
    assert presets(str(tmp_path)) == Settings(model=str(tmp_path), judge="likelihood")


def test_each_has_pictures_of_its_own():
    assert (presets(SPARSE).strips, presets(SPARSE).photos) == (SPARSE, SPARSE)
    counts = {"discovery": 2, "selection": 2, "evaluation": 2}
    assert open_source(TESTBED, 3, counts).draw("evaluation", 2) == strips.draw_strips(3, "evaluation", 2)
    assert open_source(SPARSE, 3, counts).draw("evaluation", 2) == draw_sparse_strips(3, "evaluation", 2)
    assert TESTBEDS[TESTBED].draw_scattered is scattered.draw_held_out


@pytest.mark.parametrize("name", TESTBEDS)
def test_its_heads_are_of_its_own_shape(name):
    config = json.loads((TESTBEDS[name].checkpoint / "config.json").read_text())["text_config"]
    heads = HeadSet.load(TESTBEDS[name].checkpoint / "heads.json")
    heads.require(config["num_hidden_layers"], config["num_attention_heads"])
    assert heads.model == name
