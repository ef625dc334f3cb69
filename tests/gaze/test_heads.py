"""`heads`: the file and its errors, the mask, the controls."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from gaze.heads import HeadSet, all_heads, code_control, paper_control, random_heads
from qwen3vl_jax.errors import InputError

RANKED = HeadSet(((3, 1), (0, 2), (3, 0)), (0.5, 0.25, 0.125), "gaze", "org/model", "abc", {"strips": 20, "seed": 1})
OFFICIAL = [{"layer": 3, "head": 1, "score": 0.5}, {"layer": 0, "head": 2, "score": 0.25}]


def test_a_head_set_comes_back_from_its_file(tmp_path):
    path = tmp_path / "new" / "heads.json"
    for heads in (RANKED, HeadSet(((1, 2),))):
        heads.save(path)
        assert HeadSet.load(path) == heads
    assert [file.name for file in path.parent.iterdir()] == ["heads.json"]
    RANKED.save(path)
    assert HeadSet.load(path, top_k=1).heads == ((3, 1),)


def test_the_papers_ranking_is_read_and_written(tmp_path):
    path = tmp_path / "gaze_head_ranking.json"
    path.write_text(json.dumps(OFFICIAL))
    heads = HeadSet.load(path)
    assert (heads.heads, heads.scores, heads.model) == (((3, 1), (0, 2)), (0.5, 0.25), "")
    heads.save_ranking(path)
    assert json.loads(path.read_text()) == OFFICIAL
    with pytest.raises(InputError, match="needs a score"):
        HeadSet(((1, 2),)).save_ranking(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "null",
        "[]",
        "[3]",
        "{}",
        '{"version": 1}',
        '{"version": 2, "heads": [{"layer": 0, "head": 0}]}',
        '{"version": 1, "heads": []}',
        '[{"layer": 0}]',
        '[{"layer": -1, "head": 0, "score": 1}]',
        '[{"layer": 0.5, "head": 0, "score": 1}]',
        '[{"layer": true, "head": 0, "score": 1}]',
        '[{"layer": 0, "head": 0, "score": "high"}]',
        '[{"layer": 0, "head": 0}, {"layer": 0, "head": 0}]',
        '[{"layer": 0, "head": 0, "score": 1}, {"layer": 0, "head": 1}]',
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(text, tmp_path):
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"heads\.json"):
        HeadSet.load(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="there is no head set"):
        HeadSet.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        HeadSet.load(tmp_path)


@pytest.mark.parametrize("count", [0, 4, -1])
def test_top_of_too_few_heads_is_an_error(count):
    with pytest.raises(InputError, match="from 1 to 3"):
        RANKED.top(count)


def test_an_empty_head_set_is_an_error():
    with pytest.raises(InputError, match="empty"):
        HeadSet(())


def test_mask_marks_the_heads():
    mask = RANKED.to_mask(4, 3)
    assert mask.dtype == np.float32
    assert list(zip(*np.nonzero(mask), strict=True)) == [(0, 2), (3, 0), (3, 1)]
    assert mask.max() == 1


@pytest.mark.parametrize(("layers", "heads"), [(3, 3), (4, 2)])
def test_a_head_outside_the_model_is_an_error(layers, heads):
    with pytest.raises(InputError, match="the model has no head"):
        RANKED.to_mask(layers, heads)


def test_all_heads_are_all():
    assert all_heads(3, 2).to_mask(3, 2).all()


def test_random_heads_match_layer_by_layer():
    like = HeadSet(((0, 0), (2, 1), (2, 5), (2, 7)))
    draws = [random_heads(np.random.default_rng(seed), like, like.heads, (4, 12)) for seed in range(20)]
    for drawn in draws:
        assert Counter(layer for layer, _ in drawn.heads) == {0: 1, 2: 3}
        assert not set(drawn.heads) & set(like.heads)
    assert len({drawn.heads for drawn in draws}) > 15
    assert random_heads(np.random.default_rng(3), like, like.heads, (4, 12)).heads == draws[3].heads


def test_random_heads_take_from_the_nearest_layers_what_a_layer_lacks():
    like = HeadSet(((1, 0), (1, 1), (2, 0), (2, 1)))
    drawn = random_heads(np.random.default_rng(0), like, like.heads, (4, 3))
    # Layers 1 and 2 have one head left each, and keep it; layer 1 then takes from 0, layer 2 from 3.
    assert Counter(layer for layer, _ in drawn.heads) == {0: 1, 1: 1, 2: 1, 3: 1}
    with pytest.raises(InputError, match="only 2 heads are left"):
        random_heads(np.random.default_rng(0), like, like.heads, (3, 2))


def test_fingerprint_is_that_of_the_set_alone():
    want = hashlib.sha256(b"0.2,3.0,3.1").hexdigest()[:12]
    assert RANKED.fingerprint == HeadSet(((3, 0), (3, 1), (0, 2))).fingerprint == want
    assert HeadSet(((3, 0), (3, 1), (0, 3))).fingerprint != want
    assert HeadSet(((1, 11),)).fingerprint != HeadSet(((11, 1),)).fingerprint


def test_heads_are_counted_per_layer():
    assert RANKED.per_layer(5, 3).tolist() == [1, 0, 0, 2, 0]
    with pytest.raises(InputError, match="the model has no head"):
        RANKED.per_layer(3, 3)


@pytest.mark.parametrize(("layers", "first"), [(36, 20), (28, 16), (64, 36), (6, 4), (2, 1), (1, 0)])
def test_the_papers_control_comes_from_the_upper_layers(layers, first):
    like = HeadSet(((layers - 1, 1), (layers - 1, 2)), model="org/model")
    draws = [paper_control(np.random.default_rng(seed), like, like.heads, (layers, 8)) for seed in range(60)]
    drawn = {head for draw in draws for head in draw.heads}
    assert {layer for layer, _ in drawn} == set(range(first, layers))
    assert not drawn & set(like.heads)
    assert {len(draw) for draw in draws} == {2}
    assert draws[0].settings == {
        "control": "paper",
        "layers": [first, layers - 1],
        "asked": 2,
        "pool": 8 * (layers - first) - 2,
    }


def test_the_papers_control_is_uniform_over_its_heads():
    like = HeadSet(((0, 0), (0, 1)))
    counts = Counter(
        head for seed in range(600) for head in paper_control(np.random.default_rng(seed), like, (), (9, 3)).heads
    )
    assert len(counts) == 12
    assert 70 < min(counts.values()) < max(counts.values()) < 135  # 100 each on average


def test_a_small_pool_gives_what_it_has_and_says_so():
    like = HeadSet(tuple((0, head) for head in range(5)))
    drawn = paper_control(np.random.default_rng(0), like, (), (2, 4))
    assert drawn.heads == ((1, 0), (1, 1), (1, 2), (1, 3))
    assert (drawn.settings["asked"], drawn.settings["pool"]) == (5, 4)


@pytest.mark.parametrize(("shape", "pool"), [((36, 32), 58), ((28, 16), 23)])
def test_the_scripts_control_is_the_lowest_5_percent(shape, pool):
    rng = np.random.default_rng(0)
    order = rng.permutation(shape[0] * shape[1])
    heads = tuple((int(n) // shape[1], int(n) % shape[1]) for n in order)
    ranking = HeadSet(heads, tuple(np.linspace(1, 0, len(heads)).tolist()))
    few, many = code_control(ranking, 10, seed=42), code_control(ranking, 100, seed=42)
    assert set(many.heads) == set(heads[-pool:])
    assert many.settings == {"control": "code", "seed": 42, "asked": 100, "pool": pool}
    assert len(few) == 10
    assert set(few.heads) < set(many.heads)
    assert code_control(ranking, 10, seed=42) == few != code_control(ranking, 10, seed=43)


def test_a_control_without_heads_is_an_error():
    like = HeadSet(((1, 0),))
    with pytest.raises(InputError, match="no head is left"):
        paper_control(np.random.default_rng(0), like, like.heads, (2, 1))


def test_the_scripts_control_needs_scores_and_other_heads():
    with pytest.raises(InputError, match="without scores"):
        code_control(HeadSet(((0, 0), (0, 1))), 1, seed=0)
    with pytest.raises(InputError, match="no head is left"):
        code_control(RANKED, 3, seed=0)
