from itertools import combinations, product

import numpy as np
import pytest

from experiments.testbed.sparse.scenes import COUNT, SIZES, Scene, draw_scenes, held_out, scene, split_indices


def test_every_scene_has_its_own_caption_of_six_words():
    captions = {scene(index).caption for index in range(COUNT)}
    assert len(captions) == COUNT == 12_288
    assert all(len(caption.split()) == 6 and caption.endswith(".") for caption in captions)
    assert Scene(0, 0, 0, 4, 0).caption == "red star jumps over blue box."


def test_splits_part_the_scenes_an_eighth_held_out():
    train, unseen = set(split_indices("train").tolist()), set(split_indices("held_out").tolist())
    assert train | unseen == set(split_indices("all").tolist())
    assert not train & unseen
    assert len(unseen) == COUNT // 8


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_each_attribute_pair_occurs_in_each_split(split):
    values = np.stack(np.unravel_index(split_indices(split), SIZES))
    for first, second in combinations(range(len(SIZES)), 2):
        seen = set(zip(values[first].tolist(), values[second].tolist(), strict=True))
        assert seen == set(product(range(SIZES[first]), range(SIZES[second])))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_drawn_scenes_are_different_and_of_their_split(split):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scenes = draw_scenes(rng, split=split)
        assert len(set(scenes)) == 6
        assert all(held_out(scene) == (split == "held_out") for scene in scenes)


def test_draws_repeat_with_the_seed_only():
    assert draw_scenes(np.random.default_rng(3)) == draw_scenes(np.random.default_rng(3))
    assert draw_scenes(np.random.default_rng(3)) != draw_scenes(np.random.default_rng(4))
