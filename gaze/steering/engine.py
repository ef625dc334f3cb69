"""Many questions about many strips: discovery and steered answers, in batches of few shapes and over any mesh.

A strip is encoded once and what its prompts share is read once (`qwen3vl_jax.generation.shared_prefix`); its answers decode
together with those of other strips, and one that is finished gives way to the next (`continuous_batching`, beside it).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, Num, PyTree

from gaze.discovery.scores import Mass, panel_attention, split
from gaze.heads import Head, HeadSet
from gaze.pictures.padding_buckets import Shape, chunks, shapes
from gaze.pictures.regions import region_keys
from gaze.pictures.strips import Picture
from gaze.steering.masks import Steering, as_mask, check_how, first_query, steering
from qwen3vl_jax.checks import require_count, require_finite, require_shape, require_type
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown
from qwen3vl_jax.generation import continuous_batching
from qwen3vl_jax.generation.continuous_batching import FREE, Prefilled
from qwen3vl_jax.generation.decoding import State, begin, vocabulary
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.generation.shared_prefix import SharedPrefix, fork, prefill_shared
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Batch, Processor
from qwen3vl_jax.sharding import across, fetch, local_rows, mesh_of, spread
from qwen3vl_jax.vision import Vision

TOKENS = 2**13
"""Tokens of prompts that a device reads at once: more would take memory and no less time."""

Progress = Callable[[int], object]
"""Called with the number of prompts that have just been done."""


@dataclass(frozen=True)
class Request:
    """One answer to be generated.

    Attributes:
      strip: its number in the list of strips.
      heads: 1 at the heads to steer; or a `HeadSet`, or pairs (layer, head).
      targets: panel to look at in each step, from 0, -1 for none; the last one holds (see `gaze.steering.masks.schedule`).
        A single number is one for all steps.
      strength, mode, bias, query_positions: see `gaze.steering.masks.steering`.

    Raises InputError for a strip, targets or a way of steering that cannot be.
    """

    strip: int
    heads: Num[np.ndarray, "layer heads"] | HeadSet | Sequence[Head]
    targets: Int[np.ndarray, " step"] | Sequence[int] | int
    strength: float = 10_000.0
    mode: str = "boost_suppress"
    bias: str = "add"
    query_positions: str = "all"

    def __post_init__(self) -> None:
        require_count("strip of a Request", self.strip, 0)
        check_how(self.strength, self.mode, self.bias, self.query_positions)
        targets = np.atleast_1d(np.asarray(self.targets))
        if targets.ndim != 1 or not targets.size or targets.dtype.kind not in "iu" or targets.min() < -1:
            raise InputError(f"targets are {shown(self.targets)}, but should be numbers of panels from 0, -1 for none")
        object.__setattr__(self, "targets", targets.astype(np.int32))

    def checked(self, model: Qwen3VL, strips: Sequence[Picture], place: int) -> "Request":
        """The same with its heads as a mask. Raises InputError unless model and strips have what it names.

        Args:
          place: of this request among others, for errors.
        """
        if self.strip >= len(strips):
            raise InputError(f"requests[{place}] is about strip {self.strip}, but there are {len(strips)}, from 0")
        most = int(self.steps.max())
        if most >= len(strips[self.strip]):
            raise InputError(
                f"requests[{place}] has target {most}, but strip {self.strip} has {len(strips[self.strip])} panels, from 0"
            )
        text = model.config.text
        shape = text.num_hidden_layers, text.num_attention_heads
        mask = as_mask(self.heads, shape)[:, 0]
        require_shape(f"heads of requests[{place}]", mask, dict(layers=shape[0], heads=shape[1]))
        require_finite(f"heads of requests[{place}]", mask)
        return replace(self, heads=mask.astype(np.float32))

    @property
    def mask(self) -> Float32[np.ndarray, "layer heads"]:
        """1 at the heads to steer, of a request that has been `checked`."""
        assert isinstance(self.heads, np.ndarray)
        return self.heads

    @property
    def steps(self) -> Int32[np.ndarray, " step"]:
        """The targets as an array."""
        assert isinstance(self.targets, np.ndarray)
        return self.targets

    @property
    def touches_prompt(self) -> bool:
        """Whether the prompt is read in another way than without steering."""
        return self.first < len(self.mask)

    @property
    def first(self) -> int:
        """The first layer in which the prompt is read in another way; the number of layers if there is none."""
        steered = np.flatnonzero(self.mask.any(axis=1))
        alone = self.steps[0] < 0 or self.query_positions == "decoded" or not len(steered)
        return len(self.mask) if alone else int(steered[0])


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are generated: how to sample and when to stop, and how many strips and answers at once."""

    sampling: Sampling
    max_new: int
    batch: int = 96
    strips: int = 16

    def __post_init__(self) -> None:
        require_type("sampling", self.sampling, Sampling, "a Sampling, as `Sampling.make` gives it")
        for name in ("max_new", "batch", "strips"):
            require_count(name, getattr(self, name))


class EncodedStrips(NamedTuple):
    """Some strips with one question each: prompts, cells of each strip and keys of each panel."""

    prompt: Prompt
    vision: Vision
    panels: Bool[np.ndarray, "strip panel key"]


def unsteered(model: Qwen3VL, strip: int) -> Request:
    """The model left alone."""
    text = model.config.text
    heads = np.zeros((text.num_hidden_layers, text.num_attention_heads), np.float32)
    return Request(strip, heads, np.full(1, -1, np.int32))


def discover(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    questions: Sequence[str],
    *,
    batch: int = 10,
    progress: Progress = lambda done: None,
) -> Mass:
    """How much the last prompt token looks at each panel, for each of the `questions` (one per panel) about each strip.

    Strips are spread over the data axis of the mesh on which the model lies, if any.

    Returns:
      Mass [strip, question, layer, head, panel] of every head; see `gaze.discovery.scores` for what to make of it.

    Raises:
      InputError: names the argument that does not fit, and for attention that is not a number.
    """
    _check(model, processor, strips)
    _check_texts("questions", questions)
    require_count("batch", batch)
    texts = [processor.chat(question) for question in questions]
    size = _size(model, batch, len(strips))
    found: dict[int, np.ndarray] = {}
    for shape, numbers in chunks(shapes(processor, strips, [texts] * len(strips)), size):
        mesh = mesh_of(model)
        some = _fill([strips[number] for number in numbers], size, local_rows(mesh, size))
        shows = [[number] for number in range(len(some)) for _ in texts]
        pictures = [strip.image for strip in some]
        asked = processor(texts * len(some), shows, length=shape.length, patches=shape.patches, pictures=pictures)
        prefix, suffixes = split(asked.prompt, len(some), shape.prefix, shape.suffix)
        keys = _panel_keys(some, asked, prefix.image_cell, processor)
        inputs = spread((_images(asked), prefix, suffixes, keys), mesh, size)
        mass = fetch(panel_attention(model, inputs[0].replace(groups=size), *inputs[1:]))
        require_finite("the attention on panels", mass)
        found |= zip(numbers, mass, strict=False)
        progress(len(numbers) * len(questions))
    # Strips read together may have more panels than these; panels that a strip does not have get nothing.
    most = max(mass.shape[-1] for mass in found.values())
    padded = {number: np.pad(mass, ((0, 0),) * 3 + ((0, most - mass.shape[-1]),)) for number, mass in found.items()}
    return np.stack([padded[number] for number in range(len(strips))])


def answers(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    question: str | Sequence[str],
    requests: Sequence[Request],
    settings: GenerationOptions,
    progress: Progress = lambda done: None,
    shape: Shape | None = None,
) -> list[Int32[np.ndarray, " token"]]:
    """The tokens of the answer to every request, in their order; over a mesh as `discover`.

    Args:
      question: for all strips, or one for each.
      shape: what holds all of these strips and prompts. If given, fewer strips than `settings.strips` are filled up, as
        others are to follow.

    Raises:
      InputError: names the argument, or the request, that does not fit, before anything is read.
    """
    _check(model, processor, strips)
    questions = [question] * len(strips) if isinstance(question, str) else list(question)
    _check_texts("question", questions, len(strips))
    require_type("settings", settings, GenerationOptions, "GenerationOptions")
    for place, request in enumerate(requests):
        require_type(f"requests[{place}]", request, Request, "a Request")
    requests = [request.checked(model, strips, place) for place, request in enumerate(requests)]
    texts = {one: [processor.chat(one)] for one in set(questions)}
    fits = [shape] * len(strips) if shape else shapes(processor, strips, [texts[one] for one in questions])
    size = _size(model, settings.strips, settings.strips if shape else len(strips))
    said: dict[int, np.ndarray] = {}
    for room, numbers in chunks(fits, size):
        rows = [[number for number, request in enumerate(requests) if request.strip == strip] for strip in numbers]
        if not any(rows):
            continue
        mine = local_rows(mesh_of(model), size)
        some = _fill([strips[number] for number in numbers], size, mine)
        asked = ([questions[number] for number in numbers] + [questions[numbers[-1]]] * size)[:size][mine]
        encoded = encode(model, processor, some, asked, room, size)
        rows += [[]] * (size - len(rows))
        most = max(map(len, rows))
        copies = _evenly(most, max(settings.batch // size, 1))
        batches = _prefilled_batches(model, encoded, rows, copies, requests, settings, room)
        for number, tokens in continuous_batching.run(model, batches, settings.sampling, _shards(model), size * copies):
            said[number] = tokens
            progress(1)
    return [said[number] for number in range(len(requests))]


def encode(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    questions: Sequence[str],
    shape: Shape | None = None,
    rows: int | None = None,
) -> EncodedStrips:
    """Prompts and image tokens of some strips, one question each.

    Args:
      shape: what to pad to, by default the least.
      rows: if given, these are this process's part of so many strips, which are spread over the model's mesh.

    Raises:
      InputError: names the argument that does not fit.
    """
    _check(model, processor, strips)
    _check_texts("questions", questions, len(strips))
    length, patches = (None, None) if shape is None else (shape.length, shape.patches)
    texts, pictures = [processor.chat(text) for text in questions], [[strip.image] for strip in strips]
    asked = processor(texts, pictures, length=length, patches=patches)
    mesh, images = mesh_of(model), _images(asked)
    images = across(images, mesh) if rows is None else spread(images, mesh, rows).replace(groups=rows)
    panels = _panel_keys(strips, asked, asked.prompt.image_cell, processor)
    return EncodedStrips(asked.prompt, _encode(model, images), panels)


def _prefilled_batches(
    model: Qwen3VL,
    encoded: EncodedStrips,
    rows: Sequence[Sequence[int]],
    copies: int,
    requests: Sequence[Request],
    settings: GenerationOptions,
    shape: Shape,
) -> Iterator[Prefilled]:
    """The answers about some strips, at most `copies` about each at a time; `rows` has the numbers of the requests about each."""
    mesh, mine = mesh_of(model), local_rows(mesh_of(model), len(rows))
    steps = max(len(request.steps) for request in requests)
    prompt, nobody = spread(encoded.prompt, mesh, len(rows)), unsteered(model, 0)
    room = TOKENS * _shards(model) // len(rows)
    shared: tuple[tuple[int, int], SharedPrefix] | None = None
    for start, first, names in _pieces(rows, requests, copies, shape, room):
        if shared is None or shared[0] != (start, first):
            shared = (start, first), _prefill_shared(model, prompt, encoded.vision, np.int32(first), start=start)
        chosen = [nobody if name == FREE else requests[name] for name in names[mine].reshape(-1)]
        prompts, panels = _repeated((encoded.prompt, encoded.panels), names.shape[1])
        plan = spread(_plan(chosen, prompts, panels, steps), mesh, len(rows))
        state = _fork(model, shared[1], prompt, plan, settings.sampling, names.reshape(-1), max_new=settings.max_new)
        yield Prefilled(state, plan, names.reshape(-1))


def _pieces(
    rows: Sequence[Sequence[int]], requests: Sequence[Request], copies: int, shape: Shape, room: int
) -> Iterator[tuple[int, int, Int32[np.ndarray, "strip copy"]]]:
    """Numbers of requests that fork off together, with the first row and the first layer that they change.

    Those that are steered in the highest layers come first, so that much is shared. About each strip there are at most
    `copies`, and no more than have `room` for the tokens that they read.
    """
    starts = {
        n: first_query(requests[n].query_positions, shape.length, shape.suffix)
        for n in chain(*rows)
        if requests[n].touches_prompt
    }
    distinct = sorted(set(starts.values())) or [shape.length - 1]
    for start in distinct:
        # What leaves the prompt alone fits in anywhere.
        group = [[number for number in some if starts.get(number, distinct[0]) == start] for some in rows]
        group = [sorted(some, key=lambda number: -requests[number].first) for some in group]
        wide = _evenly(copies, max(room // (shape.length - start), 1))
        for piece in range(0, max(map(len, group)), wide):
            names = [(some[piece : piece + wide] + [FREE] * wide)[:wide] for some in group]
            first = min(requests[number].first for number in chain(*names) if number != FREE)
            yield start, first, np.array(names, np.int32)


def _repeated(tree: PyTree, copies: int) -> PyTree:
    return jax.tree.map(lambda leaf: np.repeat(leaf, copies, axis=0), tree)


def _evenly(count: int, most: int) -> int:
    """The size of as few parts as can be, of at most so many, that are about equal."""
    return -(-count // -(-count // most))


def _plan(
    requests: Sequence[Request], prompt: Prompt, panels: Bool[np.ndarray, "row panel key"], steps: int
) -> Steering:
    """What steers one row for each request."""
    return steering(
        np.stack([request.mask for request in requests], axis=1),
        prompt,
        panels,
        np.stack([np.pad(request.steps, (0, steps - len(request.steps)), mode="edge") for request in requests]),
        np.array([request.strength for request in requests], np.float32),
        mode=[request.mode for request in requests],
        bias=[request.bias for request in requests],
        query_positions=[request.query_positions for request in requests],
    )


@jax.jit
def _encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)


@partial(jax.jit, static_argnames="start")
def _prefill_shared(
    model: Qwen3VL, prompt: Prompt, vision: Vision, first: Int32[Array, ""], *, start: int
) -> SharedPrefix:
    return prefill_shared(model, prompt, vision, first, start=start)


@partial(jax.jit, static_argnames="max_new")
def _fork(
    model: Qwen3VL,
    shared_prefix: SharedPrefix,
    prompt: Prompt,
    plan: Steering,
    sampling: Sampling,
    names: Int32[Array, " row"],
    *,
    max_new: int,
) -> State:
    copies = len(names) // len(prompt.tokens)
    output = fork(model, shared_prefix, plan.at(0, prompt.tokens.shape[1] + max_new), copies)
    seen = jnp.repeat(vocabulary(model, prompt), copies, axis=0)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(names)
    limit = jnp.where(names == FREE, 1, max_new)
    return begin(model, output, seen, sampling, keys, limit, max_new=max_new)


def _check(model: Qwen3VL, processor: Processor, strips: Sequence[Picture]) -> None:
    require_type("model", model, Qwen3VL, "a Qwen3VL")
    require_type("processor", processor, Processor, "a Processor")
    require_type("strips", strips, Sequence, "a list of pictures")
    if not strips:
        raise InputError("strips is empty: give at least one picture")
    for place, strip in enumerate(strips):
        # Not by the protocol: before Python 3.12 that asks for `image`, and would read every picture of a corpus.
        if not callable(getattr(strip, "cells", None)):
            raise InputError(
                f"strips[{place}] is of type {type(strip).__name__}, but should be a picture with regions, as `Strip` or `Photo`"
            )


def _check_texts(name: str, texts: Sequence[str], count: int | None = None) -> None:
    require_type(name, texts, (list, tuple), "a list of texts")
    for place, text in enumerate(texts):
        require_type(f"{name}[{place}]", text, str, "a text")
    if not texts or (count is not None and len(texts) != count):
        raise InputError(
            f"{name} holds {len(texts)} texts, but should hold {'at least one' if count is None else count}"
        )


def _images(asked: Batch) -> Images:
    assert asked.images is not None
    return asked.images


def _panel_keys(
    strips: Sequence[Picture], asked: Batch, image_cell: Array | np.ndarray | None, processor: Processor
) -> Bool[np.ndarray, "strip panel key"]:
    """Which keys of each strip's row show each of its panels; strip i is picture i."""
    assert image_cell is not None
    merge = processor.settings.merge_size
    stride = _images(asked).patches.shape[1] // merge**2
    keys = []
    for picture, (row, strip) in enumerate(zip(np.asarray(image_cell), strips, strict=True)):
        cells = strip.cells((int(asked.grids[picture][0]), int(asked.grids[picture][1])), merge)
        keys.append(region_keys(row, cells, picture * stride))
    # Regions that a picture does not have cover nothing.
    most = max(map(len, keys))
    return np.stack([np.pad(regions, ((0, most - len(regions)), (0, 0))) for regions in keys])


def _size(model: Qwen3VL, wanted: int, strips: int) -> int:
    """How many strips to take at once: a multiple of the mesh's data axis."""
    shards = _shards(model)
    return -(-min(wanted, strips) // shards) * shards


def _shards(model: Qwen3VL) -> int:
    mesh = mesh_of(model)
    return 1 if mesh is None else mesh.shape["data"]


def _fill(strips: Sequence[Picture], size: int, mine: slice) -> list[Picture]:
    """This process's part of some strips, of which the last one is repeated up to `size`."""
    return [*strips, *[strips[-1]] * (size - len(strips))][mine]
