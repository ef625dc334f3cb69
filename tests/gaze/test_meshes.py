"""Discovery and steered answers on meshes of virtual devices: what they say does not depend on the mesh."""

import numpy as np
import pytest
from PIL import Image

from experiments.run.models import open_model
from gaze.discovery.scores import Mass
from gaze.heads import HeadSet
from gaze.pictures.strips import Strip
from gaze.steering import engine as asking
from gaze.steering.engine import GenerationOptions, Request
from gaze.steering.masks import schedule
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.sharding import make_mesh

QUESTIONS = [f"What is happening in panel {number} of the comic strip?" for number in (1, 2)]
HEADS = HeadSet(((3, 1), (4, 3), (4, 7))).to_mask(6, 8)


@pytest.fixture(scope="module")
def strips() -> list[Strip]:
    """Five strips, so that some devices have none of their own."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 192, 3), np.uint8)
    return [Strip.even(str(number), Image.fromarray(array), 2) for number, array in enumerate(pixels)]


def run(strips: list[Strip], mesh: tuple[int, int] | None) -> tuple[Mass, list[list[int]]]:
    model, processor = open_model("testbed-sparse", "float32", None if mesh is None else make_mesh(*mesh))
    requests = [
        Request(strip, HEADS, schedule([(0, panel), (4, 1 - panel)], 5)) for strip in range(5) for panel in (0, 1)
    ]
    requests += [Request(strip, HEADS, schedule([(0, 1)]), query_positions="text") for strip in range(5)] + [
        asking.unsteered(model, 2)
    ]
    settings = GenerationOptions(Sampling.make(stop=[594]), max_new=8, batch=8, strips=4)
    mass = asking.discover(model, processor, strips, QUESTIONS, batch=4)
    said = asking.answers(model, processor, strips, QUESTIONS[0], requests, settings)
    return mass, [tokens.tolist() for tokens in said]


@pytest.fixture(scope="module")
def alone(strips: list[Strip]) -> tuple[Mass, list[list[int]]]:
    return run(strips, None)


@pytest.mark.parametrize("mesh", [(1, 1), (4, 2), (8, 1), (1, 8)])
def test_results_do_not_depend_on_the_mesh(mesh: tuple[int, int], strips: list[Strip], alone: tuple) -> None:
    mass, said = run(strips, mesh)
    np.testing.assert_allclose(mass, alone[0], atol=1e-5, rtol=0)
    assert said == alone[1]
    assert len({tuple(tokens) for tokens in said}) > 3
