"""Every head by itself: what it does when it is steered, and what is lost when it no longer looks at the picture.

Then sets that grow by the head that helps most. Strengths and sets are chosen on strips of their own, else the best of
many would be the luckiest.
"""

from collections.abc import Iterator, Sequence
from typing import NotRequired

import numpy as np
from jaxtyping import Float
from scipy import stats
from typing_extensions import TypedDict

from experiments.paper.causes import answers, attention
from experiments.paper.causes.answers import NAME, Groups, SteeredRow
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import Share
from gaze.heads import Head, HeadSet
from gaze.intervals import ends, resampled
from gaze.pictures.strips import Strip
from gaze.statistics import spearman
from gaze.steering.attention_cost import KEYS

CHOICE, STRIPS = 2, 6
"""Strips to choose on, and to measure on."""
STRENGTHS = (1.0, 2.0, 5.0, 10.0, 100.0, 10_000.0)
MOST_HEADS = 200
"""Heads that are tried one by one: of a larger model those with the best gaze scores."""
GROWN = 6
"""The most heads of a set that grows."""
GROWN_AT = (10.0, 10_000.0)
"""The strengths at which sets grow."""
CANDIDATES = 24
"""Heads that may join a set: those that do most by themselves."""
RESAMPLES = 2000


class _Effect(SteeredRow):
    layer: int
    head: int
    curve: list[float]
    answered: Share


class _Moved(TypedDict):
    won: float
    from_text: float


class HeadRow(_Effect, _Moved):
    """One head, steered alone at its best strength.

    Attributes:
      curve: answers on target at each of `STRENGTHS`, on the strips on which the best was chosen.
      won: attention that the target wins at the best strength, as a share of all that the head has.
      from_text: what of that words and the first token lost.
      answered: how often the panel asked for is described when the head does not look at the picture.
    """

    score: float
    chosen: bool


class GrownRow(SteeredRow):
    """A set that grew by one head: what it does on other strips than those on which it grew."""

    members: list[list[int]]
    at_choice: float
    answered: Share


class RankRow(TypedDict):
    """Rank correlation over heads; the interval draws heads and strips. None where it is not defined."""

    value: float | None
    interval: NotRequired[list[float]]
    heads: int


class MapResults(TypedDict):
    """What `sum_up` returns."""

    strips: int
    choice_strips: int
    heads: list[HeadRow]
    asked: Share
    grown: dict[str, list[GrownRow]]
    effect_by_score: RankRow
    loss_by_score: RankRow


def collect(run: Run) -> None:
    heads, choice, strips = tried(run), *_strips(run)
    tries = [
        answers.steered(run, choice, _title(head), HeadSet((head,)), strength)
        for head in heads
        for strength in STRENGTHS
    ]
    found = answers.generated(run, "heads/choice", choice, [answers.alone(run, choice), *tries])
    conditions = [answers.alone(run, strips), *answers.asked(run, strips, "none")]
    for head in heads:
        one, strength = HeadSet((head,)), answers.best_strength(found, _title(head), STRENGTHS)
        conditions.append(answers.steered(run, strips, _title(head), one, strength))
        conditions += answers.asked(run, strips, _title(head), one)
    answers.generated(run, "heads", strips, conditions)
    looks(run)
    conditions = [answers.alone(run, strips)]
    for strength, members, _ in grown(run):
        conditions.append(answers.steered(run, strips, _set(members), HeadSet(members), strength))
        conditions += answers.asked(run, strips, answers.at(_set(members), strength), HeadSet(members))
    answers.generated(run, "grown", strips, conditions)


def tried(run: Run) -> list[Head]:
    """The heads that are tried one by one, best gaze score first."""
    return [*run.ranking().heads[:MOST_HEADS]]


def looks(run: Run) -> Float[np.ndarray, "answer layer heads key"]:
    """Where every head looks of itself."""
    strips = run.pictures("selection")[: attention.STRIPS]
    found: np.ndarray = run.saved(
        run.folder / NAME / "attention.npz",
        lambda: {"shares": attention.unsteered(run, strips)},
        run.digests(strips),
        KEYS,
    )["shares"]
    return found


def grown(run: Run) -> Iterator[tuple[float, list[Head], float]]:
    """Yields sets that grow, as long as another head helps: strength, heads, and how often they steer where they grew."""
    choice, _ = _strips(run)
    found = answers.saved(run, "heads/choice", choice)
    for strength in GROWN_AT:
        effect = {head: answers.hits(found[answers.at(_title(head), strength)]).mean() for head in tried(run)}
        order = sorted(effect, key=lambda head: -effect[head])[:CANDIDATES]
        members, reached = [order[0]], float(effect[order[0]])
        yield strength, [*members], reached
        while len(members) < GROWN and reached < 1:
            sets = [[*members, head] for head in order if head not in members]
            conditions = [answers.steered(run, choice, _set(some), HeadSet(some), strength) for some in sets]
            part = f"grown/choice at {strength:g}/{len(members) + 1}"
            groups = answers.generated(run, part, choice, [answers.alone(run, choice), *conditions])
            effects = [float(answers.hits(groups[answers.at(_set(some), strength)]).mean()) for some in sets]
            if not effects or max(effects) <= reached:
                break
            members, reached = sets[int(np.argmax(effects))], max(effects)
            yield strength, [*members], reached


def sum_up(run: Run) -> MapResults:
    choice, strips = _strips(run)
    seed, heads = run.settings.seed, tried(run)
    tries, groups = (answers.saved(run, part, some) for part, some in (("heads/choice", choice), ("heads", strips)))
    best = {head: answers.best_strength(tries, _title(head), STRENGTHS) for head in heads}
    scores, before = np.array(run.ranking().scores[: len(heads)]), looks(run)
    effect = np.stack([_by_strip(groups[answers.at(_title(head), best[head])]) for head in heads])
    kept = np.stack([_by_strip(groups[f"{_title(head)} cut"]) for head in heads])
    return {
        "strips": len(strips),
        "choice_strips": len(choice),
        "heads": [
            {
                **_effect(head, best[head], tries, groups, seed),
                **_moved(head, best[head], run.settings.mode, before),
                "score": float(score),
                "chosen": head in run.heads().heads,
            }
            for head, score in zip(heads, scores, strict=True)
        ],
        "asked": answers.answered(groups, "none", seed),
        "grown": _grown(run, strips),
        "effect_by_score": rank_correlation(scores, effect, seed),
        "loss_by_score": rank_correlation(scores, 1 - kept, seed),
    }


def rank_correlation(scores: Float[np.ndarray, " head"], values: Float[np.ndarray, "head strip"], seed: int) -> RankRow:
    """Rank correlation of scores with what is measured of each head; both heads and strips are drawn for its interval."""
    value = spearman(scores, values.mean(axis=1))
    if value is None:
        return {"value": None, "heads": len(scores)}
    rng = np.random.default_rng(seed)
    weights = resampled(values.shape[1], rng, RESAMPLES)
    chosen = rng.integers(len(scores), size=(RESAMPLES, len(scores)))
    drawn = np.einsum("dhs,ds->dh", values[chosen], weights)
    ranks, others = stats.rankdata(scores[chosen], axis=1), stats.rankdata(drawn, axis=1)
    ranks, others = (one - one.mean(axis=1, keepdims=True) for one in (ranks, others))
    size = np.sqrt((ranks**2).sum(axis=1) * (others**2).sum(axis=1))
    found = (ranks * others).sum(axis=1)[size > 0] / size[size > 0]
    low, high = ends(found).tolist() if values.shape[1] > 1 and len(found) else (-1.0, 1.0)
    return {"value": value, "interval": [low, high], "heads": len(scores)}


def _effect(head: Head, strength: float, tries: Groups, groups: Groups, seed: int) -> _Effect:
    title = _title(head)
    return {
        **answers.summed(groups, answers.at(title, strength), seed),
        "layer": head[0],
        "head": head[1],
        "curve": [float(answers.hits(tries[answers.at(title, one)]).mean()) for one in STRENGTHS],
        "answered": answers.answered(groups, title, seed),
    }


def _moved(head: Head, strength: float, mode: str, before: Float[np.ndarray, "answer layer heads key"]) -> _Moved:
    unsteered = before[:, head[0], head[1]].mean(axis=0)
    after = attention.single_heads([head], [strength], mode, before)[0, 0]
    words = [KEYS.index("sink"), KEYS.index("text")]
    return {"won": float((after - unsteered)[0]), "from_text": float((unsteered - after)[words].sum())}


def _grown(run: Run, strips: Sequence[Strip]) -> dict[str, list[GrownRow]]:
    groups, seed = answers.saved(run, "grown", strips), run.settings.seed
    found: dict[str, list[GrownRow]] = {f"{strength:g}": [] for strength in GROWN_AT}
    for strength, members, reached in grown(run):
        title = answers.at(_set(members), strength)
        found[f"{strength:g}"].append(
            {
                **answers.summed(groups, title, seed),
                "members": [list(head) for head in members],
                "at_choice": reached,
                "answered": answers.answered(groups, title, seed),
            }
        )
    return found


def _strips(run: Run) -> tuple[list[Strip], list[Strip]]:
    """The strips to choose on, and those to measure on."""
    return run.pictures("selection")[:CHOICE], run.pictures("evaluation")[:STRIPS]


def _by_strip(rows: Sequence[Row]) -> Float[np.ndarray, " strip"]:
    """The share of hits among the answers about each strip, in the order of the strips' names."""
    _, strip = np.unique([row["strip"] for row in rows], return_inverse=True)
    shares: np.ndarray = np.bincount(strip, answers.hits(rows)) / np.bincount(strip)
    return shares


def _title(head: Head) -> str:
    return f"L{head[0]}H{head[1]}"


def _set(members: Sequence[Head]) -> str:
    return " ".join(map(_title, members))
