"""The sets of heads that experiment 10 compares: the gaze heads, and what else might steer as well."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float

from experiments.paper import e1_discovery
from experiments.run.run import Run
from gaze.heads import Head, HeadSet, all_heads, random_heads

DRAWS = 39
"""Distinct sets of a random kind: the least of which none as good as the gaze heads gives p = 1/40. Fewer exist in small
models: then all are taken."""
TRIES = 1000
"""Draws in a row that give no new set, after which there is none."""
NEAREST = 10
"""Heads among which each gaze head's match is drawn."""
RANDOM = ("random", "layer", "attention")
"""The kinds that are drawn."""


def head_sets(run: Run) -> dict[str, list[HeadSet]]:
    """Returns the sets of every kind; none but "gaze" and "all" has to do with the gaze heads, unless a rule finds them.

    "random" are drawn from all other heads, "layer" as many from each layer, "attention" from those that look at the
    picture about as much. "all" is every head, "rest" all but the gaze heads, and the others are those that the rules of
    `gaze.discovery.baselines` put first.
    """
    heads = run.heads()
    rng = np.random.default_rng([run.settings.seed, 10])
    others = [head for head in np.ndindex(*run.shape) if head not in {*heads.heads}]
    looks = e1_discovery.looking(run).mass.mean(axis=(0, 1), dtype=np.float64)

    def evenly() -> Sequence[Head]:
        return [others[number] for number in rng.permutation(len(others))[: len(heads)]]

    found = {
        "gaze": [heads],
        "random": distinct(evenly),
        "layer": distinct(lambda: random_heads(rng, heads, heads.heads, run.shape).heads),
        "attention": distinct(lambda: attention_matched(rng, heads.heads, others, looks)),
        "all": [all_heads(*run.shape)],
        "rest": [HeadSet(others, settings={"control": "rest"})] if others else [],
    }
    for name in e1_discovery.BASELINES:
        ranked = HeadSet.load(e1_discovery.ranking_file(run, name))
        found[name] = [ranked.top(min(len(heads), len(ranked)))]
    return {kind: sets for kind, sets in found.items() if sets}


def distinct(draw: Callable[[], Sequence[Head]]) -> list[HeadSet]:
    """Returns `DRAWS` different sets, or all there are if those are fewer."""
    found: dict[tuple[Head, ...], None] = {}
    since = 0
    while len(found) < DRAWS and since < TRIES:
        one = tuple(sorted(draw()))
        since = since + 1 if one in found else 0
        found[one] = None
    return [HeadSet(heads, settings={"control": "random"}) for heads in found]


def attention_matched(
    rng: np.random.Generator, heads: Sequence[Head], others: Sequence[Head], looks: Float[np.ndarray, "layer heads"]
) -> list[Head]:
    """Returns for each of the `heads` another one, drawn from the `NEAREST` in attention to the picture that are left."""
    left, drawn = list(others), []
    for head in heads:
        left.sort(key=lambda other: abs(looks[other] - looks[head]))
        if left:
            drawn.append(left.pop(int(rng.integers(min(NEAREST, len(left))))))
    return drawn


def count(sets: dict[str, list[HeadSet]]) -> int:
    """Returns how many sets there are of all kinds."""
    return len([*chain(*sets.values())])
