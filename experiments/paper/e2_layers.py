"""Experiment 2, layer steering: in which layer the order of reading is decided (arXiv 2606.14703, section 4).

Panels carry letters, and the model is asked for the letter of the k-th panel, plainly or with "Read the comic in reverse, " in
front. The difference of the two means in the residual stream of the last prompt token is added back to plain questions, after
one layer at a time. The paper's wording of the question is not printed; ours is `LETTER`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from experiments.data.sources import PURPOSES
from experiments.paper.layer_steering import reverse_narration
from experiments.paper.layer_steering.letter_probes import other_orders
from experiments.paper.layer_steering.letter_task import (
    Arrays,
    Letters,
    all_digests,
    bounds,
    collect_orders,
    correct,
    effects,
    evaluated,
    order_file,
)
from experiments.paper.layer_steering.panel_labels import letters_for
from experiments.paper.layer_steering.results import (
    EffectRow,
    LayerResults,
    LetterResults,
    MaybeEffect,
    NarrationResults,
    OrderRow,
    PlaceRow,
    RightRow,
    WordingRow,
)
from experiments.paper.layer_steering.reverse_narration import paper_band
from experiments.paper.reports import layers as layer_report
from experiments.run.cache import read_arrays
from experiments.run.records import Records
from experiments.run.run import Run
from experiments.testbed.wordings import LETTERS as WORDINGS
from gaze.prompts import LETTER, NOTEBOOK_NARRATION, REVERSE_NARRATION, REVERSE_PREFIX
from gaze.report.html import Chapter
from gaze.statistics import average

NUMBER, NAME, TITLE = 2, "e2_layers", "In which layer is the order of reading decided?"

FEWER = (4, 3)
"""Numbers of panels that the direction of whole strips is tried on, too."""
ORDERS = 12
"""Reading orders beyond the reverse, at most: six panels have 718."""
KINDS = ("normal", "reverse", "other")


def counts(run: Run) -> tuple[int, ...]:
    """Returns the numbers of panels that are asked about, all panels of a strip first."""
    return (run.settings.panels, *(count for count in FEWER if count < run.settings.panels))


def collect(run: Run) -> None:
    place = run.place(NAME)
    whole, *fewer = counts(run)
    found = collect_letters(run, whole)
    known, places = found["direction"], found["places"]
    for panels in fewer:
        collect_letters(run, panels, known)
    collect_orders(run, whole, ORDERS, place / "orders")
    for number, template in enumerate(WORDINGS.paraphrases):
        make = partial(reworded, run, known, places, template)
        run.saved(place / "wordings" / f"{number}.npz", make, all_digests(run), known, places, template)
    reverse_narration.collect(run, NAME, known, places[:, 0])


def sum_up(run: Run) -> LayerResults:
    """Everything by layer; the layers that single numbers are given for are chosen on selection strips."""
    layers = {name: chosen(run, name) for name in ("reverse", "places")}
    return {
        **run.provenance(LETTER),
        "prefix": REVERSE_PREFIX,
        "labels": letters_for(run.settings.panels),
        "strips": {purpose: len(run.pictures(purpose)) for purpose in PURPOSES},
        "shared": run.sources["discovery"].shared,
        "layers": run.shape[0],
        "gaze_layers": sorted({layer for layer, _ in run.heads().heads}),
        "chosen": layers,
        "panels": {str(panels): by_layer(run, panels, layers) for panels in counts(run)},
        "orders": orders(run, layers),
        "wordings": wordings(run, layers),
        "narration": narration(run),
        "skipped_lines": run.skipped,
        "failed_verdicts": len(run.failed),
    }


def chapter(run: Run, results: LayerResults) -> Chapter:
    found = letters(run, run.settings.panels)
    return layer_report.chapter(NUMBER, NAME, TITLE, results, found["points"], found["first points"])


def collect_letters(run: Run, panels: int, known: np.ndarray | None = None) -> Arrays:
    """Saves what letter probes of one number of panels give, see `letter_task.Letters.collect`."""
    make = partial(Letters(run, panels).collect, known)
    return run.saved(letters_file(run, panels), make, all_digests(run), panels, known)


def letters(run: Run, panels: int) -> Arrays:
    """What `collect_letters` saved."""
    return read_arrays(letters_file(run, panels))


def letters_file(run: Run, panels: int) -> Path:
    return run.place(NAME) / f"letters-{panels}.npz"


def reworded(run: Run, known: np.ndarray, places: np.ndarray, template: str) -> Arrays:
    return Letters(run, run.settings.panels).reworded(known, places, template)


def chosen(run: Run, name: str) -> int:
    """The layer that flips most answers about the selection strips; the middle of the paper's band if none can flip."""
    found = effects(letters(run, run.settings.panels), [f"selection {name}"], purpose="selection")
    if not found:
        band = paper_band(run.shape[0])
        return band[len(band) // 2]
    return int(max(found, key=lambda row: (row["flip"], row["difference"]))["layer"])


def by_layer(run: Run, panels: int, layers: Mapping[str, int]) -> LetterResults:
    """What the directions do to strips of one number of panels."""
    arrays = letters(run, panels)
    draws = {name: [f"{name} {number}" for number in range(run.settings.draws)] for name in ("random", "random places")}
    single = [name for name in ("reverse", "places", "known", "other") if f"pushed {name}: token" in arrays]
    found = {
        "asked": {kind: share(right) for kind, right in zip(KINDS, correct(arrays, "evaluation"), strict=False)},
        "other_order": [panel + 1 for order in Letters(run, panels).others for panel in order],
        "discovery_pairs": int(evaluated(arrays, purpose="discovery").sum()),
        "pairs": int(evaluated(arrays).sum()),
        "possible": int(np.not_equal(*arrays["evaluation: expected"][:2]).sum()),
        **{name: effects(arrays, [name]) for name in single},
        **{name: effects(arrays, some) for name, some in draws.items()},
        **{f"{name} draws": [flips(arrays, draw) for draw in some] for name, some in draws.items()},
        **{f"back {name}": effects(arrays, [f"back {name}"], (1, 0)) for name in ("reverse", "places")},
        "per_panel": {name: per_panel(arrays, name, layer) for name, layer in layers.items()},
        "difference_alone": alone(arrays),
        "silhouette": arrays["silhouette"].tolist(),
        "place_silhouette": arrays["place silhouettes"].mean(axis=0).tolist(),
    }
    return cast(LetterResults, found)


def flips(arrays: Arrays, name: str) -> list[float]:
    """The share of flips after each layer."""
    return [row["flip"] for row in effects(arrays, [name])]


def per_panel(arrays: Arrays, name: str, layer: int) -> list[PlaceRow]:
    """Flips after one layer by the place that is asked for; places without pairs are left out."""
    pairs = evaluated(arrays)
    flip = arrays[f"pushed {name}: token"][layer] == arrays["letters"][arrays["evaluation: expected"][1]]
    rows: list[PlaceRow] = []
    for place in np.nonzero(pairs.any(axis=0))[0]:
        strip = np.nonzero(pairs[:, place])[0]
        found = average(flip[strip, place], strip)
        ends = bounds(found.low, found.high)
        rows.append({"place": int(place) + 1, "flip": found.value, "interval": ends, "answers": len(strip)})
    return rows


def orders(run: Run, layers: Mapping[str, int]) -> list[OrderRow]:
    """For each other order how often the model can follow it, and how often its direction makes a plain answer do so."""
    rows: list[OrderRow] = []
    for order in other_orders(run.settings.panels, ORDERS, run.settings.seed):
        arrays = read_arrays(order_file(run.place(NAME) / "orders", order))
        rows.append(
            {
                "order": [panel + 1 for panel in order],
                "asked": share(correct(arrays, "evaluation")[1]),
                "discovery_pairs": int(evaluated(arrays, purpose="discovery").sum()),
                **at(effects(arrays, ["order"]), effects(arrays, ["places"]), layers),
            }
        )
    return rows


def wordings(run: Run, layers: Mapping[str, int]) -> list[WordingRow]:
    """Other questions for the letter, pushed by the directions of the one question."""
    rows: list[WordingRow] = []
    for number, template in enumerate(WORDINGS.paraphrases):
        arrays = read_arrays(run.place(NAME) / "wordings" / f"{number}.npz")
        normal, reverse = correct(arrays, "evaluation")
        rows.append(
            {
                "question": template,
                "asked": {"normal": share(normal), "reverse": share(reverse)},
                **at(effects(arrays, ["reverse"]), effects(arrays, ["places"]), layers),
            }
        )
    return rows


def narration(run: Run) -> NarrationResults:
    """What became of the free narrations, and in which bands they were pushed."""
    told = reverse_narration.strips(run, "evaluation")
    rows = Records(run.place(NAME) / "answers.jsonl").rows()
    return {
        "questions": [NOTEBOOK_NARRATION, REVERSE_NARRATION],
        "judge": run.judge.name,
        "strips": len(told),
        "bands": {name: list(reverse_narration.best_band(run, NAME, name)) for name in reverse_narration.DIRECTIONS}
        | {"paper": list(paper_band(run.shape[0]))},
        "conditions": reverse_narration.summaries(run, told, rows),
    }


def at(one: Sequence[EffectRow], places: Sequence[EffectRow], layers: Mapping[str, int]) -> MaybeEffect:
    """What one direction does after its layer, and the flips of those per place after theirs."""
    if not one:
        return {"places": None}
    return {**one[layers["reverse"]], "places": places[layers["places"]]["flip"]}


def alone(arrays: Arrays) -> float | None:
    """Mean logit difference (reverse minus normal letter) of plain questions that nothing is added to."""
    pairs, expected = evaluated(arrays), arrays["evaluation: expected"]
    if not pairs.any():
        return None
    there, here = (
        np.take_along_axis(arrays["evaluation: scores"][0], expected[kind][..., None], axis=-1) for kind in (1, 0)
    )
    return float((there - here)[..., 0][pairs].mean())


def share(right: np.ndarray) -> RightRow:
    """How often the answer is right, with its interval."""
    strip = np.repeat(np.arange(len(right)), right.shape[1])
    found = average(right.ravel(), strip)
    return {"value": found.value, "interval": bounds(found.low, found.high), "answers": found.answers}
