"""Generation: prefill, then one token at a time, all rows together; whole in one program, or as a stream.

Edits come from a *plan*: any pytree with `at(step, slots) -> Edits | None`. Step t is the pass that produces token t: step 0
is the prefill, step t > 0 reads token t-1. What a plan holds is data, so a new target or schedule compiles nothing.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Int32, Key

from qwen3vl_jax.cache import Cache
from qwen3vl_jax.edits import Edits
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Output, Qwen3VL
from qwen3vl_jax.sampling import Sampling, choose
from qwen3vl_jax.vision import Vision


@runtime_checkable
class Plan(Protocol):
    """Edits by step; key axes of the edits have one entry per cache slot (the prompt, then the generated tokens)."""

    def at(self, step: Any, slots: int) -> Edits | None: ...


@struct.dataclass
class State:
    """Between two steps.

    Attributes:
      token: produced last, not yet read.
      done: rows that have stopped; they go on producing their stop token.
      seen: vocabulary entries that stand in each row.
      step: of the pass that produced `token`.
    """

    cache: Cache
    token: Int32[Array, "batch"]
    done: Bool[Array, "batch"]
    seen: Bool[Array, "batch vocab"]
    step: Int32[Array, ""]
    key: Key[Array, ""]


@struct.dataclass
class Generation:
    """Generated tokens; behind `length` (which does not count the stop token) a row repeats its stop token."""

    tokens: Int32[Array, "batch new"]
    length: Int32[Array, "batch"]


def prefill(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | None,
    sampling: Sampling,
    key: Key[Array, ""],
    slots: int,
) -> State:
    """Reads the prompt into a cache of `slots` and chooses token 0 of every row."""
    batch = prompt.tokens.shape[0]
    edits = None if plan is None else plan.at(jnp.zeros((), jnp.int32), slots)
    output = model(prompt, vision, model.empty_cache(batch, slots), edits)
    rows = jnp.arange(batch)[:, None]
    vocab = model.config.text.vocab_size
    seen = jnp.zeros((batch, vocab), bool).at[rows, prompt.tokens].max(jnp.asarray(prompt.valid))
    fresh = State(
        cache=output.cache,
        token=jnp.zeros((batch,), jnp.int32),
        done=jnp.zeros((batch,), bool),
        seen=seen,
        step=jnp.full((), -1, jnp.int32),
        key=key,
    )
    return _choose(model, fresh, output, sampling)


def decode(model: Qwen3VL, state: State, plan: Plan | None, sampling: Sampling) -> State:
    """Reads the last token and chooses the next."""
    edits = None if plan is None else plan.at(state.step + 1, state.cache.slots)
    return _choose(model, state, model.extend(state.token[:, None], state.cache, edits), sampling)


@partial(jax.jit, static_argnames="max_new")
def generate(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | None,
    sampling: Sampling,
    key: Key[Array, ""],
    *,
    max_new: int,
) -> Generation:
    """At most `max_new` tokens for every row; ends as soon as all rows have stopped."""
    batch, length = prompt.tokens.shape
    state = prefill(model, prompt, vision, plan, sampling, key, length + max_new)
    tokens = jnp.zeros((batch, max_new), jnp.int32).at[:, 0].set(state.token)

    def more(carry: tuple[State, Array, Array]) -> Bool[Array, ""]:
        state, _, _ = carry
        return (state.step + 1 < max_new) & ~jnp.all(state.done)

    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, tokens, length = carry
        state = decode(model, state, plan, sampling)
        return state, tokens.at[:, state.step].set(state.token), length + (~state.done).astype(jnp.int32)

    state, tokens, length = lax.while_loop(more, body, (state, tokens, (~state.done).astype(jnp.int32)))
    # The loop may have ended early; each row goes on with its own stop token.
    tokens = jnp.where(jnp.arange(max_new)[None, :] < length[:, None], tokens, state.token[:, None])
    return Generation(tokens, length)


_prefill = jax.jit(prefill, static_argnames="slots")
_decode = jax.jit(decode, donate_argnames="state")


def stream(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    plan: Plan | None,
    sampling: Sampling,
    key: Key[Array, ""],
    *,
    max_new: int,
) -> Iterator[tuple[Int32[np.ndarray, "batch"], Bool[np.ndarray, "batch"]]]:
    """The same, one step at a time: yields every step's tokens and which rows have stopped with it."""
    state = _prefill(model, prompt, vision, plan, sampling, key, prompt.tokens.shape[1] + max_new)
    for step in range(max_new):
        if step:
            state = _decode(model, state, plan, sampling)
        token, done = np.asarray(state.token), np.asarray(state.done)
        yield token, done
        if done.all():
            return


def _choose(model: Qwen3VL, state: State, output: Output, sampling: Sampling) -> State:
    key, use = jax.random.split(state.key)
    token = choose(model.logits(output.hidden[:, -1]), state.seen, sampling, use)
    token = jnp.where(state.done, state.token, token)
    stopped = jnp.any(token[:, None] == sampling.stop[None, :], axis=1)
    seen = state.seen.at[jnp.arange(token.shape[0]), token].set(True)
    return State(output.cache, token, state.done | stopped, seen, state.step + 1, key)
