"""`baselines`: entropy against a flood fill, both elbows, z scores, and the reading of the testbed's attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.discovery.baselines import (
    ImageAttention,
    component_entropy,
    elbow_head,
    image_attention,
    image_heads,
    image_z,
    localization_heads,
)
from gaze.pictures.strips import Strip
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError

QUESTIONS = ["What is happening in the 2nd panel?", "What is in the picture?"]


def flooded(image, bright=0.001):
    """The entropy of one map, by hand."""
    above = np.maximum(image - image.mean(), 0)
    if above.sum() <= 0:
        return np.inf
    left = {(r, c) for r, c in np.argwhere(above > bright).tolist()}
    entropy = 0.0
    while left:
        front, sum_ = [left.pop()], 0.0
        while front:
            r, c = front.pop()
            sum_ += above[r, c]
            near = {(r + dr, c + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
            left -= near
            front += near
        share = sum_ / above.sum()
        entropy -= share * np.log(share)
    return entropy


@pytest.mark.parametrize("shape", [(1, 9), (5, 7), (8, 12)])
def test_entropy_is_that_of_a_flood_fill(shape):
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.full(shape[0] * shape[1], 0.1), size=40).astype(np.float32)
    maps[20:] *= rng.uniform(0.001, 0.1, (20, 1)).astype(np.float32)  # many cells are dark
    got = component_entropy(maps, shape)
    want = [flooded(one.reshape(shape)) for one in maps.astype(np.float64)]
    np.testing.assert_allclose(got, want, atol=1e-9)
    assert np.ptp(want) > 0.5


def test_entropy_of_known_maps():
    maps = np.zeros((5, 3, 4))
    maps[0, 0, 0] = 0.5
    maps[0, 2, 3] = 0.5
    maps[1, 0, 0] = maps[1, 1, 1] = 0.5  # touch at a corner
    maps[2] = 0.1
    maps[3, 1, 2] = 0.0005  # too dark for a component
    # The same cell of the next map is no neighbour.
    maps[4, 0, 0] = 1.0
    got = component_entropy(maps.reshape(5, 12), (3, 4))
    np.testing.assert_allclose(got, [np.log(2), 0, np.inf, 0, 0], atol=1e-12)
    alone = [component_entropy(one.reshape(1, 12), (3, 4)).item() for one in maps]
    np.testing.assert_array_equal(got, alone)


def attention(mass, entropy=None):
    """A single prompt."""
    mass = np.asarray(mass, np.float32)[None, None]
    return ImageAttention(mass, np.zeros_like(mass) if entropy is None else np.asarray(entropy, np.float32)[None, None])


def test_image_heads_are_those_far_above_their_layer():
    mass = np.full((2, 3, 2, 16), 0.1, np.float32)
    mass[..., 0, :] += np.random.default_rng(0).normal(0, 0.001, 16).astype(np.float32)
    mass[..., 0, 5] = 0.3
    mass[..., 1, :] = 0.9  # a layer without differences
    got = image_heads(ImageAttention(mass, np.zeros_like(mass)))
    assert (got.heads[0], got.score, len(got)) == ((0, 5), "image", 32)
    assert got.settings == {"threshold": 2.5, "above": 1}
    np.testing.assert_allclose(image_z(mass)[0], stats.zscore(mass[0, 0, 0].astype(float)), rtol=1e-6)
    assert (image_z(mass)[1] == 0).all()


def test_image_z_is_averaged_over_prompts():
    mass = np.random.default_rng(0).random((3, 4, 2, 5)).astype(np.float32)
    want = np.mean([[stats.zscore(mass[s, q], axis=1) for q in range(4)] for s in range(3)], axis=(0, 1))
    np.testing.assert_allclose(image_z(mass), want, atol=1e-5)


# Sorted: .00 .01 .02 .03 .04 .60 .70 .80, farthest from the straight line at .04, which is head (0, 2).
MASSES = [[0.60, 0.00, 0.04, 0.80], [0.01, 0.70, 0.02, 0.03]]
ENTROPIES = [[0.3, 0.0, 0.9, 0.2], [0.1, 0.5, 0.4, 0.0]]


def test_the_two_readings_of_the_elbow():
    assert elbow_head(np.array(MASSES).ravel()) == 2
    by_value = localization_heads(attention(MASSES, ENTROPIES), "value")
    by_index = localization_heads(attention(MASSES, ENTROPIES), "index")
    assert by_value.heads == ((0, 3), (0, 0), (1, 1), (0, 2))
    assert by_index.heads == ((1, 3), (1, 0), (0, 3), (1, 2), (1, 1), (0, 2))
    assert (by_value.score, by_index.score) == ("localization-value", "localization-index")
    np.testing.assert_allclose(by_value.scores, [-0.2, -0.3, -0.5, -0.9])
    assert by_value.settings["elbow_head"] == by_index.settings["elbow_head"] == [0, 2]
    assert by_value.settings["elbow_mass"] == pytest.approx(0.04)


def test_the_elbow_is_where_the_distance_is_largest():
    values = np.random.default_rng(0).exponential(size=50)
    order = np.argsort(values)
    start, end = np.array([0, values.min()]), np.array([49, values.max()])
    along = (end - start) / np.linalg.norm(end - start)
    points = np.stack([np.arange(50), values[order]], axis=1) - start
    distance = np.linalg.norm(points - (points @ along)[:, None] * along, axis=1)
    assert elbow_head(values) == order[distance.argmax()]
    assert elbow_head(np.full(4, 0.1)) == 0


def test_prompts_without_contrast_are_left_out():
    mass = np.repeat(attention(MASSES).mass, 2, axis=0)
    entropy = np.stack([ENTROPIES, ENTROPIES])[:, None].astype(np.float32)
    entropy[0, 0, 0, 3] = np.inf
    entropy[:, 0, 1, 1] = np.inf
    got = localization_heads(ImageAttention(mass, entropy), "value")
    assert got.heads == ((0, 3), (0, 0), (0, 2))
    assert got.scores[0] == pytest.approx(-0.2)
    with pytest.raises(InputError, match="no head looks"):
        localization_heads(ImageAttention(mass, np.full_like(entropy, np.inf)), "index")


@jax.jit
def keys(model, images, prompt):
    """Attention of the last token to every key."""
    length = prompt.tokens.shape[1]
    taps = Taps(jnp.array([[length - 1]], jnp.int32), jnp.eye(length, dtype=jnp.float32)[None])
    return model(prompt, model.encode(images), taps=taps).readings.mass[:, :, 0]


def test_attention_of_the_testbed_cell_by_cell():
    model, processor = open_model("testbed", None)
    low = draw_strips(0, "test", 1)[0]
    width, height = low.image.size
    tall = Strip("tall", low.image.resize((width, 2 * height)), low.widths)
    done = []
    # A picture is in a batch twice, one is padded to the size of the other, and the last batch is not full.
    got = image_attention(model, processor, [low, tall, low, tall], QUESTIONS, batch=3, progress=done.append)
    assert got.mass.shape == got.entropy.shape == (4, 2, 8, 12)
    assert done == [2] * 4
    asked = processor([processor.chat(QUESTIONS[1])] * 2, [[low.image], [tall.image]])
    seen = np.asarray(keys(model, asked.images, asked.prompt))
    for strip in range(4):
        number = strip % 2
        maps = seen[:, number][..., np.asarray(asked.prompt.image_cell)[number] >= 0].astype(np.float64)
        np.testing.assert_allclose(got.mass[strip, 1], maps.sum(axis=-1), atol=1e-5)
        rows, cols = asked.grids[number] // 2
        want = [[flooded(one.reshape(rows, cols)) for one in layer] for layer in maps]
        np.testing.assert_allclose(got.entropy[strip, 1], want, atol=1e-2)
    assert np.abs(got.mass[0] - got.mass[1]).max() > 1e-2
