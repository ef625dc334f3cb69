"""What a model in memory is called by its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaze.heads import HeadSet
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.load import load_model, model_revision
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import make_mesh, mesh_of


@pytest.fixture(scope="module")
def model() -> Qwen3VL:
    return load_model(CHECKPOINT, "float32")


def test_it_does_not_depend_on_the_mesh(model: Qwen3VL) -> None:
    moved = load_model(CHECKPOINT, "float32", make_mesh(4, 2))
    assert mesh_of(moved) == make_mesh(4, 2)
    assert model_revision(moved) == model_revision(model)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_bit_anywhere_changes_it(model: Qwen3VL, data: st.DataObject) -> None:
    leaves, shape = jax.tree.flatten(model)
    number = data.draw(st.integers(0, len(leaves) - 1))
    changed = np.array(leaves[number])
    bits = changed.reshape(-1).view(np.uint32)
    bits[data.draw(st.integers(0, bits.size - 1))] ^= np.uint32(2 ** data.draw(st.integers(0, 31)))
    leaves[number] = jnp.asarray(changed)
    assert model_revision(jax.tree.unflatten(shape, leaves)) != model_revision(model)


def test_every_tensor_counts_and_so_does_the_place_of_a_value(model: Qwen3VL) -> None:
    leaves, shape = jax.tree.flatten(model)
    revisions = {model_revision(model)}
    for number, leaf in enumerate(leaves):
        for changed in (leaf.at[..., -1].set(0.5), leaf[..., ::-1]):
            revisions.add(model_revision(jax.tree.unflatten(shape, [*leaves[:number], changed, *leaves[number + 1 :]])))
    assert len(revisions) == 1 + 2 * len(leaves)


def test_it_is_of_the_numbers_not_of_their_dtype(model: Qwen3VL) -> None:
    finer = jax.tree.map(lambda leaf: leaf * 1.001, model)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), finer)
    assert model_revision(rounded) != model_revision(finer)
    assert model_revision(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)) == model_revision(rounded)


def test_the_shipped_heads_are_those_of_the_shipped_weights(model: Qwen3VL) -> None:
    assert HeadSet.load(CHECKPOINT / "heads.json").revision == model_revision(model)
