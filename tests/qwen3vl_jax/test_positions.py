"""`layout` against transformers: learned-position taps, M-RoPE positions, patch order, padding."""

import numpy as np
import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.positions import (
    batch_images,
    image_cells,
    image_starts,
    patch_coordinates,
    position_taps,
    rope_positions,
)

IMAGE, START, END = 250, 248, 249
GRIDS = [(2, 2), (4, 6), (6, 4), (2, 14), (10, 10), (34, 20)]


@pytest.fixture(scope="module")
def reference():
    text = dict(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rope_scaling=dict(rope_type="default", mrope_section=[2, 1, 1], mrope_interleaved=True),
    )
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16)
    vision.update(num_position_embeddings=49, deepstack_visual_indexes=[0])
    ids = dict(image_token_id=IMAGE, video_token_id=251, vision_start_token_id=START, vision_end_token_id=END)
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))


@pytest.fixture(scope="module")
def config(reference):
    return Config.from_dict(reference.config.to_dict())


def row(grids, rng):
    """One row of tokens: words, then each picture between start and end marks and more words."""
    words = lambda: rng.integers(1, 240, rng.integers(0, 6)).tolist()  # noqa: E731
    tokens = words()
    for rows, cols in grids:
        tokens += [START, *[IMAGE] * (rows * cols // 4), END, *words()]
    return np.array(tokens or [1], np.int32)


@pytest.mark.parametrize("side", [7, 48])
@pytest.mark.parametrize("grid", GRIDS)
def test_taps_equal_transformers(grid, side):
    index, weight = position_taps(*grid, side, 2)
    thw = torch.tensor([[1, *grid]])
    want_index, want_weight = get_vision_interpolation_indices_and_weights(
        thw, side, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    assert (index.dtype, weight.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(index, want_index.numpy())
    np.testing.assert_array_equal(weight, want_weight.numpy())


@pytest.mark.parametrize("grid", GRIDS)
def test_taps_interpolate_the_table_with_aligned_corners(grid):
    table = np.random.default_rng(0).normal(size=(48, 48, 5)).astype(np.float32)
    index, weight = position_taps(*grid, 48, 2)
    blended = (table.reshape(-1, 5)[index] * weight[:, :, None]).sum(axis=1)
    whole = torch.nn.functional.interpolate(
        torch.tensor(table).permute(2, 0, 1)[None], size=grid, mode="bilinear", align_corners=True
    )[0].permute(1, 2, 0)
    row, col = patch_coordinates(*grid, 2).T
    np.testing.assert_allclose(blended, whole.numpy()[row, col], atol=5e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_patch_coordinates_equal_transformers(grid):
    want = get_vision_position_ids(torch.tensor([[1, *grid]]), 2)
    np.testing.assert_array_equal(patch_coordinates(*grid, 2), want.numpy())


@pytest.mark.parametrize("seed", range(8))
def test_positions_equal_transformers_in_padded_batches(seed, reference, config):
    """Rows with 0 to 3 pictures, left-padded in the reference, unpadded here."""
    rng = np.random.default_rng(seed)
    chosen = [[GRIDS[i] for i in rng.integers(0, len(GRIDS), count)] for count in rng.permutation(4)]
    rows = [row(grids, rng) for grids in chosen]
    room = max(map(len, rows)) + 2
    tokens, mask = np.zeros((2, len(rows), room), np.int64)
    for number, tokens_of_row in enumerate(rows):
        tokens[number, room - len(tokens_of_row) :] = tokens_of_row
        mask[number, room - len(tokens_of_row) :] = 1
    want, _ = reference.model.get_rope_index(
        torch.tensor(tokens),
        torch.tensor((tokens == IMAGE).astype(np.int32)),
        image_grid_thw=torch.tensor([(1, *grid) for grids in chosen for grid in grids]),
        attention_mask=torch.tensor(mask),
    )
    for number, (tokens_of_row, grids) in enumerate(zip(rows, chosen, strict=True)):
        got = rope_positions(tokens_of_row, grids, config)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got.T, want[:, number, room - len(tokens_of_row) :].numpy())


def test_positions_of_the_worked_example(config):
    tokens = np.array([1, 2, 3, START, *[IMAGE] * 6, END, 4, 5, 6, 7, 8], np.int32)
    t, h, w = rope_positions(tokens, [(4, 6)], config).T.tolist()
    assert t == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 7, 8, 9, 10, 11, 12]
    assert h[4:10] == [4, 4, 4, 5, 5, 5]
    assert w[4:10] == [4, 5, 6, 4, 5, 6]


def test_pictures_without_a_word_between_them_stay_apart(config):
    tokens = np.array([IMAGE] * 7, np.int32)
    assert image_starts(tokens, [(2, 2), (4, 6)], config) == [0, 1]
    assert rope_positions(tokens, [(2, 2), (4, 6)], config)[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("grids", [[], [(2, 2)], [(2, 4), (2, 2)]])
def test_image_tokens_that_do_not_match_are_an_error(grids, config):
    with pytest.raises(InputError, match="image tokens"):
        rope_positions(np.array([IMAGE, IMAGE, 5], np.int32), grids, config)


def test_a_torn_image_is_an_error(config):
    with pytest.raises(InputError, match="together"):
        rope_positions(np.array([IMAGE, 5, IMAGE], np.int32), [(2, 4)], config)


def test_image_cells_number_the_padded_images(config):
    tokens = np.array([9, IMAGE, IMAGE, 9, IMAGE, 9], np.int32)
    cells = image_cells(tokens, [3, 1], [(2, 4), (2, 2)], 10, config)
    assert cells.tolist() == [-1, 30, 31, -1, 10, -1]


def pictures(*grids):
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(rows * cols, 1536)).astype(np.float32), (rows, cols)) for rows, cols in grids]


def test_images_are_padded_to_the_largest(config):
    (small, _), (large, _) = pair = pictures((2, 4), (4, 6))
    images = batch_images(pair, config)
    assert images.patches.shape == (2, 24, 1536)
    assert images.valid.sum(axis=1).tolist() == [8, 24]
    np.testing.assert_array_equal(images.patches[0, :8], small)
    np.testing.assert_array_equal(images.patches[1], large)
    index, weight = position_taps(2, 4, 7, 2)
    np.testing.assert_array_equal(images.pos_index[0, :8], index)
    np.testing.assert_array_equal(images.pos_weight[0, :8], weight)
    np.testing.assert_array_equal(images.row_col[1], patch_coordinates(4, 6, 2))
    for array in (images.patches, images.pos_index, images.pos_weight, images.row_col):
        assert not array[0, 8:].any()


def test_images_are_padded_to_a_bucket(config):
    assert batch_images(pictures((2, 4)), config, 32).valid.sum(axis=1).tolist() == [8]
    for patches in (4, 30):
        with pytest.raises(InputError, match="cannot pad"):
            batch_images(pictures((2, 4)), config, patches)
