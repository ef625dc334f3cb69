"""Models made from a checkpoint of which it is known whether they have gaze heads: with them, without them, or in between.

What is altered is found by measuring: the heads that look (`gaze.discovery.verdict.looking`), and the tokens in which questions
about panels differ.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.data.sources import open_source
from experiments.paper.e1_discovery import panel_questions
from experiments.testbed.broken import Weights, scrambled, untrained, write
from experiments.testbed.testbeds import TESTBED, find_testbed
from gaze.discovery.verdict import looking
from gaze.heads import Head
from gaze.pictures.strips import Strip
from gaze.steering.engine import discover
from qwen3vl_jax.config import Config
from qwen3vl_jax.load import load, load_model
from qwen3vl_jax.processing.processor import Processor
from qwen3vl_jax.weights import disassemble

LAYER = "model.language_model.layers.{}.{}.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
STRIPS, PANELS = 24, 6
CLEAN, LOST = 0.02, 1.0
"""Noise, as a share of each matrix's standard deviation, up to which a model is as good as unaltered, and from which nothing
of it is left. Between them is the grey zone."""

Truth = Literal["yes", "no", "grey"]
Alter = Callable[["Source", np.random.Generator], Weights]


@dataclass(frozen=True)
class Source:
    """A checkpoint to make others from.

    Attributes:
      strips: on which it is measured; no diagnosis at seed 0 sees them.
      heads: those that look.
      ordinals: the tokens that name each panel in a question, one per place in which questions differ.
    """

    folder: Path
    strips: Sequence[Strip]
    heads: Sequence[Head]
    ordinals: Sequence[Sequence[int]]

    @classmethod
    def open(cls, folder: Path) -> "Source":
        """Measures a checkpoint."""
        strips = open_source(find_testbed(folder) or TESTBED, 1, {"discovery": STRIPS}, False, PANELS).draw(
            "discovery", STRIPS
        )
        return cls(folder, strips, _looking(folder, strips), _ordinals(Processor.load(folder)))

    @property
    def weights(self) -> Weights:
        """A copy."""
        return {name: np.array(one) for name, one in disassemble(load_model(self.folder, jnp.float32)).items()}

    def looking(self, weights: Weights) -> list[Head]:
        """The heads that look in a model of other weights."""
        with TemporaryDirectory() as place:
            write(weights, Path(place) / "model", self.folder)
            return _looking(Path(place) / "model", self.strips)


@dataclass(frozen=True)
class Altered:
    """A model that is made: its kind, whether it has gaze heads, and why that is known."""

    name: str
    kind: str
    truth: Truth
    why: str
    alter: Alter
    seed: int

    def make(self, source: Source) -> Weights:
        return self.alter(source, np.random.default_rng([self.seed, 11]))


def models() -> list[Altered]:
    """Returns every model of the suite."""
    return [*_alike(), *_without(), *_disconnected(), *_beside(), *_by_degrees()]


def _alike() -> Iterator[Altered]:
    same = "computes the same as the source"
    yield Altered("unaltered", "same", "yes", "is the source", lambda source, rng: source.weights, 0)
    for seed in range(3):
        yield Altered(f"heads in another order {seed}", "same", "yes", same, _heads_in_another_order, seed)
    yield Altered("values and outputs rescaled", "same", "yes", same, _values_rescaled, 0)
    yield Altered("norms folded into projections", "same", "yes", same, _norms_folded, 0)
    yield Altered("MLP units in another order", "same", "yes", same, _units_in_another_order, 0)
    for level in (0.002, 0.01, CLEAN):
        yield Altered(f"noise of {level:g}", "same", "yes", "differs by less than training steps do", _noised(level), 0)


def _without() -> Iterator[Altered]:
    for seed in range(6):
        why = "was never trained"
        yield Altered(f"untrained {seed}", "untrained", "no", why, partial(_untrained, seed), seed)
    for seed in range(6):
        why = "heads look for what other layers' heads looked for"
        yield Altered(f"queries scrambled {seed}", "scrambled", "no", why, partial(_scrambled, seed), seed)
    why = "cannot know which panel is asked about, so heads attend by place alone"
    yield Altered("numbers alike", "position only", "no", why, partial(_renumbered, None), 0)
    for panel in range(0, 6, 2):
        title = f"every number is {panel + 1}"
        yield Altered(title, "position only", "no", why, partial(_renumbered, [panel] * 6), panel)
    why = "the picture has no content, so looking at it moves nothing"
    yield Altered("blind", "disconnected", "no", why, _blind, 0)
    for level in (LOST, 2.0):
        yield Altered(f"noise of {level:g}", "noised", "no", "the weights are lost in noise", _noised(level), 0)


def _disconnected() -> Iterator[Altered]:
    why = "the heads that look write {}, so that nothing follows from where they look"
    yield Altered("outputs zeroed", "disconnected", "no", why.format("nothing"), _outputs(partial(_scaled, 0.0)), 0)
    for seed in range(4):
        alter = _outputs(lambda out, rng: rng.permuted(out, axis=0))
        yield Altered(
            f"outputs scrambled {seed}", "disconnected", "no", why.format("into other directions"), alter, seed
        )
    for seed in range(3):
        alter = _outputs(lambda out, rng: (out.std() * rng.standard_normal(out.shape)).astype(out.dtype))
        yield Altered(f"outputs at random {seed}", "disconnected", "no", why.format("at random"), alter, seed)


def _beside() -> Iterator[Altered]:
    why = "asked about one panel, heads look at another, and so do the answers; steering works as before"
    for shift in (1, 2, 5):
        order = [(panel + shift) % 6 for panel in range(6)]
        yield Altered(f"{shift} further", "beside", "no", why, partial(_renumbered, order), shift)
    yield Altered("from the right", "beside", "no", why, partial(_renumbered, [*reversed(range(6))]), 0)
    yield Altered("some other order", "beside", "no", why, partial(_renumbered, [2, 0, 4, 5, 3, 1]), 0)


def _by_degrees() -> Iterator[Altered]:
    for level in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        why = "some of what was learned is left"
        yield Altered(f"noise of {level:g}", "noised", "grey", why, _noised(level), 0)
    for share in (0.5, 0.25, 0.1):
        why = "the heads that look write less than they did"
        yield Altered(f"outputs times {share:g}", "weakened", "grey", why, _outputs(partial(_scaled, share)), 0)


def _looking(folder: Path, strips: Sequence[Strip]) -> list[Head]:
    model, processor = load(folder, "float32")
    return looking(discover(model, processor, strips, panel_questions(PANELS), batch=8))


def _ordinals(processor: Processor) -> list[list[int]]:
    rows = [[*processor.tokenizer(question)["input_ids"]] for question in panel_questions(PANELS)]
    if len({*map(len, rows)}) > 1:
        raise ValueError("questions about different panels have different numbers of tokens")
    differ = [place for place, tokens in enumerate(zip(*rows, strict=True)) if len({*tokens}) == PANELS]
    return [[row[place] for place in differ] for row in rows]


def _untrained(seed: int, source: Source, rng: np.random.Generator) -> Weights:
    return untrained(source.folder, seed)


def _scrambled(seed: int, source: Source, rng: np.random.Generator) -> Weights:
    return scrambled(source.folder, seed)


def _outputs(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Alter:
    """Changes what the heads that look write; and those that look only then, so that none is left."""

    def alter(source: Source, rng: np.random.Generator) -> Weights:
        size, heads = Config.load(source.folder).text.head_dim, [*source.heads]
        while True:
            weights, draw = source.weights, deepcopy(rng)
            for layer, head in heads:
                out = weights[LAYER.format(layer, "self_attn.o_proj")]
                mine = slice(head * size, (head + 1) * size)
                out[:, mine] = change(out[:, mine], draw)
            more = [head for head in source.looking(weights) if head not in heads]
            if not more:
                return weights
            heads += more

    return alter


def _scaled(by: float, out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return by * out


def _renumbered(order: Sequence[int] | None, source: Source, rng: np.random.Generator) -> Weights:
    """Gives the words for panels the meaning of others; all the same one if there is no order."""
    weights = source.weights
    embedding = weights[EMBEDDING]
    tokens = np.array(source.ordinals)
    meaning = embedding[tokens]
    embedding[tokens] = meaning.mean(axis=0) if order is None else meaning[list(order)]
    return weights


def _blind(source: Source, rng: np.random.Generator) -> Weights:
    weights = source.weights
    for name in weights:
        if name.startswith("model.visual.") and "merger" in name and "linear_fc2" in name:
            weights[name] = 0 * weights[name]
    return weights


def _noised(level: float) -> Alter:
    def alter(source: Source, rng: np.random.Generator) -> Weights:
        return {
            name: _with_noise(one, level, rng) if "language_model" in name else one
            for name, one in source.weights.items()
        }

    return alter


def _with_noise(one: Float[np.ndarray, "..."], level: float, rng: np.random.Generator) -> np.ndarray:
    if one.ndim < 2:
        return one
    noisy: np.ndarray = one + level * one.std() * rng.standard_normal(one.shape).astype(one.dtype)
    return noisy


def _heads_in_another_order(source: Source, rng: np.random.Generator) -> Weights:
    """Permutes groups of heads that share keys, and the heads of each group, with all that belongs to them."""
    weights, text = source.weights, Config.load(source.folder).text
    groups, size = text.num_key_value_heads, text.head_dim
    members = text.num_attention_heads // groups
    for layer in range(text.num_hidden_layers):
        group = rng.permutation(groups)
        head = np.concatenate([one * members + rng.permutation(members) for one in group])
        for name, order, axis in (("q_proj", head, 0), ("k_proj", group, 0), ("v_proj", group, 0), ("o_proj", head, 1)):
            rows = (order[:, None] * size + np.arange(size)).ravel()
            place = LAYER.format(layer, f"self_attn.{name}")
            weights[place] = weights[place].take(rows, axis=axis)
    return weights


def _values_rescaled(source: Source, rng: np.random.Generator) -> Weights:
    weights = source.weights
    for layer in range(Config.load(source.folder).text.num_hidden_layers):
        by = np.float32(rng.uniform(0.4, 2.5))
        weights[LAYER.format(layer, "self_attn.v_proj")] *= by
        weights[LAYER.format(layer, "self_attn.o_proj")] /= by
    return weights


def _norms_folded(source: Source, rng: np.random.Generator) -> Weights:
    weights = source.weights
    for layer in range(Config.load(source.folder).text.num_hidden_layers):
        norm = weights[LAYER.format(layer, "input_layernorm")]
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[LAYER.format(layer, f"self_attn.{name}")] *= norm
        weights[LAYER.format(layer, "input_layernorm")] = np.ones_like(norm)
    return weights


def _units_in_another_order(source: Source, rng: np.random.Generator) -> Weights:
    weights, text = source.weights, Config.load(source.folder).text
    for layer in range(text.num_hidden_layers):
        order = rng.permutation(text.intermediate_size)
        for name, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            place = LAYER.format(layer, f"mlp.{name}")
            weights[place] = weights[place].take(order, axis=axis)
    return weights
