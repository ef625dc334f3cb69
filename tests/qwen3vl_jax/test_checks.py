"""Arguments that do not fit are named in a sentence, before anything runs; near misses that mean something are accepted."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate, stream
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.vision import Vision

from ..toys import Row, Toy, batch_rows, encode, read

LAYERS, HEADS = 4, 4
GREEDY = Sampling.make()


@pytest.fixture(scope="module")
def scene(toy: Toy, row: Row) -> tuple[Prompt, Vision, int]:
    images, prompt = batch_rows([row], toy.config)
    return prompt, encode(toy.model, images), prompt.tokens.shape[1]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}


def test_every_wrong_argument_is_named() -> None:
    script = Path(__file__).with_name("wrong_arguments.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "36 cases, 0 faults" in done.stdout


def test_shapes_are_checked_under_jit_too(toy: Toy, scene: tuple[Prompt, Vision, int]) -> None:
    prompt, vision, length = scene
    for extra in (-1, 1):
        taps = Taps(jnp.array([[-1]], jnp.int32), jnp.zeros((1, 2, length + extra)))
        with pytest.raises(InputError, match=re.escape("taps.groups has shape")):
            read(toy.model, prompt, vision, None, taps)


def test_negative_positions_count_from_the_end(toy: Toy, scene: tuple[Prompt, Vision, int]) -> None:
    prompt, vision, length = scene
    groups = jnp.eye(length)[None]

    def mass(place: int) -> np.ndarray:
        taps = Taps(jnp.array([[place]], jnp.int32), groups)
        return np.asarray(read(toy.model, prompt, vision, None, taps)[1].readings.mass)

    for back in (1, 2, length):
        np.testing.assert_array_equal(mass(-back), mass(length - back))
    assert np.ptp(mass(-1)) > 0.01  # not the uniform attention of a query that sees nothing


def test_a_cache_without_room(toy: Toy, scene: tuple[Prompt, Vision, int]) -> None:
    """On the host it is refused; under `jit`, where nobody can know, what follows is NaN and not just wrong."""
    prompt, vision, _ = scene
    cache = read(toy.model, prompt, vision)[1].cache.fork(1, 2)
    token, three = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 3), jnp.int32)
    with pytest.raises(InputError, match="no room for 3 more tokens"):
        toy.model.extend(three, cache)

    @jax.jit
    def follow(model: Any, cache: Any) -> Any:
        output = model.extend(token, cache)
        return output.cache, model.logits(output.hidden)

    finite = []
    for _ in range(4):
        cache, logits = follow(toy.model, cache)
        finite.append(bool(np.isfinite(np.asarray(logits)).all()))
    assert finite[:2] == [True, True]
    assert finite[3] is False


def test_seeds_and_keys(toy: Toy, scene: tuple[Prompt, Vision, int]) -> None:
    prompt, vision, _ = scene
    warm = Sampling.make(temperature=1.0)
    keys = (7, np.int64(7), jax.random.key(7), jax.random.PRNGKey(7))
    said = [np.asarray(generate(toy.model, prompt, vision, None, warm, key, max_new=4).tokens) for key in keys]
    assert all((one == said[0]).all() for one in said)


@pytest.mark.parametrize("way", [generate, lambda *a, **k: next(stream(*a, **k))], ids=["generate", "stream"])
def test_plans_that_do_not_fit(toy: Toy, scene: tuple[Prompt, Vision, int], way: Callable[..., Any]) -> None:
    prompt, vision, length = scene
    for slots in (length, length + 5, length + 7):
        plan = Edits(jnp.zeros((LAYERS, 1, HEADS, 1, slots)))
        with pytest.raises(InputError, match=re.escape(f"key: {length + 6} or 1")):
            way(toy.model, prompt, vision, plan, GREEDY, 0, max_new=6)


@pytest.mark.parametrize(
    "given",
    [{"temperature": -1.0}, {"temperature": np.nan}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"stop": [-1]}],
    ids=str,
)
def test_sampling_that_makes_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        Sampling.make(**given)


@pytest.mark.parametrize("first", ["jax", "gaze", "convert", "experiments"])
def test_the_fusion_is_off_whoever_imports_the_package(first: str) -> None:
    code = f"import {first}, qwen3vl_jax, os; print(os.environ['XLA_FLAGS'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert "--xla_cpu_experimental_ynn_fusion_type=" in done.stdout, done.stderr


def test_a_backend_that_was_started_before() -> None:
    code = "import jax; jax.devices(); import qwen3vl_jax"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert "JAX was started before qwen3vl_jax was imported" in done.stderr


def test_attention_to_an_empty_cache_reads_only_what_was_written() -> None:
    """Freed memory is filled with NaN, and the fusion is on: what stands in `attend` itself has to do."""
    script = Path(__file__).with_name("empty_cache_attention.py")
    given = environment() | {"MALLOC_PERTURB_": "255"}
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, env=given)
    assert done.stdout.split()[-1] == "0", done.stdout + done.stderr
