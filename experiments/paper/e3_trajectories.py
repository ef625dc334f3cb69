"""Experiment 3, trajectories: where heads look while the model narrates (arXiv 2606.14703, section 2; released script 02).

The model writes its narration alone; then it is read once more and the attention of every head on every panel is kept, token
by token for the gaze heads and the controls, line by line for all.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.paper.e1_discovery import by_strip
from experiments.paper.reports.trajectories import (
    WEIGHTS,
    GenerationResults,
    GenerationScores,
    Looking,
    MeanScores,
    NarrationRow,
    TrajectoryResults,
    Weight,
    report,
    staircases,
)
from experiments.paper.steering_study import nowhere
from experiments.run.cache import read_arrays
from experiments.run.conditions import Condition
from experiments.run.records import Row
from experiments.run.run import Run, progress
from experiments.run.settings import is_testbed
from experiments.run.summaries import CorrelationRow, Share, among, correlation_row, provenance, shared
from gaze.discovery import narration_attention
from gaze.discovery.narration_attention import Watched, watch
from gaze.discovery.scores import CREDITS, per_strip
from gaze.pictures.strips import Strip
from gaze.prompts import NOTEBOOK_NARRATION, REVERSE_NARRATION, REVERSE_TRAJECTORY, TRAJECTORY, fill
from gaze.report.html import Chapter, Plot
from gaze.report.plots_time import trajectories
from gaze.statistics import accuracy, correlation, spearman
from gaze.text_spans import TextSpan, narrated, token_ends

NUMBER, NAME, TITLE = 3, "e3_trajectories", "Where the heads look while the model narrates"
STRIPS = 8
"""Strips that are watched, and saved, at once."""
BINS = 8
"""Steps of a line in the figures."""


class Narration(NamedTuple):
    """A way to ask for a narration, and whether it goes through the strip backwards."""

    question: str
    backwards: bool

    def order(self, panels: int) -> list[int]:
        return [*range(panels)][:: -1 if self.backwards else 1]


NUMBERED = {
    "forward": Narration(TRAJECTORY, False),
    "reverse": Narration(REVERSE_TRAJECTORY, True),
}
FREE = {
    "forward, no numbers": Narration(NOTEBOOK_NARRATION, False),
    "reverse, no numbers": Narration(REVERSE_NARRATION, True),
}


def narrations(run: Run) -> dict[str, Narration]:
    """The numbered narrations, and those without numbers of a model that is known to give each panel one sentence."""
    known = NUMBERED | (FREE if is_testbed(run.settings.model) else {})
    panels = run.settings.panels
    return {name: one._replace(question=fill(one.question, 0, panels)) for name, one in known.items()}


def collect(run: Run) -> None:
    strips = run.pictures("evaluation")
    asked = narrations(run)
    room = run.settings.narration
    run.generate(NAME, strips, [Condition(name, one.question, room, nowhere(strips)) for name, one in asked.items()])
    rows = run.answers(NAME)
    starts = range(0, len(strips), STRIPS)
    sets = _head_sets(run)
    with progress("watching narrations", len(asked) * len(starts)) as done:
        for name, one in asked.items():
            said = _of(rows, name)
            for start in starts:
                some = slice(start, start + STRIPS)
                make = partial(_watched, run, one, strips[some], said[some])
                answers = [row["tokens"] for row in said[some]]
                run.saved(_file(run, name, start), make, run.digests(strips[some]), one, answers, sets)
                done(1)


def sum_up(run: Run) -> TrajectoryResults:
    rows = run.answers(NAME)
    asked = narrations(run)
    found = {name: _narration(run, name, one, _of(rows, name)) for name, one in asked.items()}
    return {
        "judge": run.judge.name,
        "heads": [list(head) for head in run.heads().heads],
        "draws": run.settings.draws,
        "narrations": found,
        "generation": _generation(run),
        "skipped_lines": run.skipped,
        "failed_verdicts": len(run.failed),
    }


def watched(run: Run, name: str) -> dict[str, np.ndarray]:
    """What is saved of a narration, of all strips.

    `lines` [strip, token]: the panel of each token's line; `ends` [strip, token] and `length`, see `gaze.text_spans`;
    for each of `WEIGHTS` the means over the gaze heads, then each draw of controls, "mass/sets" [strip, set, token, panel], and
    of every head "mass/lines" [strip, line, layer, head, panel].
    """
    starts = range(0, len(run.pictures("evaluation")), STRIPS)
    parts = [read_arrays(_file(run, name, start)) for start in starts]
    saved = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    unwritten, lineless = _gaps(saved["lines"], saved["length"], saved["mass/lines"].shape[1])
    for weight in WEIGHTS:
        saved[f"{weight}/sets"].swapaxes(1, 2)[unwritten] = np.nan
        saved[f"{weight}/lines"][lineless] = np.nan
    return saved


def _gaps(lines: np.ndarray, length: np.ndarray, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens [strip, token] were not written, and which lines [strip, line] not: they have no attention."""
    unwritten = np.arange(lines.shape[1]) >= length[:, None]
    return unwritten, ~(lines[:, :, None] == np.arange(panels)).any(axis=1)


def _file(run: Run, name: str, start: int) -> Path:
    return run.place(NAME) / name.replace(", ", "_").replace(" ", "_") / f"{start:05}.npz"


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["condition"] == name]


def _watched(run: Run, narration: Narration, strips: Sequence[Strip], rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """What is saved of some strips."""
    room, size = run.settings.narration, min(STRIPS, run.settings.evaluation)
    decode = run.processor.tokenizer.decode
    ends = [token_ends(partial(decode, skip_special_tokens=True), row["tokens"]) for row in rows]
    order = narration.order(len(strips[0]))
    told = [narrated(row["text"], end, order) for row, end in zip(rows, ends, strict=True)]
    lines = narration_attention.line_of_token(told, room)
    said = [np.array(row["tokens"], np.int32) for row in rows]
    found = watch(run.model, run.processor, strips, narration.question, said, room, size)
    return {
        "lines": lines.astype(np.int8),
        "ends": np.stack([np.pad(end, (0, room - len(end))) for end in ends]),
        "length": np.array([len(end) for end in ends], np.int32),
        **_reduced(run, found, lines, np.array([len(end) for end in ends])),
    }


def _head_sets(run: Run) -> np.ndarray:
    """The gaze heads and each draw of controls, as masks."""
    heads = run.heads()
    return np.stack([one.to_mask(*run.shape) for one in (heads, *run.controls(heads))])


def _reduced(run: Run, found: Watched, lines: np.ndarray, length: np.ndarray) -> dict[str, np.ndarray]:
    """Attention of the head sets token by token, and of all heads line by line; 0 where there is no token or line."""
    sets, kept = _head_sets(run), {}
    unwritten, lineless = _gaps(lines, length, found.mass.shape[-1])
    for weight in WEIGHTS:
        mass = getattr(found, weight)
        kept[f"{weight}/sets"] = narration_attention.averaged(mass, sets).astype(np.float16)
        kept[f"{weight}/sets"].swapaxes(1, 2)[unwritten] = 0
        kept[f"{weight}/lines"] = narration_attention.by_line(mass, lines).astype(np.float16)
        kept[f"{weight}/lines"][lineless] = 0
    return kept


def _narration(run: Run, name: str, narration: Narration, rows: Sequence[Row]) -> NarrationRow:
    """Returns one way of narrating: whether the lines are right, and where the heads look during them."""
    strips, saved = run.pictures("evaluation"), watched(run, name)
    order = narration.order(len(strips[0]))
    ends = [end[:length] for end, length in zip(saved["ends"], saved["length"], strict=True)]
    told = [narrated(row["text"], end, order) for row, end in zip(rows, ends, strict=True)]
    return {
        **provenance({**rows[0], "judge": run.judge.name}),
        "order": [panel + 1 for panel in order],
        "strips": len(strips),
        "lines": len(strips) * len(order),
        "lines_found": sum(map(len, told)),
        "lines_right": _right(run, rows, told, order),
        "mass": _looking(run, saved, "mass", order),
        "value_mass": _looking(run, saved, "value_mass", order),
    }


def _right(run: Run, rows: Sequence[Row], told: Sequence[Mapping[int, TextSpan]], order: Sequence[int]) -> Share:
    """Returns the share of lines that describe their own panel; a line that is not there does not."""
    wanted = [(number, panel) for number in range(len(rows)) for panel in order]
    texts = [told[number][panel].text if panel in told[number] else "" for number, panel in wanted]
    strips = [rows[number]["strip"] for number, _ in wanted]
    found = run.verdicts(run.pictures("evaluation"), list(zip(strips, texts, strict=True)))
    hit = np.array([said == panel for said, (_, panel) in zip(found, wanted, strict=True)])
    return shared(accuracy(hit, np.array([number for number, _ in wanted])))


def _looking(run: Run, saved: Mapping[str, np.ndarray], weight: Weight, order: Sequence[int]) -> Looking:
    """Returns the staircase of gaze heads and controls, and its numbers."""
    lines = saved["lines"].astype(np.int32)
    sets = saved[f"{weight}/sets"].astype(np.float32).transpose(1, 0, 2, 3)
    looked = [narration_attention.attended(narration_attention.line_mass(one, lines)) for one in sets]
    known = looked[0] >= 0
    strip, panel = np.nonzero(known)
    hits = np.stack([one[known] == panel for one in looked])
    begun = narration_attention.first_token(lines, len(order))
    return {
        "own_panel": shared(accuracy(hits[0], strip)),
        "against": among(hits[0], [*hits[1:]], strip),
        "with_panel": [_correlated(one, np.broadcast_to(np.arange(len(order)), one.shape)) for one in looked],
        "with_time": [_correlated(one, begun) for one in looked],
        "stairs": narration_attention.stairs(sets[0], lines, order, BINS).tolist(),
        "control_stairs": narration_attention.stairs(sets[1:].mean(axis=0), lines, order, BINS).tolist(),
    }


def _correlated(looked: np.ndarray, other: np.ndarray) -> CorrelationRow:
    """Returns the rank correlation, over the lines of each strip, of the panel that is looked at with something else."""
    values = [spearman(one[row >= 0], row[row >= 0]) for one, row in zip(other, looked, strict=True)]
    return correlation_row(correlation(values, np.arange(len(values))))


def _generation(run: Run) -> GenerationResults:
    """Returns scores as in discovery, from the lines of the forward narration in place of questions about panels."""
    saved, heads = watched(run, "forward"), run.heads()
    chosen = heads.to_mask(*run.shape) > 0
    whole = narration_attention.complete(saved["mass/lines"])
    return {
        "strips": int(whole.sum()),
        "incomplete": int((~whole).sum()),
        "scores": {
            f"{name}{', by value' if weight == 'value_mass' else ''}": _compared(
                per_strip(saved[f"{weight}/lines"][whole].astype(np.float32), credit).mean(axis=0),
                by_strip(run, name).mean(axis=0) if weight == "mass" else None,
                chosen,
            )
            for weight in WEIGHTS
            for name, credit in CREDITS.items()
        }
        if whole.any()
        else {},
    }


def _compared(narrating: np.ndarray, asked: np.ndarray | None, chosen: np.ndarray) -> GenerationScores:
    """Returns scores while narrating beside those of discovery (None if there are none of this kind)."""
    last = np.sort(narrating.ravel())[-chosen.sum()]  # heads that tie with the last of the best are among them

    def means(scores: np.ndarray) -> MeanScores:
        return {"gaze": float(scores[chosen].mean()), "others": float(scores[~chosen].mean())}

    return {
        "narrating": means(narrating),
        "asked": None if asked is None else means(asked),
        "shared": int((narrating[chosen] >= last).sum()),
        "k": int(chosen.sum()),
    }


def chapter(run: Run, results: TrajectoryResults) -> Chapter:
    found = {name: results["narrations"][name] for name in narrations(run)}
    plots = [*staircases(found, BINS), *_one_strip(run)]
    return report(found, results["generation"], (NUMBER, NAME, TITLE), plots)


def _one_strip(run: Run) -> list[Plot]:
    """The first strip that has a line about every panel, token by token."""
    saved = watched(run, "forward")
    whole = np.flatnonzero(narration_attention.complete(saved["mass/lines"]))
    if not whole.size:
        return []
    first = whole[0]
    tokens = slice(0, int(saved["length"][first]))
    sets = saved["mass/sets"][first, :, tokens].astype(np.float32)
    lines = {"gaze heads": sets[0], "random heads, mean of draws": sets[1:].mean(axis=0)}
    figure = trajectories(lines, saved["lines"][first, tokens].astype(np.int32))
    name = run.pictures("evaluation")[first].name
    return [Plot("one_strip", figure, f"One narration, strip {name}; orange while the text is about the panel.")]
