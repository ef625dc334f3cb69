"""How often the verdict would be yes at published figures of large models, by simulation: power, and false alarms.

Everything that a diagnosis measures is drawn, and judged by `gaze.discovery.verdict` itself. Figures of arXiv 2606.14703, its
reproductions, and what had to be assumed:

* Attention: 200 heads (what 8B's 1,152 have beyond these attends alike), of which the best hundred have the gaze scores that
  were published for Qwen3-VL-8B, .229 down to .058; half of a looking head's attention to the picture is on the panel asked
  about. Others attend to all panels alike. Between strips attention differs by a factor, its logarithm by .5.
* Answers: the share on target with the heads and the mean share with random ones are the paper's. Random sets differ among
  themselves: by 18 points in the independent run that drew ten of them, layers matched. Answers about one strip are alike
  (correlation .2), and a quarter of what makes a strip easy is the same for all sets.
* The panel asked for is described in 80 % of answers; without the heads in half as many.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from tqdm import tqdm
from typing_extensions import TypedDict

from experiments.commands.diagnose import STRIPS
from gaze.discovery.scores import Mass
from gaze.discovery.verdict import Asked, Steered, Verdict, looking, verdict

PANELS, SHAPE = 6, (5, 40)
SCORES = (0.2287, 0.178, 0.174, 0.165, 0.152, 0.145)
"""The best heads of Qwen3-VL-8B that look; at rank 100 it is .058."""
RANKED, LAST = 100, 0.058
ALIKE, COMMON = 0.2, 0.25
ABLE = 0.8
TIMES = 200


@dataclass(frozen=True)
class Case:
    """A model: shares of answers on target with the heads and with random ones, and how much the latter differ.

    Attributes:
      looks: whether heads look.
      as_random: whether the heads are, in what they do, but another draw of random heads.
    """

    name: str
    steered: float
    random: float
    spread: float
    looks: bool = True
    as_random: bool = False


CASES = (
    Case("8B: 83.1% against 14.6%, the paper", 0.831, 0.146, 0.18),
    Case("4B: 72.9% against 1.5%, the paper", 0.729, 0.015, 0.02),
    Case("2B: 68.6% against 1.3%, the paper", 0.686, 0.013, 0.02),
    Case("8B with the 50 best heads: 63.2% against 15.7%, the paper", 0.632, 0.157, 0.18),
    Case("4B: 54% against 4%, the nnsight tutorial", 0.54, 0.04, 0.05),
    Case("8B: 70.0% against 29.6%, an independent run", 0.70, 0.296, 0.18),
)
NULLS = (
    Case("8B, but no head looks", 0.831, 0.146, 0.18, looks=False),
    Case("8B, but the heads do what random ones do on average", 0.146, 0.146, 0.18),
    Case("8B, but the heads are ahead by no more than the threshold", 0.296, 0.146, 0.05),
    Case("8B, but the heads are just another draw", 0.146, 0.146, 0.18, as_random=True),
    Case("an independent run, but the heads are just another draw", 0.296, 0.296, 0.18, as_random=True),
    Case("4B, but the heads do what random ones do on average", 0.015, 0.015, 0.02),
)
BY_DRAWS = (CASES[0], CASES[5], NULLS[3])
Sizes = dict[str, int]


def rates(case: Case, sizes: Sizes, times: int = TIMES, seed: int = 0) -> dict[str, float]:
    """Returns how often the answer is yes, no and uncertain."""
    rng = np.random.default_rng([seed, *case.name.encode(), *sizes.values()])
    found = [simulated(case, sizes, rng).answer for _ in range(times)]
    return {answer: found.count(answer) / times for answer in ("yes", "uncertain", "no")}


def simulated(case: Case, sizes: Sizes, rng: np.random.Generator) -> Verdict:
    """One diagnosis."""
    scores = _scores() if case.looks else np.zeros(0)
    discovery, held_out = (_attention(scores, sizes[purpose], rng) for purpose in ("discovery", "evaluation"))
    heads = looking(discovery)
    strips = sizes["evaluation"]
    ease = rng.standard_normal(strips)
    strip, panel = np.repeat(np.arange(strips), PANELS), np.tile(np.arange(PANELS), strips)

    def hits(share: float) -> Bool[np.ndarray, " answer"]:
        return _hits(share, ease, rng)

    told = np.where(hits(ABLE), panel, -1)
    steered = cut = None
    if heads:
        share = _share(case.random, case.spread, rng) if case.as_random else case.steered
        draws = [_share(case.random, case.spread, rng) for _ in range(sizes["draws"])]
        steered = Steered(hits(share), np.stack([hits(one) for one in draws]), strip)
        cut = Steered(hits(ABLE / 2), np.stack([hits(ABLE) for _ in draws]), strip)
    return verdict(discovery, held_out, heads, Asked(panel, told, strip), steered, cut, 0)


def _scores() -> Float[np.ndarray, " head"]:
    """Those published, and down to the hundredth evenly in logarithms."""
    rest = np.geomspace(SCORES[-1], LAST, RANKED - len(SCORES) + 1)[1:]
    return np.array([*SCORES, *rest])


def _attention(scores: Float[np.ndarray, " head"], strips: int, rng: np.random.Generator) -> Mass:
    heads = SHAPE[0] * SHAPE[1]
    on_asked, other = np.full(heads, 0.02), np.full(heads, 0.02)
    on_asked[: len(scores)], other[: len(scores)] = scores, scores / (PANELS - 1)
    asked = np.eye(PANELS)[:, None]
    mean = asked * on_asked[:, None] + (1 - asked) * other[:, None]
    mass: np.ndarray = mean * rng.lognormal(-0.125, 0.5, (strips, PANELS, heads, PANELS))
    return mass.astype(np.float32).reshape(strips, PANELS, *SHAPE, PANELS)


def _share(mean: float, spread: float, rng: np.random.Generator) -> float:
    """The share of a random set, beta-distributed."""
    spread = min(spread, 0.95 * np.sqrt(mean * (1 - mean)))
    size = mean * (1 - mean) / spread**2 - 1
    return float(rng.beta(mean * size, (1 - mean) * size))


def _hits(share: float, ease: Float[np.ndarray, " strip"], rng: np.random.Generator) -> Bool[np.ndarray, " answer"]:
    """Answers to six targets about each strip; strips differ, in part alike for all sets."""
    strips = len(ease)
    normal = np.sqrt(COMMON) * ease + np.sqrt(1 - COMMON) * rng.standard_normal(strips)
    level = np.sqrt(ALIKE) * normal[:, None] + np.sqrt(1 - ALIKE) * rng.standard_normal((strips, PANELS))
    below: np.ndarray = level < stats.norm.ppf(share)
    return below.ravel()


DRAWS = (3, 10, 20, 50)
DEFAULT: Sizes = {name: STRIPS[name] for name in ("discovery", "evaluation", "draws")}


class PowerRow(TypedDict):
    """How often the answer is yes, no and uncertain for one model, of so many simulations."""

    case: str
    null: bool
    sizes: Sizes
    yes: float
    uncertain: float
    no: float


def table(times: int) -> list[PowerRow]:
    """Returns every case at the default sizes, and those of `BY_DRAWS` with other numbers of draws."""
    at = [(case, DEFAULT) for case in (*CASES, *NULLS)]
    at += [(case, {**DEFAULT, "draws": draws}) for case in BY_DRAWS for draws in DRAWS if draws != DEFAULT["draws"]]
    found = []
    for case, sizes in tqdm(at, desc="cases", unit="case", disable=None):
        shares = rates(case, sizes, times)
        found.append(PowerRow(case=case.name, null=case in NULLS, sizes=sizes, **shares))  # type: ignore[typeddict-item]
    return found


def save(rows: Sequence[PowerRow], times: int, folder: Path) -> None:
    """Writes the rows, and a table of them."""
    (folder / "power.json").write_text(json.dumps({"times": times, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (folder / "power.md").write_text(_page(rows, times), encoding="utf-8")


def _page(rows: Sequence[PowerRow], times: int) -> str:
    return "\n".join(
        [
            "# How often `gaze diagnose` would say yes to the models of the paper",
            "",
            f"`python -m experiments.error_rates power` simulates each row {times} times; [power.py](power.py) says what is",
            "drawn, and on which figures it rests. As in the command,",
            f"{DEFAULT['discovery']} strips find the heads and {DEFAULT['evaluation']} others judge them.",
            "",
            "| model | draws | yes | uncertain | no |",
            "|---|---:|---:|---:|---:|",
            *(_line(row) for row in rows if not row["null"]),
            "",
            "The same where yes is wrong:",
            "",
            "| model | draws | yes | uncertain | no |",
            "|---|---:|---:|---:|---:|",
            *(_line(row) for row in rows if row["null"]),
            "",
        ]
    )


def _line(row: PowerRow) -> str:
    return f"| {row['case']} | {row['sizes']['draws']} | {row['yes']:.1%} | {row['uncertain']:.1%} | {row['no']:.1%} |"
