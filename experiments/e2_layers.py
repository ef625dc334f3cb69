"""Experiment 2, layer steering: in which layer the order of reading is decided (arXiv 2606.14703, section 4).

Panels carry letters, and the model is asked for the letter of the k-th panel, plainly or with "Read the comic in reverse, " in
front. The difference of the two means in the residual stream of the last prompt token is added back to plain questions, behind
one layer at a time. The paper's wording of the question is not printed; ours is `LETTER`.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import backwards, layer_report
from experiments.backwards import paper_band
from experiments.flips import Arrays, Letters, bounds, collect_orders, correct, effects, evaluated, order_file
from experiments.lab import Lab
from experiments.labels import LETTERS
from experiments.probes import other_orders
from experiments.records import Records
from experiments.runner import script
from experiments.sources import PURPOSES
from experiments.testbed.wordings import LETTER, NOTEBOOK_NARRATION, REVERSE_NARRATION, REVERSE_PREFIX
from experiments.testbed.wordings import LETTERS as WORDINGS
from gaze.book import Chapter
from gaze.statistics import average

NUMBER, NAME, TITLE = 2, "e2_layers", "In which layer is the order of reading decided?"

COUNTS = (6, 4, 3)
"""Panels of a strip; the first makes the direction that is tried on all else."""
ORDERS = 12
"""Reading orders beyond the reverse, of the 718 that there are."""
KINDS = ("normal", "reverse", "other")


def collect(lab: Lab) -> None:
    place = lab.place(NAME)
    six = letters(lab, COUNTS[0])
    known, places = six["direction"], six["places"]
    for panels in COUNTS[1:]:
        letters(lab, panels, known)
    collect_orders(lab, COUNTS[0], ORDERS, place / "orders")
    for number, template in enumerate(WORDINGS.paraphrases):
        lab.saved(place / "wordings" / f"{number}.npz", partial(reworded, lab, known, places, template))
    backwards.collect(lab, NAME, known, places[:, 0])


def sum_up(lab: Lab) -> dict[str, Any]:
    """Everything by layer; the layers that single numbers are given for are chosen on selection strips."""
    layers = {name: chosen(lab, name) for name in ("reverse", "places")}
    return {
        **lab.provenance(LETTER),
        "prefix": REVERSE_PREFIX,
        "labels": LETTERS,
        "strips": {purpose: len(lab.pictures(purpose)) for purpose in PURPOSES},
        "shared": lab.sources["discovery"].shared,
        "layers": lab.shape[0],
        "gaze_layers": sorted({layer for layer, _ in lab.heads().heads}),
        "chosen": layers,
        "panels": {str(panels): by_layer(lab, panels, layers) for panels in COUNTS},
        "orders": orders(lab, layers),
        "wordings": wordings(lab, layers),
        "narration": narration(lab),
        "skipped_lines": lab.skipped,
        "failed_verdicts": len(lab.failed),
    }


def chapter(lab: Lab, results: dict[str, Any]) -> Chapter:
    six = letters(lab, COUNTS[0])
    return layer_report.chapter(NUMBER, NAME, TITLE, results, six["points"], six["first points"])


def letters(lab: Lab, panels: int, known: np.ndarray | None = None) -> Arrays:
    """What letter probes of one number of panels gave, see `experiments.flips.Letters.collect`."""
    return lab.saved(lab.place(NAME) / f"letters-{panels}.npz", lambda: Letters(lab, panels).collect(known))


def reworded(lab: Lab, known: np.ndarray, places: np.ndarray, template: str) -> Arrays:
    return Letters(lab, COUNTS[0]).reworded(known, places, template)


def chosen(lab: Lab, name: str) -> int:
    """The layer that flips most answers about the selection strips; the middle of the paper's band if none can flip."""
    found = effects(letters(lab, COUNTS[0]), [f"selection {name}"], lab.settings.seed, purpose="selection")
    if not found:
        band = paper_band(lab.shape[0])
        return band[len(band) // 2]
    return int(max(found, key=lambda row: (row["flip"], row["difference"]))["layer"])


def by_layer(lab: Lab, panels: int, layers: Mapping[str, int]) -> dict[str, Any]:
    """What the directions do to strips of one number of panels."""
    arrays, seed = letters(lab, panels), lab.settings.seed
    draws = {name: [f"{name} {number}" for number in range(lab.settings.draws)] for name in ("random", "random places")}
    single = [name for name in ("reverse", "places", "known", "other") if f"pushed {name}: token" in arrays]
    return {
        "asked": {kind: share(right, seed) for kind, right in zip(KINDS, correct(arrays, "evaluation"), strict=True)},
        "other_order": [panel + 1 for panel in Letters(lab, panels).other],
        "discovery_pairs": int(evaluated(arrays, purpose="discovery").sum()),
        "pairs": int(evaluated(arrays).sum()),
        "possible": int(np.not_equal(*arrays["evaluation: expected"][:2]).sum()),
        **{name: effects(arrays, [name], seed) for name in single},
        **{name: effects(arrays, some, seed) for name, some in draws.items()},
        **{f"{name} draws": [flips(arrays, draw, seed) for draw in some] for name, some in draws.items()},
        **{f"back {name}": effects(arrays, [f"back {name}"], seed, (1, 0)) for name in ("reverse", "places")},
        "per_panel": {name: per_panel(arrays, name, layer, seed) for name, layer in layers.items()},
        "difference_alone": alone(arrays),
        "silhouette": arrays["silhouette"].tolist(),
        "place_silhouette": arrays["place silhouettes"].mean(axis=0).tolist(),
    }


def flips(arrays: Arrays, name: str, seed: int) -> list[float]:
    """The share of flips behind each layer."""
    return [row["flip"] for row in effects(arrays, [name], seed)]


def per_panel(arrays: Arrays, name: str, layer: int, seed: int) -> list[dict[str, Any]]:
    """Flips behind one layer by the place that is asked for; places without pairs are left out."""
    pairs = evaluated(arrays)
    flip = arrays[f"pushed {name}: token"][layer] == arrays["letters"][arrays["evaluation: expected"][1]]
    rows = []
    for place in np.nonzero(pairs.any(axis=0))[0]:
        strip = np.nonzero(pairs[:, place])[0]
        found = average(flip[strip, place], strip, seed)
        ends = bounds(found.low, found.high)
        rows.append({"place": int(place) + 1, "flip": found.value, "interval": ends, "answers": len(strip)})
    return rows


def orders(lab: Lab, layers: Mapping[str, int]) -> list[dict[str, Any]]:
    """For each other order how often the model can follow it, and how often its direction makes a plain answer do so."""
    rows, seed = [], lab.settings.seed
    for order in other_orders(COUNTS[0], ORDERS, seed):
        arrays = kept(order_file(lab.place(NAME) / "orders", order))
        rows.append(
            {
                "order": [panel + 1 for panel in order],
                "asked": share(correct(arrays, "evaluation")[1], seed),
                "discovery_pairs": int(evaluated(arrays, purpose="discovery").sum()),
                **at(effects(arrays, ["order"], seed), layers["reverse"]),
                "places": at(effects(arrays, ["places"], seed), layers["places"]).get("flip"),
            }
        )
    return rows


def wordings(lab: Lab, layers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Other questions for the letter, pushed by the directions of the one question."""
    rows, seed = [], lab.settings.seed
    for number, template in enumerate(WORDINGS.paraphrases):
        arrays = kept(lab.place(NAME) / "wordings" / f"{number}.npz")
        normal, reverse = correct(arrays, "evaluation")
        rows.append(
            {
                "question": template,
                "asked": {"normal": share(normal, seed), "reverse": share(reverse, seed)},
                **at(effects(arrays, ["reverse"], seed), layers["reverse"]),
                "places": at(effects(arrays, ["places"], seed), layers["places"]).get("flip"),
            }
        )
    return rows


def narration(lab: Lab) -> dict[str, Any]:
    """What became of the free narrations, and in which bands they were pushed."""
    told = backwards.strips(lab, "evaluation")
    rows = Records(lab.place(NAME) / "answers.jsonl").rows()
    return {
        "questions": [NOTEBOOK_NARRATION, REVERSE_NARRATION],
        "judge": lab.judge.name,
        "strips": len(told),
        "bands": {name: list(backwards.best_band(lab, NAME, name)) for name in backwards.DIRECTIONS}
        | {"paper": list(paper_band(lab.shape[0]))},
        "conditions": backwards.summaries(lab, told, rows),
    }


def kept(path: Path) -> Arrays:
    """What `collect` saved."""
    with np.load(path) as arrays:
        return dict(arrays)


def at(found: Sequence[dict[str, Any]], layer: int) -> dict[str, Any]:
    """The row of one layer; empty if nothing was measured."""
    return found[layer] if found else {}


def alone(arrays: Arrays) -> float | None:
    """Mean logit difference (reverse minus normal letter) of plain questions that nothing is added to."""
    pairs, expected = evaluated(arrays), arrays["evaluation: expected"]
    if not pairs.any():
        return None
    there, here = (
        np.take_along_axis(arrays["evaluation: scores"][0], expected[kind][..., None], axis=-1) for kind in (1, 0)
    )
    return float((there - here)[..., 0][pairs].mean())


def share(right: np.ndarray, seed: int) -> dict[str, Any]:
    """How often the answer is right, with its interval."""
    strip = np.repeat(np.arange(len(right)), right.shape[1])
    found = average(right.ravel(), strip, seed)
    return {"value": found.value, "interval": bounds(found.low, found.high), "answers": found.answers}


if __name__ == "__main__":
    script(sys.modules[__name__])
