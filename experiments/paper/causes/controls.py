"""Gaze heads and controls, each set at its own best strength, and all at equal dose; and what is lost without them.

A strength that breaks the model makes any control fail. So each set gets the strength at which it steers best, chosen on
strips of its own. And as a set that moves more attention may do more, all are compared once more where each moves as much
attention to the target as the gaze heads do at their best.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from typing_extensions import TypedDict

from experiments.paper.causes import answers, attention
from experiments.paper.causes.answers import NAME, Groups
from experiments.paper.causes.causal_map import looks
from experiments.paper.causes.head_sets import head_sets
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.settings import PAPER_STRENGTH
from experiments.run.summaries import Among, ConditionRow, Share, among, clusters, numbered_draws, shared
from experiments.run.summaries import controls as control_condition
from gaze.heads import HeadSet
from gaze.pictures.strips import Strip
from gaze.statistics import accuracy
from gaze.steering.attention_cost import KEYS

CHOICE, STRIPS = 2, 6
"""Strips to choose strengths on, and to measure on."""
STRENGTHS = (2.0, 5.0, 10.0, 100.0, 10_000.0)
SETTINGS = ("single", "best", "dose")
"""One strength for all, the paper's unless another is given; each set's best; as much attention moved as the gaze heads move."""


class MovedRow(TypedDict):
    """Attention that a set moves, summed over its heads; means over the sets of a kind.

    Attributes:
      won: by the target.
      from_text: of that what words and the first token lost.
    """

    won: float
    from_text: float


class SetsRow(TypedDict):
    """The sets of one kind in one of `SETTINGS`.

    Attributes:
      strengths: of each set.
      found: their answers together, and the gaze heads among the sets.
      same: whether these are the gaze heads themselves.
    """

    kind: str
    setting: str
    sets: int
    size: int
    same: bool
    strengths: list[float]
    junk: float
    moved: MovedRow
    found: ConditionRow


class CutRow(TypedDict):
    """What is left when the sets of one kind do not look at the picture; `lost` counts answers that miss the panel asked."""

    kind: str
    sets: int
    size: int
    same: bool
    left: Share
    lost: Among


class ControlResults(TypedDict):
    """What `sum_up` returns; `curves` has for each kind the mean share on target at each of `STRENGTHS`."""

    strips: int
    choice_strips: int
    asked: Share
    looks: dict[str, float]
    curves: dict[str, list[list[float]]]
    steered: list[SetsRow]
    cut: list[CutRow]


def collect(run: Run) -> None:
    choice, strips = _strips(run)
    tries = [
        answers.steered(run, choice, name, heads, strength)
        for name, _, heads in _named(head_sets(run))
        for strength in STRENGTHS
    ]
    answers.generated(run, "sets/choice", choice, [answers.alone(run, choice), *tries])
    chosen = strengths(run)
    conditions = {"alone": answers.alone(run, strips)}
    for place, (name, _, heads) in enumerate(_named(head_sets(run))):
        for setting in SETTINGS:
            one = answers.steered(run, strips, name, heads, chosen[setting][place])
            conditions[one.name] = one  # the best strength may be the one of all
    cut = answers.asked(run, strips, "none")
    for name, _, heads in _named(head_sets(run)):
        cut += answers.asked(run, strips, name, heads)
    answers.generated(run, "sets", strips, [*conditions.values(), *cut])
    moved(run, chosen)


def strengths(run: Run) -> dict[str, list[float]]:
    """The strength of each set, all kinds after one another, in each of `SETTINGS`."""
    named = [*_named(head_sets(run))]
    groups = answers.saved(run, "sets/choice", _strips(run)[0])
    best = [answers.best_strength(groups, name, STRENGTHS) for name, _, _ in named]
    sets = [heads for _, _, heads in named]
    strips, before = run.pictures("selection")[: attention.STRIPS], looks(run)

    def equal() -> dict[str, np.ndarray]:
        gaze = attention.moved(run, strips, sets[:1], best[:1]) - attention.unmoved(run, sets[:1], before)
        won = float(gaze[0, 0])
        return {"strength": attention.equal_strengths(run, strips, sets, won, before)}

    depends = (run.digests(strips), [heads.heads for heads in sets], best[0], attention.ROUNDS)
    found = run.saved(run.folder / NAME / "dose.npz", equal, *depends)["strength"].tolist()
    return {
        "single": [run.settings.strength or PAPER_STRENGTH] * len(sets),
        "best": best,
        "dose": [best[0], *found[1:]],
    }


def moved(run: Run, chosen: Mapping[str, Sequence[float]]) -> Float[np.ndarray, "setting set key"]:
    """What the attention of each set's heads gains and loses, by `SETTINGS` and `gaze.steering.attention_cost.KEYS`."""
    strips, sets = run.pictures("selection")[: attention.STRIPS], [heads for *_, heads in _named(head_sets(run))]

    def read() -> dict[str, np.ndarray]:
        after = [attention.moved(run, strips, sets, chosen[setting]) for setting in SETTINGS]
        return {"moved": np.stack(after) - attention.unmoved(run, sets, looks(run))}

    depends = (run.digests(strips), [heads.heads for heads in sets], [[*chosen[setting]] for setting in SETTINGS], KEYS)
    found: np.ndarray = run.saved(run.folder / NAME / "moved.npz", read, *depends)["moved"]
    return found


def sum_up(run: Run) -> ControlResults:
    choice, strips = _strips(run)
    sets, seed = head_sets(run), run.settings.seed
    tries, groups = (answers.saved(run, part, some) for part, some in (("sets/choice", choice), ("sets", strips)))
    chosen = strengths(run)
    gained = moved(run, chosen)
    numbers = {kind: [n for n, (_, other, _) in enumerate(_named(sets)) if other == kind] for kind in sets}
    names = [name for name, *_ in _named(sets)]
    mass = looks(run)[..., : KEYS.index("sink")].sum(axis=-1).mean(axis=0)
    return {
        "strips": len(strips),
        "choice_strips": len(choice),
        "asked": answers.answered(groups, "none", seed),
        "looks": {
            kind: float(np.mean([np.mean([mass[head] for head in heads.heads]) for heads in some]))
            for kind, some in sets.items()
        },
        "curves": {
            kind: [
                [float(answers.hits(tries[answers.at(names[n], strength)]).mean()) for n in mine]
                for strength in STRENGTHS
            ]
            for kind, mine in numbers.items()
        },
        "steered": [
            _steered(groups, kind, setting, sets, mine, names, chosen[setting], gained[place], seed, len(strips[0]))
            for kind, mine in numbers.items()
            for place, setting in enumerate(SETTINGS)
        ],
        "cut": [_cut(groups, kind, sets, seed) for kind in sets],
    }


def _steered(
    groups: Groups,
    kind: str,
    setting: str,
    sets: Mapping[str, Sequence[HeadSet]],
    mine: Sequence[int],
    names: Sequence[str],
    chosen: Sequence[float],
    gained: Float[np.ndarray, "set key"],
    seed: int,
    panels: int,
) -> SetsRow:
    draws = [groups[answers.at(names[number], chosen[number])] for number in mine]
    gaze = groups[answers.at(names[0], chosen[0])]
    mean = gained[mine].mean(axis=0)
    return {
        **_about(kind, sets),
        "setting": setting,
        "strengths": [chosen[number] for number in mine],
        "junk": float(np.mean([answers.junk(rows) for rows in draws])),
        "moved": {"won": float(mean[0]), "from_text": -float(mean[KEYS.index("sink") : KEYS.index("answer")].sum())},
        "found": control_condition(draws, gaze, groups[answers.UNSTEERED], panels),
    }


def _cut(groups: Groups, kind: str, sets: Mapping[str, Sequence[HeadSet]], seed: int) -> CutRow:
    draws = [groups[f"{name} cut"] for name, other, _ in _named(sets) if other == kind]
    gaze = groups["gaze 0 cut"]
    strip = _strip_numbers(gaze)
    together = numbered_draws(draws)
    return {
        **_about(kind, sets),
        "left": shared(accuracy(answers.hits(together), *clusters(together))),
        "lost": among(~answers.hits(gaze), [~answers.hits(rows) for rows in draws], strip),
    }


class _About(TypedDict):
    kind: str
    sets: int
    size: int
    same: bool


def _about(kind: str, sets: Mapping[str, Sequence[HeadSet]]) -> _About:
    some = sets[kind]
    same = len(some) == 1 and {*some[0].heads} == {*sets["gaze"][0].heads}
    return {"kind": kind, "sets": len(some), "size": len(some[0]), "same": same}


def _named(sets: Mapping[str, Sequence[HeadSet]]) -> Iterator[tuple[str, str, HeadSet]]:
    """Yields the name of each set, its kind, and its heads; the gaze heads come first."""
    for kind, some in sets.items():
        for number, heads in enumerate(some):
            yield f"{kind} {number}", kind, heads


def _strips(run: Run) -> tuple[list[Strip], list[Strip]]:
    """The strips to choose on, and those to measure on."""
    return run.pictures("selection")[:CHOICE], run.pictures("evaluation")[:STRIPS]


def _strip_numbers(rows: Sequence[Row]) -> np.ndarray:
    numbers: np.ndarray = np.unique([row["strip"] for row in rows], return_inverse=True)[1]
    return numbers
