"""Sets of attention heads: where they come from, the small file that carries them, and the controls to compare with.

The file is JSON:

    {"version": 1, "model": "Qwen/Qwen3-VL-8B-Instruct", "revision": "...", "score": "gaze", "settings": {...},
     "heads": [{"layer": 24, "head": 29, "score": 0.23}, ...]}

Heads stand best first and count from 0; `score` may be missing in all of them. A bare list of heads, the ranking file
of the paper's code, is read too.
"""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from jaxtyping import Float32, Int64
from pydantic import Field
from typing_extensions import TypedDict

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json, shown, validate
from qwen3vl_jax.files.write import write_json

Head = tuple[int, int]
"""(layer, head), from 0."""

VERSION, RANKING = 1, "ranking"
HINT = "give a file that `gaze discover` wrote, or a list of layer, head and score"
MOST = 2**20
"""Layers, or heads of a layer, that no model has."""
LOWEST = 5
"""Per cent of the ranking from which the released scripts draw their control."""


Index = Annotated[int, Field(ge=0, lt=MOST)]


class HeadRow(TypedDict):
    layer: Index
    head: Index
    score: NotRequired[Annotated[float, Field(allow_inf_nan=False)]]


class HeadSetFile(TypedDict):
    """The file that the head of this module describes."""

    version: Literal[1]
    heads: list[HeadRow]
    score: NotRequired[str]
    model: NotRequired[str]
    revision: NotRequired[str]
    settings: NotRequired[dict[str, Any]]


def as_heads(given: object) -> tuple[Head, ...]:
    """Pairs (layer, head), from any sequence or array of pairs of integers. Raises InputError for anything else."""
    try:
        pairs = np.asarray(
            given if isinstance(given, np.ndarray) else [tuple(pair) for pair in given]  # type: ignore[attr-defined]  # or else TypeError
        )
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if len(pairs) and (pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer)):
        raise InputError(f"heads are {shown(given)}, but should be pairs of numbers (layer, head), from 0")
    return tuple((int(layer), int(head)) for layer, head in pairs)


@dataclass(frozen=True)
class HeadSet:
    """Heads of one model, best first.

    Attributes:
      heads: distinct, at least one.
      scores: one per head, or none at all.
      score: name of the score that ranked them.
      model, revision: whose heads they are; empty if unknown.
      settings: what else is needed to find them again; anything that JSON can hold.
    """

    heads: Sequence[Head]
    scores: Sequence[float] = ()
    score: str = ""
    model: str = ""
    revision: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", as_heads(self.heads))
        object.__setattr__(self, "scores", tuple(self.scores))
        if not np.isfinite(np.array(self.scores, np.float64)).all():
            raise InputError("a head set has a score that is not a finite number: find the heads again")
        if not self.heads:
            raise InputError("a head set is empty: give at least one (layer, head)")
        if len(set(self.heads)) < len(self.heads):
            raise InputError("a head set names a head twice: name each (layer, head) once")
        if len(self.scores) not in (0, len(self.heads)):
            raise InputError(f"a head set has {len(self.heads)} heads and {len(self.scores)} scores: give one per head")

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that tell these heads from others, whatever their order: of the SHA-256 of "0.2,3.1,..." """
        return hashlib.sha256(",".join(f"{layer}.{head}" for layer, head in sorted(self.heads)).encode()).hexdigest()[
            :12
        ]

    @classmethod
    def load(cls, path: str | os.PathLike[str], top_k: int | None = None) -> "HeadSet":
        """Reads a head set, or a ranking of the paper's code; only the first `top_k` heads if given.

        Raises InputError if there is no such file or it holds something else.
        """
        raw: Any = read_json(path, "a head set", hint=HINT)
        bare = isinstance(raw, list)
        file = validate({"version": VERSION, "heads": raw} if bare else raw, path, "a head set", HeadSetFile, HINT)
        rows = file["heads"]
        try:
            found = cls(
                heads=tuple((row["layer"], row["head"]) for row in rows),
                scores=tuple(float(row["score"]) for row in rows if "score" in row),
                score=file.get("score", ""),
                model=file.get("model", ""),
                revision=file.get("revision", ""),
                settings={"kind": RANKING} if bare else file.get("settings", {}),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return found if top_k is None else found.top(top_k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file described above, whole or not at all."""
        names = ("model", "revision", "score", "settings")
        write_json(path, {"version": VERSION, **{n: getattr(self, n) for n in names}, "heads": self._rows()})

    def save_ranking(self, path: str | os.PathLike[str]) -> None:
        """Writes the ranking file of the paper's code; InputError if the heads have no scores."""
        if not self.scores:
            raise InputError("a ranking needs a score for each head, but these heads have none")
        write_json(path, self._rows())

    def top(self, count: int) -> "HeadSet":
        """The first `count` heads; InputError unless there are that many."""
        if not 1 <= count <= len(self):
            raise InputError(f"cannot take the top {count} of {len(self)} heads: give a number from 1 to {len(self)}")
        settings = {name: value for name, value in self.settings.items() if name != "kind"}
        return HeadSet(self.heads[:count], self.scores[:count], self.score, self.model, self.revision, settings)

    def require(self, layers: int, heads: int, revision: str = "") -> None:
        """Raises InputError unless these are heads to be steered, of a model of this shape and, if both are known, revision.

        A ranking is refused: steering all heads of a model breaks it. So is a set of more than half of them, unless it is
        `all_heads`.
        """
        self._mask(layers, heads)
        if revision and self.revision and revision != self.revision:
            raise InputError(
                f"these heads belong to {self.model or 'a model'} of revision {self.revision}, but the model is of revision "
                f"{revision}: find its own with `gaze discover`"
            )
        ranking = self.settings.get("kind") == RANKING
        if ranking or (2 * len(self) > layers * heads and self.settings.get("control") is None):
            raise InputError(
                f"these {len(self)} of {layers * heads} heads are a ranking, not a set to be steered: say how many of the best "
                "to take (--top, or `HeadSet.top`)"
            )

    def to_mask(self, layers: int, heads: int) -> Float32[np.ndarray, "layer heads"]:
        """1 at these heads, 0 at the others; InputError as of `require`."""
        self.require(layers, heads)
        return self._mask(layers, heads)

    def _mask(self, layers: int, heads: int) -> Float32[np.ndarray, "layer heads"]:
        mask = np.zeros((layers, heads), np.float32)
        for layer, head in self.heads:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise InputError(
                    f"the model has no head {head} in layer {layer}: its layers are 0 to {layers - 1}, "
                    f"its heads 0 to {heads - 1}"
                )
            mask[layer, head] = 1
        return mask

    def per_layer(self, layers: int, heads: int) -> Int64[np.ndarray, " layer"]:
        """How many of them each layer has; InputError if the model has no such head."""
        counts: np.ndarray = self._mask(layers, heads).sum(axis=1).astype(np.int64)
        return counts

    def _rows(self) -> list[HeadRow]:
        rows: list[HeadRow] = [{"layer": layer, "head": head} for layer, head in self.heads]
        return [{**row, "score": score} for row, score in zip(rows, self.scores, strict=True)] if self.scores else rows


def all_heads(layers: int, heads: int) -> HeadSet:
    """Every head of a model, the control that breaks it."""
    return HeadSet(tuple(np.ndindex(layers, heads)), settings={"control": "all"})


def random_heads(rng: np.random.Generator, like: HeadSet, exclude: Collection[Head], shape: tuple[int, int]) -> HeadSet:
    """A control: random heads, as many in each layer as `like` has.

    A layer with too few heads left gives what it has, and after all layers have been served, the nearest layers with
    heads to spare (the lower first) make up for it.

    Args:
      exclude: heads never to draw, usually those of `like`.
      shape: the model's (layers, heads).

    Raises InputError if the model has too few other heads.
    """
    layers, heads = shape
    wanted = like.per_layer(layers, heads)
    forbidden = set(exclude)
    left_by_layer = [
        [(layer, int(h)) for h in rng.permutation(heads) if (layer, int(h)) not in forbidden] for layer in range(layers)
    ]
    if sum(map(len, left_by_layer)) < len(like):
        raise InputError(
            f"only {sum(map(len, left_by_layer))} heads are left to draw {len(like)} from: use a smaller head set"
        )
    drawn = [
        [candidates.pop() for _ in range(min(count, len(candidates)))]
        for candidates, count in zip(left_by_layer, wanted, strict=True)
    ]
    for layer, count in enumerate(wanted):
        for near in sorted(range(layers), key=lambda other: (abs(other - layer), other)):
            spare = min(count - len(drawn[layer]), len(left_by_layer[near]))
            drawn[layer] += [left_by_layer[near].pop() for _ in range(spare)]
    return HeadSet(
        tuple(sorted(chain.from_iterable(drawn))),
        model=like.model,
        revision=like.revision,
        settings={"control": "random"},
    )


def paper_control(
    rng: np.random.Generator, like: HeadSet, exclude: Collection[Head], shape: tuple[int, int]
) -> HeadSet:
    """The control of the paper: as many heads as `like` has, drawn evenly from layers 20 to 35 of 36 without `exclude`.

    In a model of another depth these are the layers from 5/9 of it on. If they have too few heads, all of them are
    taken; `settings` says how many were asked for and how many there were. Raises InputError if there is none.
    """
    layers, heads = shape
    first = min(-(-5 * layers // 9), layers - 1)
    forbidden = set(exclude)
    candidates = [(first + layer, head) for layer, head in np.ndindex(layers - first, heads)]
    candidates = [head for head in candidates if head not in forbidden]
    return _drawn(rng, candidates, len(like), like, {"control": "paper", "layers": [first, layers - 1]})


def code_control(ranking: HeadSet, count: int, seed: int) -> HeadSet:
    """The control of the released scripts: `count` of the heads in the lowest 5 % of a ranking of all heads.

    That is 58 of 1,152 heads, so that their 100 controls are 58; `settings` says how many were asked for and how many
    there were. The first `count` heads are never drawn. The draws differ from those of the scripts, which are PyTorch's.

    Raises InputError if the ranking has no scores or no head is left.
    """
    if not ranking.scores:
        raise InputError("the lowest heads of a ranking cannot be told without scores: give a ranking with scores")
    highest = np.percentile(ranking.scores, LOWEST)
    rows = list(zip(ranking.heads, ranking.scores, strict=True))[count:]
    candidates = [head for head, score in rows if score <= highest]
    return _drawn(np.random.default_rng(seed), candidates, count, ranking, {"control": "code", "seed": seed})


def _drawn(
    rng: np.random.Generator, candidates: list[Head], count: int, like: HeadSet, settings: dict[str, Any]
) -> HeadSet:
    if not candidates:
        raise InputError("no head is left to draw a control from: use a smaller head set")
    chosen = sorted(candidates[number] for number in rng.permutation(len(candidates))[:count])
    settings = settings | {"asked": count, "pool": len(candidates)}
    return HeadSet(tuple(chosen), model=like.model, revision=like.revision, settings=settings)
