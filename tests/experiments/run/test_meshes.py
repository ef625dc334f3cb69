"""The testbed on a mesh finds the heads and gives the answers that it does on one device."""

import numpy as np
from jax.sharding import Mesh

from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.prompts import DISCOVERY, fill
from gaze.steering import engine as asking
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.sharding import make_mesh

from .passes import passes


def found_and_said(mesh: Mesh | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Three strips in batches of two: the last one is filled up."""
    model, processor = open_model("testbed", "float32", mesh)
    strips = draw_strips(1, "questions", 3)
    mass = asking.discover(model, processor, strips, [fill(DISCOVERY, panel) for panel in range(6)], batch=2)
    heads = np.zeros(mass.shape[2:4], np.float32)
    heads[[2, 5, 5, 2], [2, 9, 11, 1]] = 1
    steered = [asking.Request(number, heads, np.array([5 - number], np.int32)) for number in range(3)]
    requests = [asking.unsteered(model, number) for number in range(3)] + steered
    settings = asking.GenerationOptions(Sampling.make(stop=processor.stop_tokens), max_new=6, batch=4, strips=2)
    return mass, asking.answers(model, processor, strips, fill(DISCOVERY, 0), requests, settings)


def test_results_do_not_depend_on_the_mesh() -> None:
    mass, said = found_and_said(None)
    assert any(not np.array_equal(plain, steered) for plain, steered in zip(said[:3], said[3:], strict=True))
    on_mesh = found_and_said(make_mesh(2, 2))
    np.testing.assert_allclose(on_mesh[0], mass, rtol=0, atol=1e-5)
    for one, other in zip(on_mesh[1], said, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_passes_do_not_depend_on_the_mesh() -> None:
    alone, on_mesh = passes(None), passes(2, 2)
    for name, found in alone.items():
        np.testing.assert_allclose(on_mesh[name], found, rtol=1e-4, atol=1e-5, err_msg=name)
