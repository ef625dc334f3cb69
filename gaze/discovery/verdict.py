"""Does a model have gaze heads? Yes, no or uncertain, by criteria that are all about the same heads.

The heads are those that look on the strips of discovery (`looking`). Everything else is measured on strips that did not
choose them, as an estimate with a 95 % interval: a criterion holds if the interval lies above its threshold, fails if it
lies below, and is uncertain otherwise.

1. **Answers**: asked about a panel by number, the model describes it more often than chance, by at least a quarter of what
   perfection would be above it (`ABOVE_CHANCE`). A model that does not understand the question cannot be diagnosed by it:
   if this does not hold, the answer is never yes.
2. **Look**: on average over the heads, the panel asked about gets more attention than every other in more than half of the
   questions (`ROUTING`; six panels give chance 1/6), and at least `LIFT` more than the mean other panel. The gaze scores of
   the best hundred of Qwen3-VL-8B's 1,152 heads end at .058, a lift of .05 or less. The words of the questions pull the
   attention of every model to somewhere, trained or not, the same in every strip. So the questions are given to other
   panels, in all other orders: under no more than one in a hundred (`LEVEL`) may the heads of the model that look have as much
   lift in all. Under more than one in ten the criterion fails.
3. **Stability**: other strips put the same heads first, more of them than chance does by `ABOVE_CHANCE`.
4. **Cause**: steered with them, more answers describe their target than with random heads of the same layers, by at least
   `EFFECT`, about what a blind pick among six panels hits. The interval is over draws and strips, so that more draws make it
   narrower. And, as random heads differ among themselves, a further draw must be unlikely to do as well.
5. **Need**: when the words do not look at the picture with these heads, fewer answers are about the panel asked for than
   without as many random heads. This is told, but does not decide: other heads may stand in.

If heads look best in another order than that of the questions, a simple one (every panel further by as many, or from the right)
that at most one in twenty models would fit by accident (`BESIDE`), or one in which the answers go, too, they look *beside*.

The answer is yes if 1 to 4 hold and no if one of 2 to 4 fails. A model for which one of them is false in truth is called to
have gaze heads in about 2.5 % of cases at most, as all must hold; a model for which all are true is called to have none in at
most 2.5 % of cases for each interval. How often that is so is measured in `experiments/error_rates`: heads that are but another
draw, where draws are few and skewed, get a yes in 3 % of cases with 20 draws, and in 12 % with 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from gaze.discovery.scores import Mass, lift_credit, per_strip, routing_credit
from gaze.heads import Head
from gaze.intervals import Labels, ends, means, resampled
from gaze.statistics import Estimate, accuracy, against_controls, average
from qwen3vl_jax.errors import InputError

ROUTING = 0.5
LIFT = 0.05
LEVEL, HOPELESS, BESIDE = 0.01, 0.1, 0.05
ABOVE_CHANCE = 0.25
EFFECT = 0.15
DRAWS = 1000

NEED = {
    "holds": "Without them the model does not find the panel asked for",
    "fails": "Without them it still finds the panel asked for: other heads stand in",
    "uncertain": "Whether it finds the panel asked for without them is uncertain",
}

HeldOut = Float[np.ndarray, "held panel layer heads panel"]
"""As `Mass`, of other strips, not always as many."""
State = Literal["holds", "fails", "uncertain"]
Answer = Literal["yes", "no", "uncertain"]
Looks = Literal["asked", "beside", "nowhere", "uncertain"]
Orders = Int[np.ndarray, "order panel"]
"""For each panel asked about the one that is looked at."""


@dataclass(frozen=True)
class HeadLook:
    """How a head looks on strips that did not choose it.

    Attributes:
      routing: share of questions in which the panel asked about gets more attention than every other.
      lift: attention on it beyond the mean on another.
    """

    layer: int
    head: int
    routing: float
    lift: float


@dataclass(frozen=True)
class Criterion:
    """One thing that is measured, and how it stands to its threshold.

    Attributes:
      about: "answers", "look", "stability", "cause" or "need".
      low, high: its 95 % interval; a p value has none.
    """

    about: str
    what: str
    value: float
    low: float
    high: float
    threshold: float
    state: State


@dataclass(frozen=True)
class Verdict:
    """The answer, the sentence that says why, every criterion, and every head, the one of greatest lift first.

    Attributes:
      looks: at the panel asked about, beside it, nowhere in particular, or it cannot be told.
      beside: if they look beside, the panel (from 1) that is looked at when each is asked about.
    """

    answer: Answer
    reason: str
    looks: Looks
    beside: tuple[int, ...] | None
    criteria: tuple[Criterion, ...]
    heads: tuple[HeadLook, ...]


class Asked(NamedTuple):
    """Answers to "what is in panel k?" about strips that did not choose the heads: the panel asked, and the one described.

    A panel that is not described is -1.
    """

    panel: Int[np.ndarray, " answer"]
    described: Int[np.ndarray, " answer"]
    strip: Labels


class Steered(NamedTuple):
    """Hits with the heads, and with each draw of as many random ones, in the same answers."""

    heads: Bool[np.ndarray, " answer"]
    draws: Bool[np.ndarray, "draw answer"]
    strip: Labels


def looking(mass: HeldOut) -> list[Head]:
    """Returns the heads that look where the question says, by the thresholds `ROUTING` and `LIFT`, greatest lift first."""
    lift, routing = (per_strip(mass, credit).mean(axis=0) for credit in (lift_credit, routing_credit))
    found = [(int(layer), int(head)) for layer, head in np.argwhere((routing > ROUTING) & (lift >= LIFT))]
    return sorted(found, key=lambda head: (-lift[head], head))


def best_head(mass: HeldOut) -> Head:
    """Returns the head of greatest lift, whether it looks or not."""
    lift = per_strip(mass, lift_credit).mean(axis=0)
    layer, head = np.unravel_index(int(lift.argmax()), lift.shape)
    return int(layer), int(head)


def verdict(
    discovery: Mass,
    held_out: HeldOut,
    heads: Sequence[Head],
    asked: Asked,
    steered: Steered | None,
    cut: Steered | None,
    seed: int,
) -> Verdict:
    """Judges a model by the heads that look.

    Args:
      discovery, held_out: attention on the strips that chose the heads, and on others.
      heads: those of `looking`, or the best of them; none if none looks.
      steered: answers steered to every panel, a hit if they describe it; None if no head looks, as nothing follows then.
      cut: answers to questions about a panel without the heads, a hit if they describe it; None likewise.

    Raises InputError for strips of too few panels to reach `LEVEL`.
    """
    if reason := too_few_panels(held_out.shape[-1]):
        raise InputError(reason)
    some = [*heads] or [best_head(discovery)]
    look = (*_look(held_out, some, seed), _stable(held_out, some, seed))
    criteria = (_answers(asked, held_out.shape[-1]), *look, *_cause(steered), *_need(cut))
    beside = _beside(discovery, held_out, asked, seed)
    looks = _where([one.state for one in look if one.about == "look"], beside)
    answer = _answer(criteria)
    lift, routing = (per_strip(held_out, credit).mean(axis=0) for credit in (lift_credit, routing_credit))
    seen = tuple(HeadLook(*head, float(routing[head]), float(lift[head])) for head in some)
    shown = beside if looks == "beside" else None
    return Verdict(answer, _reason(answer, looks, shown, criteria, seen), looks, shown, criteria, seen)


def too_few_panels(panels: int) -> str | None:
    """Returns why strips of so many panels cannot tell, None if they can: p is at best one over the number of orders."""
    if factorial(panels) * LEVEL >= 1:
        return None
    return f"{panels} panels have too few orders for a test at {LEVEL:g}: give strips of at least five"


def _answer(criteria: Sequence[Criterion]) -> Answer:
    states = {one.about: set[State]() for one in criteria}
    for one in criteria:
        states[one.about].add(one.state)
    if any("fails" in states[about] for about in ("look", "stability", "cause") if about in states):
        return "no"
    decide = ("answers", "look", "stability", "cause")
    return "yes" if all(states.get(about) == {"holds"} for about in decide) else "uncertain"


def _where(states: Sequence[State], beside: tuple[int, ...] | None) -> Looks:
    if all(state == "holds" for state in states):
        return "asked"
    if beside:
        return "beside"
    return "nowhere" if "fails" in states else "uncertain"


def _judged(about: str, what: str, found: Estimate, threshold: float) -> Criterion:
    state: State = "holds" if found.low > threshold else "fails" if found.high < threshold else "uncertain"
    return Criterion(about, what, found.value, found.low, found.high, threshold, state)


def _answers(asked: Asked, panels: int) -> Criterion:
    found = accuracy(asked.panel == asked.described, asked.strip)
    return _judged("answers", "answers about the panel asked for", found, _above(1 / panels))


def _look(held_out: HeldOut, heads: Sequence[Head], seed: int) -> tuple[Criterion, ...]:
    strip = np.arange(len(held_out))
    lift, routing = (_of_heads(per_strip(held_out, credit), heads) for credit in (lift_credit, routing_credit))
    # One strip has no interval: it may lie anywhere.
    value, low, high = (
        np.nan_to_num(one, nan=edge).item() for one, edge in zip(means(lift, strip), (0, -1, 1), strict=True)
    )
    size = Estimate(value, low, high, len(strip), len(strip))
    totals = _lift_of_looking(held_out, _orders(held_out.shape[-1], seed))
    p = float((totals >= totals[0] - 1e-9).mean())
    state: State = "holds" if p < LEVEL else "fails" if p > HOPELESS else "uncertain"
    return (
        _judged("look", "questions whose panel gets most attention", average(routing, strip), ROUTING),
        _judged("look", "attention on the panel asked about beyond the others", size, LIFT),
        Criterion("look", "p under questions about other panels, below", p, p, p, LEVEL, state),
    )


def _stable(held_out: HeldOut, heads: Sequence[Head], seed: int) -> Criterion:
    """Which share of the heads are among as many that other strips put first; its interval resamples those strips."""
    lift = per_strip(held_out, lift_credit)
    shape, strips = lift.shape[1:], len(lift)
    mine = np.zeros(shape, bool)
    mine[tuple(zip(*heads, strict=True))] = True
    drawn = resampled(strips, np.random.default_rng(seed), DRAWS) / strips
    means_drawn = np.concatenate([lift.mean(axis=0)[None], np.tensordot(drawn, lift, 1)]).reshape(len(drawn) + 1, -1)
    best = np.argpartition(-means_drawn, len(heads) - 1, axis=1)[:, : len(heads)]
    shared = mine.ravel()[best].mean(axis=1)
    low, high = ends(shared[1:]) if strips > 1 else (0.0, 1.0)
    found = Estimate(float(shared[0]), float(low), float(high), len(heads), strips)
    return _judged("stability", "heads that other strips put first, too", found, _above(len(heads) / mine.size))


def _cause(steered: Steered | None) -> tuple[Criterion, ...]:
    if steered is None:
        return ()
    found = against_controls(*steered)
    ahead = _if_drawn(found.advantage, len(steered.draws))
    what = "steered answers on target beyond random heads"
    return (
        _judged("cause", what, ahead, EFFECT),
        _judged("cause", f"{what}, of which there may be a further draw", _further(ahead, steered.draws), 0.0),
    )


def _need(cut: Steered | None) -> tuple[Criterion, ...]:
    if cut is None:
        return ()
    found = against_controls(~cut.heads, ~cut.draws, cut.strip).advantage
    what = "answers about the panel asked for that are lost without them, beyond random heads"
    return (_judged("need", what, _if_drawn(found, len(cut.draws)), EFFECT),)


def _if_drawn(found: Estimate, draws: int) -> Estimate:
    """A single draw of random heads says nothing about others."""
    return found if draws > 1 else Estimate(found.value, -1.0, 1.0, found.answers, found.strips)


def _further(ahead: Estimate, draws: Bool[np.ndarray, "draw answer"]) -> Estimate:
    """The same with an interval that a further draw's advantage would lie in, too, were the heads no better than it."""
    if len(draws) < 2:
        return ahead
    reach = stats.t.ppf(0.975, len(draws) - 1) * draws.mean(axis=1).std(ddof=1)
    low, high = (
        ahead.value + sign * np.hypot(ahead.value - end, reach) for sign, end in ((-1, ahead.low), (1, ahead.high))
    )
    return Estimate(ahead.value, float(max(low, -1)), float(min(high, 1)), ahead.answers, ahead.strips)


def _above(chance: float) -> float:
    return chance + ABOVE_CHANCE * (1 - chance)


def _of_heads(by_strip: Float[np.ndarray, "strip layer heads"], heads: Sequence[Head]) -> Float[np.ndarray, " strip"]:
    layers, numbers = zip(*heads, strict=True)
    found: np.ndarray = by_strip[:, layers, numbers].mean(axis=1)
    return found


def _simple(panels: int) -> list[tuple[int, ...]]:
    """The orders that a mistake would make: so many panels further, the last going on with the first; and from the right."""
    shifts = [tuple((panel + shift) % panels for panel in range(panels)) for shift in range(1, panels)]
    return [*shifts, tuple(reversed(range(panels)))]


def _orders(panels: int, seed: int) -> Orders:
    """The true order, the simple ones, and all others, or `DRAWS` of them if there are more."""
    first = [tuple(range(panels)), *_simple(panels)]
    if factorial(panels) <= DRAWS:
        rest = [order for order in permutations(range(panels)) if order not in {*first}]
    else:
        rng = np.random.default_rng(seed)
        rest = [tuple(rng.permutation(panels).tolist()) for _ in range(DRAWS)]
    return np.array([*first, *rest], np.int32)


def _lift_of_looking(mass: HeldOut, orders: Orders) -> Float[np.ndarray, " order"]:
    """The lift, in all, of the heads that look if each order were the true one."""
    panels = mass.shape[-1]
    chosen = np.zeros((len(orders), panels, panels))
    np.put_along_axis(chosen, orders[..., None], 1 / panels, axis=2)
    total = np.zeros(len(orders))
    for layer in range(mass.shape[2]):
        lift, routing = (
            np.einsum("oqp,qhp->oh", chosen, credit(mass[:, :, [layer]]).mean(axis=0)[:, 0], optimize=True)
            for credit in (lift_credit, routing_credit)
        )
        total += np.where((routing > ROUTING) & (lift >= LIFT), lift, 0.0).sum(axis=1)
    return total


def _beside(discovery: Mass, held_out: HeldOut, asked: Asked, seed: int) -> tuple[int, ...] | None:
    """Returns the order, from 1, in which heads look if it is another than the one asked for; None if there is none.

    Words that pull to somewhere fit one of the 720 orders of six panels best by accident. So it must be one of the few simple
    ones, which hardly any other order beats, or the answers must be about the same panels.
    """
    panels = held_out.shape[-1]
    orders, simple = _orders(panels, seed), len(_simple(panels))
    first, then = (_lift_of_looking(mass, orders) for mass in (discovery, held_out))
    best, likely = int(first.argmax()), 1 + int(first[1 : 1 + simple].argmax())
    told = accuracy(asked.described == orders[best][asked.panel], asked.strip).low > _above(1 / panels)
    chance = simple * float((first >= first[likely] - 1e-9).mean())
    order = best if told else likely
    if first[order] > first[0] and then[order] > then[0] and (told or chance < BESIDE):
        return tuple(int(panel) + 1 for panel in orders[order])
    return None


def _reason(
    answer: Answer,
    looks: Looks,
    beside: tuple[int, ...] | None,
    criteria: Sequence[Criterion],
    heads: Sequence[HeadLook],
) -> str:
    best = heads[0]
    cause, need = (next((one for one in criteria if one.about == about), None) for about in ("cause", "need"))
    states = {
        about: {one.state for one in criteria if one.about == about} for about in ("answers", "look", "stability")
    }
    able = next(one for one in criteria if one.about == "answers")
    name = f"L{best.layer}H{best.head}"
    if beside:
        said = f"The heads look beside: asked about panels 1 to {len(beside)}, at {', '.join(map(str, beside))}"
    elif [one.state for one in criteria if one.about == "look"][:2] == ["holds", "holds"] and "fails" in states["look"]:
        said = "Attention follows the words of the question, but no more to the panels that they mean than to others"
    elif "fails" in states["look"]:
        said = (
            f"No head looks where the question says: the best, {name}, gives the panel asked about {best.lift:.3f} more "
            f"attention than the others, and most in {best.routing:.0%} of the questions"
        )
    elif answer == "yes" and cause and need:
        said = (
            f"{_count(heads)} where the question says, other strips put the same heads first, and steering them moves "
            f"{cause.value:.0%} more of the answers to the target than random heads do. {NEED[need.state]}"
        )
    elif answer == "no":
        failed = "; ".join(
            _numbers(one) for one in criteria if one.state == "fails" and one.about in ("stability", "cause")
        )
        said = f"{_count(heads)} where the question says, but that is not what moves the answers ({failed})"
    else:
        left = "; ".join(_numbers(one) for one in criteria if one.state != "holds" and one.about != "need")
        said = f"More strips or draws are needed to tell: {left}"
    if states["answers"] == {"fails"}:
        said += (
            f". The model does not answer about the panel asked for ({able.value:.0%} of the answers are about it): what its "
            "heads would do if it understood the question cannot be told"
        )
    return f"{said}."


def _count(heads: Sequence[HeadLook]) -> str:
    first, last = (edge(one.layer for one in heads) for edge in (min, max))
    where = f"layer {first}" if first == last else f"layers {first} to {last}"
    return f"One head, in {where}, looks" if len(heads) == 1 else f"{len(heads):,} heads, in {where}, look"


def _numbers(one: Criterion) -> str:
    return f"{one.what}: {one.value:.3f}, {one.low:.3f} to {one.high:.3f}, against {one.threshold:.3g}"
