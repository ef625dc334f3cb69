"""What `gaze diagnose` finds, and how people are told of it."""

from rich.console import Console
from rich.table import Table
from typing_extensions import TypedDict

from experiments.paper.reports.checkpoints import CriterionRow
from experiments.paper.reports.discovery import StabilityRow
from experiments.run.formatting import COUNTING, ON_TARGET, on_target, percent
from experiments.run.summaries import PLATEAU, CountedRate
from gaze.steering.attention_cost import KEYS


class StripCounts(TypedDict):
    """Where strips come from, and how many were looked at."""

    source: str
    discovery: int
    held_out: int


class HeldOut(TypedDict):
    """How a head looks on strips that did not choose it, see `gaze.discovery.verdict.Look`."""

    routing: float
    lift: float
    p: float
    gazes: bool


class SteeredHead(TypedDict):
    """A head that is steered: its scores on the strips that chose it and on others."""

    layer: int
    head: int
    gaze: float
    selectivity: float
    lift: float
    routing: float
    held_out: HeldOut


class SteeringRows(TypedDict):
    """What steering reaches; `draws` are the accuracies of each draw of random heads."""

    gaze: CountedRate
    random: CountedRate
    all: CountedRate
    draws: list[float]
    draws_by_paper: list[float]


class StrengthRow(CountedRate):
    """What one strength reaches."""

    strength: float


class Strengths(TypedDict):
    """The least strength that reaches 95 % of what the greatest does; None if that moves no answer to its target."""

    curve: list[StrengthRow]
    enough: float | None


class TakenRow(TypedDict):
    """A `gaze.steering.attention_cost.Taken`, by its `KEYS`."""

    before: dict[str, float]
    after: dict[str, float]
    taken: dict[str, float] | None


class SpoiltRow(TypedDict):
    """Shares of the answers that are none."""

    empty: float
    junk: float
    n: int


class SteeringCost(TypedDict):
    """Attention of the steered heads by row, None where there is none, and what became of the answers."""

    prompt: TakenRow | None
    answer: TakenRow | None
    steered: SpoiltRow
    unsteered: SpoiltRow


class RegionTokens(TypedDict):
    """Image tokens of the panels or boxes."""

    least: int
    median: float
    most: int


class GridRow(TypedDict):
    """How many pictures are resized, and how many have every edge of a panel or box between two tokens.

    `off` is how many pixels the worst edge is off, `centreless` how many boxes hold the centre of no token.
    """

    pictures: int
    resized: int
    cell: int
    tokens: RegionTokens
    aligned: int
    off: float
    centreless: int


class Grids(TypedDict):
    """Both kinds of pictures."""

    strips: GridRow
    photos: GridRow


class Diagnosis(TypedDict):
    """What `gaze diagnose MODEL --json` prints.

    `revision` is a hash of the model's weights; `criteria` must all hold; `heads` are best first.
    """

    model: str
    revision: str
    judge: str
    layers: int
    heads_per_layer: int
    strips: StripCounts
    has_gaze_heads: bool | None
    reason: str
    criteria: list[CriterionRow]
    heads: list[SteeredHead]
    stability: StabilityRow
    steering: SteeringRows
    strength: Strengths
    cost: SteeringCost
    grid: Grids


def show(found: Diagnosis) -> None:
    """Prints a diagnosis for people."""
    console = Console()
    answer = "has gaze heads" if found["has_gaze_heads"] else "has no gaze heads"
    console.print(f"{found['model']} (weights {found['revision']}) {answer}. {found['reason']}")
    console.print(_criteria(found), _chosen(found), _steering(found), _costs(found))
    for line in remarks(found):
        console.print(line)


def _criteria(found: Diagnosis) -> Table:
    strips = found["strips"]
    title = f"What must hold, on {strips['held_out']} strips that did not choose the heads"
    table = _table(title, "", "what must hold", "value", "threshold", "holds")
    for one in found["criteria"]:
        numbers = (f"{number:.3f}" for number in (one["value"], one["threshold"]))
        table.add_row(one["about"], one["what"], *numbers, "yes" if one["passed"] else "no")
    return table


def _chosen(found: Diagnosis) -> Table:
    stability = found["stability"]
    table = _table("The heads", "head", "gaze", "lift", "routing", "lift, held out", "routing, held out", "p")
    for one in found["heads"][:12]:
        held_out = one["held_out"]
        scores = (one["gaze"], one["lift"], one["routing"], held_out["lift"], held_out["routing"], held_out["p"])
        table.add_row(f"L{one['layer']}H{one['head']}", *(f"{score:.3f}" for score in scores))
    table.caption = (
        f"{len(found['heads'])} of {found['layers'] * found['heads_per_layer']} heads. Halves of the strips agree on "
        f"{percent(stability['overlap'])} of them, chance is {percent(stability['chance'])}."
    )
    return table


def _steering(found: Diagnosis) -> Table:
    steering = found["steering"]
    draws, by_paper = steering["draws"], steering["draws_by_paper"]
    table = _table("Answers that describe the target panel", "steered", *ON_TARGET, "answers")
    names = ("these heads", f"random heads, {len(draws)} draws", "all heads")
    for label, one in zip(names, (steering["gaze"], steering["random"], steering["all"]), strict=True):
        table.add_row(label, *on_target(one), str(one["n"]))
    table.caption = (
        f"Single draws of random heads reach {percent(min(draws))} to {percent(max(draws))}, by the paper's counting "
        f"{percent(min(by_paper))} to {percent(max(by_paper))}. {COUNTING}"
    )
    return table


def _costs(found: Diagnosis) -> Table:
    table = _table("Attention of these heads", "row", "", *KEYS)
    for one, label in ((found["cost"]["prompt"], "last of the prompt"), (found["cost"]["answer"], "of the answer")):
        if one:
            for shares, how in ((one["before"], "left alone"), (one["after"], "steered")):
                table.add_row(label, how, *(percent(shares[key]) for key in KEYS))
        if one and one["taken"]:
            table.add_row(label, "target won from", "", *(percent(one["taken"][key]) for key in KEYS[1:]))
    return table


def remarks(found: Diagnosis) -> list[str]:
    """What is left to say, a sentence each."""
    enough, spoilt, grids = found["strength"]["enough"], found["cost"]["steered"], found["grid"]
    said = [
        f"A strength of {enough:g} reaches {PLATEAU:.0%} of what {found['strength']['curve'][-1]['strength']:g} does."
        if enough is not None
        else "No strength moves an answer to its target.",
        f"Of the steered answers {percent(spoilt['empty'])} are empty and {percent(spoilt['junk'])} are junk; of the others "
        f"{percent(found['cost']['unsteered']['empty'])} and {percent(found['cost']['unsteered']['junk'])}.",
    ]
    said += [_on_grid("strips", "panel", grids["strips"]), _on_grid("photos", "box", grids["photos"])]
    if grids["photos"]["centreless"]:
        said.append(
            f"Boxes that hold the centre of no token: {grids['photos']['centreless']}; they get the one that they overlap most."
        )
    return said


def _on_grid(name: str, kind: str, one: GridRow) -> str:
    least, most, cell = one["tokens"]["least"], one["tokens"]["most"], one["cell"]
    tokens = f"{least}" if least == most else f"{least} to {most}"
    edges = (
        "every edge falls between two tokens"
        if one["aligned"] == one["pictures"]
        else f"edges are up to {one['off']:.0f} pixels off the tokens' grid, so that some tokens show both sides"
    )
    return (
        f"{one['resized']} of {one['pictures']} {name} are resized; a {kind} has {tokens} image "
        f"tokens of {cell} x {cell} pixels; {edges}."
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    return table
