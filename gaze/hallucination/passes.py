"""What a plan costs, counted in the program that JAX makes of it: passes through the decoder, not what anyone says of it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr

from qwen3vl_jax.generation.decoding import Plan, ReadingPlan, choose_first, decode, read_prompt, vocabulary
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

    def begin(model: Qwen3VL, prompt: Prompt, images: Images | None, plan: Plan | ReadingPlan | None) -> Any:
        vision = None if images is None else model.encode(images)
        read = read_prompt(model, prompt, vision, plan, max_new)
        return choose_first(read, vocabulary(model, prompt), sampling, keys, limit, max_new=max_new)

    def go_on(model: Qwen3VL, state: Any, plan: Plan | ReadingPlan | None) -> Any:
        return decode(model, state, plan, sampling)

    state = jax.eval_shape(begin, model, prompt, images, plan)
    return Passes(
        _rows(begin, (model, prompt, images, plan), model, length) / batch,
        _rows(go_on, (model, state, plan), model, 1) / batch,
    )


def _rows(function: Callable[..., Any], arguments: tuple[Any, ...], model: Qwen3VL, queries: int) -> int:
    """Rows of `queries` tokens that go through the layers of the decoder in a program."""
    text = model.config.text
    wanted = (queries, text.hidden_size)
    program = jax.make_jaxpr(function)(*arguments)
    scans = (one for one in _equations(program.jaxpr) if one.primitive.name == "scan" and one.outvars)
    # What a loop hands on from layer to layer stands first among what it gives.
    streams = (one.outvars[0].aval.shape for one in scans if one.params["length"] == text.num_hidden_layers)
    return sum(shape[0] for shape in streams if shape[1:] == wanted)


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(one, "jaxpr", one)  # of a closed one
                if isinstance(inner, Jaxpr):
                    yield from _equations(inner)
