"""What `gaze diagnose` finds, and how people are told of it."""

from rich.console import Console
from rich.table import Table
from typing_extensions import TypedDict

from experiments.paper.examination import ExaminedRow, SteeringRow
from experiments.run.formatting import COUNTING, ON_TARGET, on_target, percent, plural, share
from experiments.run.summaries import PLATEAU, Among, Share
from gaze.steering.attention_cost import KEYS


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


class Diagnosis(ExaminedRow):
    """What `gaze diagnose MODEL --json` prints.

    The criteria of `verdict` are those of `gaze.discovery.verdict`; `source` is where the strips come from. There is no `cost`
    where no head looks, as none is steered.
    """

    judge: str
    source: str
    cost: SteeringCost | None
    grid: Grids


ANSWERS = {
    "yes": "has gaze heads",
    "no": "has no gaze heads",
    "uncertain": "may have gaze heads or not",
    None: "cannot be diagnosed",
}


def show(found: Diagnosis) -> None:
    """Prints a diagnosis for people."""
    console, judged = Console(), found["verdict"]
    console.print(f"{found['model']} (weights {found['revision']}) {ANSWERS[judged['answer']]}. {judged['reason']}")
    console.print(_criteria(found))
    if found["heads"]:
        console.print(_heads(found))
    if "steering" in found:
        console.print(_steering(found["steering"], found["asked"]))
    if found["cost"]:
        console.print(_costs(found["cost"]))
    for line in remarks(found):
        console.print(line)


def _criteria(found: Diagnosis) -> Table:
    strips = found["strips"]
    title = f"On {strips['held_out']} strips that did not choose the heads"
    table = _table(title, "about", "what must lie above its threshold", "value", "95% interval", "threshold", "holds")
    for one in found["verdict"]["criteria"]:
        exact = one["low"] == one["value"] == one["high"]
        reach = "" if exact else f"{one['low']:.3f} to {one['high']:.3f}"
        state = {"holds": "yes", "fails": "no"}.get(one["state"], one["state"])
        decides = state if one["about"] != "need" else f"{state}, does not decide"
        table.add_row(one["about"], one["what"], f"{one['value']:.3f}", reach, f"{one['threshold']:.3f}", decides)
    return table


def _heads(found: Diagnosis) -> Table:
    columns = ("head", "gaze", "lift", "routing", "lift, held out", "routing, held out")
    table = _table("The heads that look", *columns)
    for one in found["heads"][:12]:
        scores = (*(one["scores"][name] for name in ("gaze", "lift", "routing")), one["lift"], one["routing"])
        table.add_row(f"L{one['layer']}H{one['head']}", *(f"{score:.3f}" for score in scores))
    layers = [one["layer"] for one in found["heads"]]
    table.caption = (
        f"{plural(len(layers), 'head')} of {found['layers'] * found['heads_per_layer']}, in layers {min(layers)} to "
        f"{max(layers)} of {found['layers']}, chosen on {found['strips']['discovery']} strips."
    )
    return table


def _steering(steering: SteeringRow, asked: Share) -> Table:
    found = steering["conditions"]
    draws, by_paper = (one["against"] for one in (found["random"], found["random"]["by_paper"]))
    table = _table("Answers that describe the target panel", "heads", "strength", *ON_TARGET, "without them, asked")
    labels = {"gaze": "these", "random": f"random, {plural(len(draws['accuracies']), 'draw')}", "all": "all"}
    for kind, label in labels.items():
        without = share(steering["cut"][kind]) if kind in steering["cut"] else ""
        table.add_row(label, f"{steering['strengths'][kind]:,g}", *on_target(found[kind]), without)
    table.caption = (
        f"Each kind at the strength that is its best on other strips. Single draws of random heads reach {drawn_range(draws)}, "
        f"by the paper's counting {drawn_range(by_paper)}. The last column is about questions that name the panel, of which "
        f"{share(asked)} are answered when nothing is changed. {COUNTING}"
    )
    return table


def drawn_range(found: Among) -> str:
    return f"{percent(found['lowest'])} to {percent(found['highest'])}"


def _costs(cost: SteeringCost) -> Table:
    table = _table("Attention of these heads", "row", "", *KEYS)
    for one, label in ((cost["prompt"], "last of the prompt"), (cost["answer"], "of the answer")):
        if one:
            for shares, how in ((one["before"], "left alone"), (one["after"], "steered")):
                table.add_row(label, how, *(percent(shares[key]) for key in KEYS))
        if one and one["taken"]:
            table.add_row(label, "target won from", "", *(percent(one["taken"][key]) for key in KEYS[1:]))
    return table


def remarks(found: Diagnosis) -> list[str]:
    """What is left to say, a sentence each."""
    grids, cost, said = found["grid"], found["cost"], list[str]()
    if "steering" in found:
        enough, best = found["steering"]["enough"], found["steering"]["strengths"]["gaze"]
        said.append(
            f"The heads were steered at strength {best:g}, the best on other strips; {enough:g} reaches {PLATEAU:.0%} of what it "
            "does."
            if enough is not None
            else "No strength moves an answer to its target."
        )
    else:
        said.append("No head looks where the question says, so none was steered.")
    if cost:
        spoilt, alone = cost["steered"], cost["unsteered"]
        said.append(
            f"Of the steered answers {percent(spoilt['empty'])} are empty and {percent(spoilt['junk'])} are junk; of the others "
            f"{percent(alone['empty'])} and {percent(alone['junk'])}."
        )
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
