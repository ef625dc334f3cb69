"""`score`: sharing the prefix changes nothing, transformers agrees, one compilation serves all strips; the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gaze.discovery.scores import (
    CREDITS,
    by_content,
    gaze_score,
    lift,
    panel_attention,
    per_strip,
    position_and_content,
    rank,
    routing_accuracy,
    selectivity,
    split,
)
from gaze.pictures.regions import panel_cells, region_keys
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.sharding import make_mesh, shardings, spread

from ...toys import make_toy, moe_config
from ..conftest import HEADS, IMAGE, LAYERS, ask, picture

QUESTIONS = [[5, 6, 7, 30], [5, 6, 8, 9, 30], [5, 6, 30]]
WIDTHS = [10, 20, 12]


def strips(toy, pictures, **lengths):
    """Strips of three panels as `panel_attention` takes them, and the prompts they came from."""
    images, prompt = ask(toy.model.config, pictures, QUESTIONS)
    prefix, questions = split(prompt, len(pictures), **lengths)
    groups = np.stack(
        [
            keys(images, row, number, grid)
            for number, (row, (_, grid)) in enumerate(zip(prefix.image_cell, pictures, strict=True))
        ]
    )
    return (images, prefix, questions, groups), prompt


def keys(images, image_cell, number, grid):
    return region_keys(image_cell, panel_cells(grid, WIDTHS, 2), number * images.patches.shape[1] // 4)


@jax.jit
def unshared(model, images, prompt, groups):
    last = jnp.array([[prompt.tokens.shape[1] - 1]], jnp.int32)
    taps = Taps(last, groups.astype(jnp.float32))
    return model(prompt, model.encode(images), taps=taps).readings.mass[:, :, 0]


def test_sharing_and_padding_change_nothing(toy):
    pictures = [picture(0, (4, 12)), picture(1, (6, 8))]
    arguments, prompt = strips(toy, pictures, prefix_length=24, suffix_length=5)
    mass = np.asarray(panel_attention(toy.model, *arguments))
    assert mass.shape == (2, 3, LAYERS, HEADS, 3)
    groups = [keys(arguments[0], row, n // 3, pictures[n // 3][1]) for n, row in enumerate(prompt.image_cell)]
    want = np.asarray(unshared(toy.model, arguments[0], prompt, np.stack(groups)))
    want = want.reshape(LAYERS, 2, 3, HEADS, 3).transpose(1, 2, 0, 3, 4)
    np.testing.assert_allclose(mass, want, atol=1e-6, rtol=0)
    # Strips and questions matter, so mixing them up would show.
    assert np.ptp(want, axis=0).max() > 1e-2
    assert np.ptp(want, axis=1).max() > 1e-2


def test_mass_is_that_of_transformers(toy):
    patches, grid = picture(3, (4, 12))
    arguments, _ = strips(toy, [(patches, grid)])
    mass = np.asarray(panel_attention(toy.model, *arguments))[0]
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


def test_experts_are_chosen_question_by_question(toy):
    """The same with a mixture of experts, whose rows are sorted by expert across all questions, on a mesh and without."""
    model = make_toy(moe_config()).model
    pictures = [picture(0, (4, 12)), picture(1, (4, 12))]
    arguments, prompt = strips(toy, pictures)
    groups = [keys(arguments[0], row, n // 3, pictures[n // 3][1]) for n, row in enumerate(prompt.image_cell)]
    want = np.asarray(unshared(model, arguments[0], prompt, np.stack(groups)))
    want = want.reshape(-1, 2, 3, HEADS, 3).transpose(1, 2, 0, 3, 4)
    np.testing.assert_allclose(panel_attention(model, *arguments), want, atol=2e-6, rtol=0)
    mesh = make_mesh(2, 2)
    there = jax.device_put(model, shardings(model, mesh))
    inputs = spread(arguments, mesh, 2)
    mass = panel_attention(there, inputs[0].replace(groups=2), *inputs[1:])
    np.testing.assert_allclose(mass, want, atol=1e-5, rtol=0)


def test_batches_of_one_shape_compile_once(toy, decoder_traces):
    def discover(seed, grid, length):
        arguments, _ = strips(toy, [picture(seed, grid)], prefix_length=length)
        panel_attention(toy.model, *arguments).block_until_ready()

    discover(5, (4, 12), 29)
    decoder_traces(0)
    discover(6, (4, 12), 29)
    discover(7, (2, 24), 29)
    with pytest.raises(AssertionError, match="traced > 0 times"):
        discover(5, (4, 12), 31)


def test_split_keeps_every_token_once(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], QUESTIONS, length=20)
    prefix, questions = split(prompt, 1)
    assert prefix.tokens.tolist() == [[1, 2, 248, *[IMAGE] * 8, 249, 5, 6]]
    assert questions.tokens.tolist() == [[0, 7, 30], [8, 9, 30], [0, 0, 30]]
    assert questions.valid.tolist() == [[False, True, True], [True] * 3, [False, False, True]]
    after = prefix.positions[0, -1] + 1
    np.testing.assert_array_equal(questions.positions[1], after + np.arange(3)[:, None])
    np.testing.assert_array_equal(prefix.image_cell[0, 3:11], np.arange(8))
    assert questions.image_cell is None


def test_split_leaves_a_token_to_each_of_equal_rows(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], [[5, 6], [5, 6]])
    assert split(prompt, 1)[1].tokens.tolist() == [[6], [6]]


def test_split_refuses_what_cannot_be_shared(toy):
    _, prompt = ask(toy.model.config, [picture(0, (4, 8))], QUESTIONS)
    other = prompt.tokens.copy()
    other[0, prompt.valid[0].argmax()] = 77
    with pytest.raises(InputError, match="same pictures"):
        split(prompt.replace(tokens=other), 1)
    with pytest.raises(InputError, match="14 tokens do not fit"):
        split(prompt, 1, prefix_length=13)
    with pytest.raises(InputError, match="3 prompts cannot be about 2 strips"):
        split(prompt, 2)


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


def test_even_mass_scores_m_over_6_raw_but_nothing_else():
    even = np.full((3, 6, 1, 1, 6), 0.6 / 6, np.float32)
    scores = [score(even).item() for score in (gaze_score, selectivity, lift, routing_accuracy)]
    np.testing.assert_allclose(scores, [0.1, 1 / 6, 0, 0], atol=1e-7)


def test_a_planted_head_scores_best_everywhere(mass):
    mass[:, :, 1, 0] = 0.01 + 0.5 * np.eye(4)
    for score in (gaze_score, selectivity, lift, routing_accuracy):
        assert rank(score(mass))[0][:2] == (1, 0)
    scores = [score(mass)[1, 0] for score in (gaze_score, selectivity, lift, routing_accuracy)]
    np.testing.assert_allclose(scores, [0.51, 0.51 / 0.54, 0.5, 1], rtol=1e-5)


def test_scores_are_means_of_credits_over_strips_and_panels(mass):
    for name, score in zip(CREDITS, (gaze_score, selectivity, lift, routing_accuracy), strict=True):
        each = per_strip(mass, CREDITS[name])
        assert each.shape == (5, 2, 3)
        np.testing.assert_allclose(each[3], score(mass[3:4]))
        np.testing.assert_allclose(each.mean(axis=0), score(mass))


def test_half_precision_on_disk_costs_no_more_than_its_rounding(mass):
    for score in (gaze_score, selectivity, lift):
        np.testing.assert_allclose(score(mass.astype(np.float16)), score(mass), atol=1e-4)
        assert score(mass.astype(np.float16)).dtype == np.float64


def test_a_tie_is_a_miss():
    tied = np.array([[0.3, 0.3], [0.1, 0.4]], np.float32)[None, :, None, None]
    assert routing_accuracy(tied).item() == 0.5


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
