"""Does a model have gaze heads at all? A test with stated thresholds, on strips that did not choose the heads.

Yes only if all three hold:

1. The heads look. On strips of their own, the chosen head that had the greatest lift on the strips of discovery puts more
   attention on the panel asked about than on every other in more than half of the questions (`ROUTING`; six panels give
   chance 1/6), and at least `LIFT` more than on the mean other panel; and no more than one relabelling of the questions
   in a hundred (`LEVEL`) lifts *any* head of the model as far. The words of the questions pull the attention of every model
   to somewhere, trained or not, so a small p value alone is no evidence of size, and a size alone none of a cause.
2. They are stable. Random halves of the discovery strips agree on more of the chosen heads than chance does, by at least a
   quarter (`AGREEMENT`) of what full agreement would be above it.
3. They steer. The interval of the share of steered answers that describe their target lies above the best draw of
   random heads and above all heads together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
from jaxtyping import Float

from gaze.discovery.nulls import Stability, relabelled_questions
from gaze.discovery.scores import Mass, gaze_credit, lift, routing_accuracy
from gaze.heads import HeadSet
from gaze.statistics import Estimate
from qwen3vl_jax.errors import InputError

ROUTING = 0.5
LIFT = 0.05
LEVEL = 0.01
AGREEMENT = 0.25

HeldOut = Float[np.ndarray, "held panel layer heads panel"]
"""As `Mass`, of other strips, not always as many."""


@dataclass(frozen=True)
class HeadVerdict:
    """How one of the chosen heads looks on strips that did not choose it.

    Attributes:
      routing: share of questions in which the panel asked about gets more attention than every other.
      lift: attention on it beyond the mean on another.
      p: family-wise, under relabelled questions.
      gazes: whether all three reach their thresholds.
    """

    layer: int
    head: int
    routing: float
    lift: float
    p: float
    gazes: bool

    @property
    def name(self) -> str:
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold.

    Attributes:
      about: "attention", "stability" or "cause".
      what: is measured, and how it must stand to the threshold.
    """

    about: str
    what: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """The answer, the sentence that says why, every criterion, and every chosen head, the best in discovery first."""

    has_gaze_heads: bool
    reason: str
    criteria: tuple[Criterion, ...]
    looks: tuple[HeadVerdict, ...]


def verdict(
    discovery: Mass,
    held_out: HeldOut,
    heads: HeadSet,
    stability: Stability,
    steered: Estimate,
    draws: Sequence[float],
    everything: float,
    seed: int,
) -> Verdict:
    """Judges a model by its chosen heads.

    Args:
      discovery, held_out: attention on the strips that chose the heads, and on others.
      stability: of `gaze.discovery.nulls.split_half` on the former, for as many heads.
      steered: accuracy of answers steered with the heads, on strips that did not choose them.
      draws, everything: the same with each draw of random heads, and with all heads.

    Raises InputError for strips of too few panels to reach `LEVEL`, and without a draw.
    """
    if reason := too_few_panels(held_out.shape[-1]):
        raise InputError(reason)
    if not draws:
        raise InputError("there is no draw of random heads to compare with: ask for at least one")
    looks = look(discovery, held_out, heads, seed)
    criteria = (*_attention(looks[0]), _stable(stability), *_cause(steered, max(draws), everything))
    return Verdict(all(one.passed for one in criteria), _reason(looks, criteria, stability), criteria, looks)


def too_few_panels(panels: int) -> str | None:
    """Returns why strips of so many panels cannot tell, None if they can: p is at best one over the number of orders."""
    if factorial(panels) * LEVEL >= 1:
        return None
    return f"{panels} panels have too few orders for a test at {LEVEL:g}: give strips of at least five"


def look(discovery: Mass, held_out: HeldOut, heads: HeadSet, seed: int) -> tuple[HeadVerdict, ...]:
    """How the heads look on the held-out strips, in the order of their lift on the strips of discovery."""
    found, routing = lift(held_out), routing_accuracy(held_out)
    p = relabelled_questions(held_out, gaze_credit, seed).familywise()
    first = lift(discovery)
    gazes = (routing > ROUTING) & (found >= LIFT) & (p < LEVEL)
    return tuple(
        HeadVerdict(*head, float(routing[head]), float(found[head]), float(p[head]), bool(gazes[head]))
        for head in sorted(heads.heads, key=lambda head: (-first[head], head))
    )


def _attention(best: HeadVerdict) -> tuple[Criterion, ...]:
    routing, size = best.routing > ROUTING, best.lift >= LIFT
    chance = f"p of {best.name} under relabelled questions, family-wise, below"
    return (
        Criterion(
            "attention", f"routing of {best.name} to the panel asked about, above", best.routing, ROUTING, routing
        ),
        Criterion("attention", f"lift of {best.name}, at least", best.lift, LIFT, size),
        Criterion("attention", chance, best.p, LEVEL, best.p < LEVEL),
    )


def _stable(found: Stability) -> Criterion:
    what = f"agreement of halves of the strips on the best {found.count}, of which chance gives {found.chance:.3f}, at least"
    least = found.chance + AGREEMENT * (1 - found.chance)
    return Criterion("stability", what, found.overlap, least, found.overlap >= least)


def _cause(steered: Estimate, best: float, everything: float) -> tuple[Criterion, ...]:
    what = "steered answers on target, lower end of the interval, above"
    return (
        Criterion("cause", f"{what} the best random draw", steered.low, best, steered.low > best),
        Criterion("cause", f"{what} all heads", steered.low, everything, steered.low > everything),
    )


def _reason(looks: Sequence[HeadVerdict], criteria: Sequence[Criterion], stability: Stability) -> str:
    best = looks[0]
    failed = {one.about for one in criteria if not one.passed}
    if not failed:
        return (
            f"{best.name} looks where the question says (lift {best.lift:.2f}), halves of the strips agree on the heads, and "
            "steering them moves the answers as no random heads do."
        )
    said = {
        "attention": f"no head looks where the question says: the best, {best.name}, has a lift of {best.lift:.3f}, routes to "
        f"the panel in {best.routing:.0%} of the questions, and has p = {best.p:.3f}",
        "stability": f"halves of the strips agree on {stability.overlap:.0%} of the heads, chance on {stability.chance:.0%}",
        "cause": "steering them moves the answers no further than random heads or all heads do",
    }
    if failed == {"cause"}:
        return f"The heads look where the question says, but {said['cause']}."
    text = "; ".join(said[about] for about in ("attention", "stability", "cause") if about in failed)
    return f"{text[0].upper()}{text[1:]}."
