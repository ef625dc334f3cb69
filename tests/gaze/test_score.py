"""`score`: sharing the prefix changes nothing, transformers agrees, one compilation serves all strips; the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gaze.regions import panel_cells, region_keys
from gaze.score import (
    by_content,
    gaze_score,
    lift,
    panel_attention,
    position_and_content,
    rank,
    routing_accuracy,
    selectivity,
    split,
)
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError

from .conftest import HEADS, IMAGE, LAYERS, ask, picture, stack

QUESTIONS = [[5, 6, 7, 30], [5, 6, 8, 9, 30], [5, 6, 30]]
WIDTHS = [10, 20, 12]


def strip(toy, seed, grid=(4, 12), **lengths):
    """One strip of three panels as `panel_attention` takes it, and the prompts it came from."""
    images, prompt = ask(toy.model.config, [picture(seed, grid)], QUESTIONS)
    prefix, questions = split(prompt, **lengths)
    groups = region_keys(prefix.image_cell[0], panel_cells(grid, WIDTHS, 2))
    return (images, prefix, questions, groups), prompt


@jax.jit
def unshared(model, images, prompt, groups):
    last = jnp.array([[prompt.tokens.shape[1] - 1]], jnp.int32)
    taps = Taps(last, groups.astype(jnp.float32))
    return model(prompt, model.encode(images), taps=taps).readings.mass[:, :, 0]


def test_sharing_and_padding_change_nothing(toy):
    inputs = [strip(toy, seed, prefix_length=24, suffix_length=5) for seed in range(2)]
    mass = np.asarray(panel_attention(toy.model, *stack([arguments for arguments, _ in inputs])))
    assert mass.shape == (2, 3, LAYERS, HEADS, 3)
    for ((images, *_), prompt), got in zip(inputs, mass, strict=True):
        groups = np.stack([region_keys(row, panel_cells((4, 12), WIDTHS, 2)) for row in prompt.image_cell])
        want = np.asarray(unshared(toy.model, images, prompt, groups)).transpose(1, 0, 2, 3)
        np.testing.assert_allclose(got, want, atol=1e-6, rtol=0)
        assert np.ptp(want, axis=0).max() > 1e-3  # the question matters, so mixing questions up would show


def test_mass_is_that_of_transformers(toy):
    arguments, _ = strip(toy, 3)
    mass = np.asarray(panel_attention(toy.model, *stack([arguments])))[0]
    patches, grid = picture(3, (4, 12))
    panel = panel_cells(grid, WIDTHS, 2).argmax(axis=0)
    for question, got in zip(QUESTIONS, mass, strict=True):
        tokens = torch.tensor([[1, 2, 248, *[IMAGE] * 12, 249, *question]])
        with torch.no_grad():
            attentions = toy.reference(
                input_ids=tokens,
                mm_token_type_ids=(tokens == IMAGE).long(),
                pixel_values=torch.tensor(patches),
                image_grid_thw=torch.tensor([[1, *grid]]),
                output_attentions=True,
            ).attentions
        last = np.stack([layer[0, :, -1, 3:15].numpy() for layer in attentions])
        want = np.stack([last[:, :, panel == p].sum(axis=-1) for p in range(3)], axis=-1)
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)


def test_strips_of_one_shape_compile_once(toy):
    before = panel_attention._cache_size()
    sizes = []
    for seed, grid in ((5, (4, 12)), (6, (4, 12)), (7, (4, 12))):
        arguments, _ = strip(toy, seed, grid, prefix_length=29)
        panel_attention(toy.model, *stack([arguments])).block_until_ready()
        sizes.append(panel_attention._cache_size() - before)
    assert sizes == [1, 1, 1]


def test_permutations_are_one_more_vmap(toy):
    arguments = [strip(toy, seed, prefix_length=24, suffix_length=5)[0] for seed in range(2)]
    over = jax.vmap(panel_attention, in_axes=(None, 0, 0, 0, 0))
    nested = over(toy.model, *jax.tree.map(lambda leaf: leaf[:, None], stack(arguments)))
    flat = panel_attention(toy.model, *stack(arguments))
    np.testing.assert_allclose(np.asarray(nested)[:, 0], np.asarray(flat), atol=1e-6, rtol=0)


def test_split_keeps_every_token_once(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], QUESTIONS, length=20)
    prefix, questions = split(prompt)
    assert prefix.tokens.tolist() == [[1, 2, 248, *[IMAGE] * 8, 249, 5, 6]]
    assert questions.tokens.tolist() == [[0, 7, 30], [8, 9, 30], [0, 0, 30]]
    assert questions.valid.tolist() == [[False, True, True], [True] * 3, [False, False, True]]
    after = prefix.positions[0, -1] + 1
    np.testing.assert_array_equal(questions.positions[1], after + np.arange(3)[:, None])
    np.testing.assert_array_equal(prefix.image_cell[0, 3:11], np.arange(8))
    assert questions.image_cell is None


def test_split_leaves_a_token_to_each_of_equal_rows(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], [[5, 6], [5, 6]])
    assert split(prompt)[1].tokens.tolist() == [[6], [6]]


def test_split_refuses_what_cannot_be_shared(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], QUESTIONS)
    other = prompt.tokens.copy()
    other[0, prompt.valid[0].argmax()] = 77
    with pytest.raises(InputError, match="same pictures"):
        split(prompt.replace(tokens=other))
    with pytest.raises(InputError, match="14 tokens do not fit"):
        split(prompt, prefix_length=13)


@pytest.fixture
def mass():
    return np.random.default_rng(0).uniform(0, 0.1, (5, 4, 2, 3, 4)).astype(np.float32)


def test_scores_follow_their_formulas(mass):
    head = mass[:, :, 1, 2].astype(float)  # strip, asked, attended
    asked = [head[s, k, k] for s in range(5) for k in range(4)]
    share = [head[s, k, k] / head[s, k].sum() for s in range(5) for k in range(4)]
    other = [head[s, k, j] for s in range(5) for k in range(4) for j in range(4) if j != k]
    hits = [head[s, k].argmax() == k for s in range(5) for k in range(4)]
    for score, want in (
        (gaze_score, np.mean(asked)),
        (selectivity, np.mean(share)),
        (lift, np.mean(asked) - np.mean(other)),
        (routing_accuracy, np.mean(hits)),
    ):
        assert score(mass).shape == (2, 3)
        assert score(mass)[1, 2] == pytest.approx(want, abs=1e-6)


def test_a_head_that_ignores_the_question_has_no_lift(mass):
    blind = np.broadcast_to(mass[:, :1], mass.shape)
    np.testing.assert_allclose(lift(blind), 0, atol=1e-7)
    assert gaze_score(blind).min() > 0.01


def test_a_head_that_sees_nothing_scores_0_everywhere():
    dark = np.zeros((2, 3, 1, 1, 3), np.float32)
    for score in (gaze_score, selectivity, lift, routing_accuracy):
        assert score(dark).item() == 0


def test_rank_is_stable():
    ranked = rank(np.array([[0.1, 0.5], [0.5, 0.2]]))
    assert ranked == [(0, 1, 0.5), (1, 0, 0.5), (1, 1, 0.2), (0, 0, 0.1)]


def test_shuffled_strips_tell_position_from_content():
    orders = np.array([[1, 2, 0, 3], [3, 0, 1, 2]])
    mass = np.zeros((2, 4, 1, 2, 4), np.float32)
    for number, order in enumerate(orders):
        for asked in range(4):
            mass[number, asked, 0, 0, asked] = 0.5
            mass[number, asked, 0, 1, list(order).index(asked)] = 0.25
    position, content = position_and_content(mass, orders)
    np.testing.assert_allclose(position, [[0.5, 0]])
    np.testing.assert_allclose(content, [[0, 0.25]])
    np.testing.assert_allclose(gaze_score(by_content(mass, orders))[0, 1], 0.25)


def test_impossible_orders_are_an_error(mass):
    with pytest.raises(InputError, match="once"):
        by_content(mass, np.array([[0, 1, 2, 2]] * 5))
    with pytest.raises(InputError, match="shuffle"):
        position_and_content(mass, np.array([[0, 1, 2, 3]] * 5))
