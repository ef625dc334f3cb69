"""Generation: prefill, then one token at a time, all rows together; whole in one program, or as a stream.

Edits come from a *plan*: any pytree with `at(step, slots) -> Edits | None`. Step t is the pass that produces token t: step 0
is the prefill, step t > 0 reads token t-1. What a plan holds is data, so a new target or schedule compiles nothing.

A plan that depends on what was read before, or makes a token of several passes, is a `ReadingPlan`: it makes the passes itself.
"""

from collections.abc import Iterator
from functools import partial
from types import NoneType
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Key, PyTree, UInt32

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.checks import require_count, require_type
from qwen3vl_jax.edits import Edits
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown
from qwen3vl_jax.generation.sampling import Sampling, choose
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Output, Qwen3VL
from qwen3vl_jax.vision import Vision

Seed = Key[Array, ""] | UInt32[Array | np.ndarray, "2"] | int | np.integer
"""A key for sampling, of the new kind or the old, or a number to make one of."""


@runtime_checkable
class Plan(Protocol):
    """Edits by step. Key axes of the edits have one entry per cache slot (the prompt, then the generated tokens)."""

    def at(self, step: int | Int[Array, "*row"], slots: int) -> Edits | None:
        """`step` is an integer for each row [batch], or one for all; rows of one `generate` are at the same step."""


class Read(NamedTuple):
    """What one step has read.

    Attributes:
      logits: of the next token.
      cache: with what was read.
      carry: what the next step is told; its arrays have a batch axis where their fields declare it (`batch_axes`).
      allowed: the tokens that may come next; None for all.
    """

    logits: Float[Array, "batch vocab"]
    cache: Cache
    carry: PyTree = None
    allowed: Bool[Array, "batch vocab"] | None = None


@runtime_checkable
class ReadingPlan(Protocol):
    """A plan that makes the passes of every step itself, and tells the next step what it has seen."""

    def read_prompt(self, model: Qwen3VL, prompt: Prompt, vision: Vision | None, max_new: int) -> Read:
        """Step 0. The cache of what it gives needs no room; caches that it carries need some for `max_new` tokens."""

    def read_token(
        self, model: Qwen3VL, token: Int32[Array, "batch 1"], cache: Cache, step: Int32[Array, " batch"], carry: PyTree
    ) -> Read:
        """A later step, with what the step before has carried."""


@struct.dataclass
class State:
    """Between two steps. Rows are independent of each other and may be at different steps (see `continuous_batching`).

    Attributes:
      cache: of the prompt, and after it one slot per token of an answer.
      tokens: generated so far; 0 after that.
      length: how many of them, without the stop token.
      limit: how many there may be.
      done: rows that have stopped or reached their limit.
      seen: vocabulary entries that stand in each row.
      step: of the pass that produced the last token.
      keys: for sampling.
      carry: what a plan tells the next step (see `Read`).
    """

    cache: Cache
    tokens: Int32[Array, "batch new"]
    length: Int32[Array, " batch"]
    limit: Int32[Array, " batch"]
    done: Bool[Array, " batch"]
    seen: Bool[Array, "batch vocab"]
    step: Int32[Array, " batch"]
    keys: Key[Array, " batch"]
    carry: PyTree = None

    @property
    def last(self) -> Int32[Array, " batch"]:
        """The token that each row reads next."""
        where = jnp.minimum(self.step, self.tokens.shape[1] - 1)  # rows that are done count on
        return jnp.take_along_axis(self.tokens, where[:, None], axis=1)[:, 0]


@struct.dataclass
class Generation:
    """Generated tokens; after `length` (which does not count the stop token) a row repeats its last token.

    `carry` is what a `ReadingPlan` would have told the next step.
    """

    tokens: Int32[Array, "batch new"]
    length: Int32[Array, " batch"]
    carry: PyTree = None


def prefill(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    key: Key[Array, ""],
    max_new: int,
) -> State:
    """Reads the prompt and chooses token 0 of every row; leaves room for `max_new` tokens."""
    batch = len(prompt.tokens)
    read = read_prompt(model, prompt, vision, plan, max_new)
    keys, limit = jax.random.split(key, batch), jnp.full((batch,), max_new)
    return choose_first(read, vocabulary(model, prompt), sampling, keys, limit, max_new=max_new)


def read_prompt(
    model: Qwen3VL, prompt: Prompt, vision: Vision | None, plan: Plan | ReadingPlan | None, max_new: int
) -> Read:
    """Step 0: reads the prompt under a plan of `max_new` tokens."""
    if isinstance(plan, ReadingPlan):
        return plan.read_prompt(model, prompt, vision, max_new)
    batch, length = prompt.tokens.shape
    edits = None if plan is None else plan.at(jnp.zeros((batch,), jnp.int32), length + max_new)
    if edits is not None:
        edits.check(model.config.text, batch, length, length + max_new)
        edits = edits.upto(length)
    output = model(prompt, vision, edits=edits)
    return Read(model.logits(output.hidden[:, -1]), output.cache)


def vocabulary(model: Qwen3VL, prompt: Prompt) -> Bool[Array, "batch vocab"]:
    """Which tokens stand in each row."""
    batch = len(prompt.tokens)
    none = jnp.zeros((batch, model.config.text.vocab_size), bool)
    return none.at[jnp.arange(batch)[:, None], prompt.tokens].max(jnp.asarray(prompt.valid))


def begin(
    model: Qwen3VL,
    output: Output,
    seen: Bool[Array, "batch vocab"],
    sampling: Sampling,
    keys: Key[Array, " batch"],
    limit: Int32[Array, " batch"],
    *,
    max_new: int,
) -> State:
    """Chooses token 0 of every row, whose prompt gave `output` and filled its cache; other arguments as in `State`."""
    read = Read(model.logits(output.hidden[:, -1]), output.cache)
    return choose_first(read, seen, sampling, keys, limit, max_new=max_new)


def choose_first(
    read: Read,
    seen: Bool[Array, "batch vocab"],
    sampling: Sampling,
    keys: Key[Array, " batch"],
    limit: Int32[Array, " batch"],
    *,
    max_new: int,
) -> State:
    """Chooses token 0 of every row, of whose prompt so much was read; other arguments as in `State`."""
    batch = len(limit)
    nothing = jnp.zeros((batch,), jnp.int32)
    roomy = read._replace(cache=read.cache.fork(1, max_new))
    fresh = State(
        cache=roomy.cache,
        tokens=jnp.zeros((batch, max_new), jnp.int32),
        length=nothing,
        limit=limit,
        done=jnp.zeros((batch,), bool),
        seen=seen,
        step=nothing - 1,
        keys=keys,
    )
    return _choose(fresh, roomy, sampling)


def decode(model: Qwen3VL, state: State, plan: Plan | ReadingPlan | None, sampling: Sampling) -> State:
    """Every row reads its last token and chooses the next."""
    # Slots of answers are used in turn, so that a row may begin where others are about to end.
    token, cache = state.last[:, None], state.cache.turned(state.tokens.shape[1])
    if isinstance(plan, ReadingPlan):
        return _choose(state, plan.read_token(model, token, cache, state.step + 1, state.carry), sampling)
    edits = None if plan is None else plan.at(state.step + 1, cache.slots)
    output = model.extend(token, cache, edits)
    return _choose(state, Read(model.logits(output.hidden[:, -1]), output.cache), sampling)


def generate(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    key: Seed,
    *,
    max_new: int,
) -> Generation:
    """Generates at most `max_new` tokens for every row; ends as soon as all rows have stopped.

    Args:
      plan: what steers each step (see the head of this file), or None.
      key: for sampling; an integer is a seed.

    Raises:
      InputError: as a call of the model, and for arguments of other types.
    """
    key = _checked(model, prompt, vision, plan, sampling, key, max_new)
    generated: Generation = _generate(model, prompt, vision, plan, sampling, key, max_new=max_new)
    return generated


@partial(jax.jit, static_argnames="max_new")
def _generate(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    key: Key[Array, ""],
    *,
    max_new: int,
) -> Generation:
    return go_on(model, prefill(model, prompt, vision, plan, sampling, key, max_new), plan, sampling)


def _checked(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    key: Seed,
    max_new: int,
) -> Key[Array, ""]:
    """Raises InputError for arguments that `jit` would refuse in its own words; returns the key."""
    require_type("model", model, Qwen3VL, "a Qwen3VL")
    require_type("prompt", prompt, Prompt, "a Prompt, as the Processor makes it")
    known = "a plan, with a method `at(step, slots)` or `read_prompt` and `read_token`, or None"
    require_type("plan", plan, (Plan, ReadingPlan, NoneType), known)
    require_type("sampling", sampling, Sampling, "a Sampling, as `Sampling.make` gives it")
    require_count("max_new", max_new)
    prompt.check(model.config.text.vocab_size)
    return seeded(key)


def seeded(key: Seed) -> Key[Array, ""]:
    """A key for sampling from a key, old or new, or a seed. Raises InputError for anything else."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return jnp.asarray(key)
        if key.dtype == np.uint32 and key.shape == (2,):
            wrapped: Array = jax.random.wrap_key_data(jnp.asarray(key))
            return wrapped
    raise InputError(f"key is {shown(key)}, but should be a seed or a key: jax.random.key(0)")


def go_on(model: Qwen3VL, state: State, plan: Plan | ReadingPlan | None, sampling: Sampling) -> Generation:
    """Generates until all rows have stopped."""

    def step(state: State) -> State:
        return decode(model, state, plan, sampling)

    state = lax.while_loop(lambda state: ~jnp.all(state.done), step, state)
    # The loop may have ended early; each row goes on with its own last token.
    produced = jnp.arange(state.tokens.shape[1])[None, :] <= state.step[:, None]
    last = jnp.take_along_axis(state.tokens, jnp.minimum(state.length, state.limit - 1)[:, None], axis=1)
    return Generation(jnp.where(produced, state.tokens, last), state.length, state.carry)


_prefill = jax.jit(prefill, static_argnames="max_new")
_decode = jax.jit(decode, donate_argnames="state")


def stream(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | ReadingPlan | None,
    sampling: Sampling,
    key: Seed,
    *,
    max_new: int,
) -> Iterator[tuple[Int32[np.ndarray, " batch"], Bool[np.ndarray, " batch"]]]:
    """The same, one step at a time: yields every step's tokens and which rows have said their stop token."""
    key = _checked(model, prompt, vision, plan, sampling, key, max_new)
    state = _prefill(model, prompt, vision, plan, sampling, key, max_new)
    for step in range(max_new):
        if step:
            state = _decode(model, state, plan, sampling)
        token, stopped = np.asarray(state.last), np.asarray(state.length) <= step
        yield token, stopped
        if stopped.all():
            return


def _choose(state: State, read: Read, sampling: Sampling) -> State:
    batch, step = len(state.done), state.step + 1
    keys, use = jnp.unstack(jax.vmap(jax.random.split)(state.keys), axis=1)
    logits = read.logits if read.allowed is None else jnp.where(read.allowed, read.logits, -jnp.inf)
    token = choose(logits, state.seen, sampling, use)
    rows = jnp.arange(batch)
    token = jnp.where(state.done, state.tokens[rows, jnp.minimum(state.length, state.limit - 1)], token)
    stopped = state.done | jnp.any(token[:, None] == sampling.stop[None, :], axis=1)
    return State(
        cache=read.cache,
        tokens=state.tokens.at[rows, step].set(token, mode="drop"),
        length=state.length + (~stopped).astype(jnp.int32),
        limit=state.limit,
        done=stopped | (step + 1 >= state.limit),
        seen=state.seen.at[rows, token].set(True),
        step=step,
        keys=keys,
        carry=read.carry,
    )
