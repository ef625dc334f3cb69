"""What a plan costs, counted in the program that JAX makes of it: passes through the decoder, not what anyone says of it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr

from qwen3vl_jax.generation.decoding import Plan, ReadingPlan, State, choose_first, decode, read_prompt, vocabulary
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL


class Passes(NamedTuple):
    """How many rows go through all layers of the decoder, for one row of an answer: to read the prompt, and for each token."""

    prompt: float
    token: float


def count_passes(
    model: Qwen3VL, prompt: Prompt, images: Images | None, plan: Plan | ReadingPlan | None, max_new: int = 2
) -> Passes:
    """Counts the passes of a plan; nothing is computed."""
    batch, length = prompt.tokens.shape
    keys, limit = jax.random.split(jax.random.key(0), batch), jax.numpy.full((batch,), max_new)
    sampling = Sampling.make()

    def two_steps(model: Qwen3VL, prompt: Prompt, images: Images | None, plan: Plan | ReadingPlan | None) -> State:
        vision = None if images is None else model.encode(images)
        read = read_prompt(model, prompt, vision, plan, max_new)
        state = choose_first(read, vocabulary(model, prompt), sampling, keys, limit, max_new=max_new)
        return decode(model, state, plan, sampling)

    text = model.config.text
    program = jax.make_jaxpr(two_steps)(model, prompt, images, plan)
    scans = [one for one in _equations(program.jaxpr) if one.primitive.name == "scan" and one.outvars]
    # What a loop hands on from layer to layer stands first among what it gives.
    streams = [one.outvars[0].aval.shape for one in scans if one.params["length"] == text.num_hidden_layers]
    passes = {n: sum(shape[0] for shape in streams if shape[1:] == (n, text.hidden_size)) for n in (length, 1)}
    return Passes(passes[length] / batch, passes[1] / batch)


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(one, "jaxpr", one)  # of a closed one
                if isinstance(inner, Jaxpr):
                    yield from _equations(inner)
