"""What a model is called by its weights."""

import jax
import pytest

from experiments.run.models import open_model, revision
from gaze.heads import HeadSet
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import make_mesh, mesh_of


@pytest.fixture(scope="module")
def model() -> Qwen3VL:
    return open_model("testbed", None)[0]


def test_a_revision_does_not_depend_on_the_mesh(model: Qwen3VL) -> None:
    for sizes in ((4, 2), (1, 8)):
        mesh = make_mesh(*sizes)
        moved, _ = open_model("testbed", None, mesh)
        assert mesh_of(moved) == mesh
        assert revision(moved) == revision(model)


def test_a_revision_depends_on_the_weights(model: Qwen3VL) -> None:
    assert len({revision(model), revision(jax.tree.map(lambda leaf: leaf * 1.5, model))}) == 2
    table = model.model.visual.pos_embed.weight
    first = table[0, 0]
    table[...] = table[...].at[0, 0].add(1.0)
    changed = revision(model)
    table[...] = table[...].at[0, 0].set(first)
    assert changed != revision(model)


def test_the_shipped_heads_are_those_of_the_shipped_weights(model: Qwen3VL) -> None:
    assert HeadSet.load(CHECKPOINT / "heads.json").revision == revision(model)
