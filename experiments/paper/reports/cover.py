"""The cover of the report: what was asked, of which model, and what came out, for people who do not know the paper."""

from collections.abc import Mapping, Sequence

from experiments.paper.steering_study import example
from experiments.run.run import Run
from gaze.report.html import Cell, Chapter, Cover

ON_COVER = ("e5_static", "e7_sweeps", "e10_causes")
"""The chapters whose conclusions stand on the cover: steering beside its controls, and what became of each claim."""

TRAINED = {
    "testbed": "The model in this report is the testbed, a small Qwen3-VL that was trained from scratch on drawn comic strips, "
    "to predict the next word of the answers to questions about them, and nothing else: nothing in its training says which heads "
    "look, how many, or that any do. The results show what came of that in a model whose strips are known to the last object; "
    "they say nothing about Qwen’s own weights.",
    "testbed-sparse": "The model in this report is the sparse testbed, a small Qwen3-VL that was trained from scratch on drawn "
    "comic strips. Its training encouraged sparsity: every head that looked at the picture had to pay a price. So it has few "
    "gaze heads because it was trained to have few. The results show that the method works, on a model whose strips are known to "
    "the last object; they say nothing about Qwen’s own weights.",
}
OTHER = "The model in this report, {model}, is measured as it was published. Nothing was trained for this report."
QUESTION = (
    "When a model is asked about one panel of a comic strip, a few of its attention heads look at that panel: its gaze heads. "
    "Does the model describe a panel because they look at it? If so, then making them look at another panel changes the answer, "
    "and doing the same to other heads does not."
)


def cover(run: Run, chapters: Sequence[Chapter], absent: Mapping[int, str]) -> Cover:
    """Returns what the report opens with.

    Args:
      absent: number and title of the chapters that are not part of this run.
    """
    trained = TRAINED.get(run.settings.model, OTHER.format(model=run.settings.model))
    return Cover(
        "What a vision-language model looks at, it describes",
        "A few attention heads look at what is being described. This report finds them, steers them, and counts what "
        "happens.",
        _facts(run),
        [trained, QUESTION, *(one.conclusion for one in chapters if one.name in ON_COVER and one.conclusion)],
        example(run, ON_COVER[0]) if (run.folder / ON_COVER[0] / "results.json").exists() else None,
        absent,
    )


def _facts(run: Run) -> list[tuple[str, Cell]]:
    given, heads = run.settings, run.heads()
    return [
        ("model", given.model),
        ("revision", run.revision),
        ("heads in all", f"{run.shape[0] * run.shape[1]:,} ({run.shape[0]} layers of {run.shape[1]})"),
        ("gaze heads", f"{len(heads)}: " + ", ".join(f"L{layer}H{head}" for layer, head in heads.heads[:12])),
        ("head set", heads.fingerprint),
        (
            "strips",
            f"{given.strips}: {given.discovery} to find the heads, {given.selection} to choose how many, "
            f"{given.evaluation} to evaluate on",
        ),
        ("judge", run.judge.name),
        ("steering", f"{given.mode}, strength {run.strength():,g}, {given.bias}"),
        ("random draws", given.draws),
        ("seed", given.seed),
    ]
