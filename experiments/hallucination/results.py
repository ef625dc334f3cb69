"""What answers and captions of all arms come to: the schema of results.json, and how it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Bool
from scipy import stats
from typing_extensions import TypedDict

from experiments.hallucination.collect import Asked, by_question
from experiments.hallucination.inertia import InertiaResults
from experiments.run.records import Row
from experiments.run.summaries import EstimateRow, estimate_row, grouped
from gaze.hallucination import chair, pope
from gaze.hallucination.answers import BLIND, PLAIN, Arm
from gaze.hallucination.chair import Caption, Truth
from gaze.hallucination.chair_words import ChairRules
from gaze.hallucination.passes import Passes
from gaze.hallucination.pope_files import PopeSplit, Question
from gaze.statistics import Estimate, average, difference


class PairedRow(TypedDict):
    """An arm against the plain one on the same items: in how many it alone is right, in how many the plain one alone, and the p
    value of McNemar's exact test, which takes items for independent."""

    better: int
    worse: int
    p: float


class ArmRow(TypedDict):
    """What an arm does and costs while it answers.

    Attributes:
      prompt_passes, token_passes: rows that go through the decoder per row of an answer, counted in the program.
      steered: the share of steps in which it acted.
      added: what it gave the picture in these steps: attention, as the mean over the boosted heads; None without a boost.
    """

    arm: str
    prompt_passes: float
    token_passes: float
    steered: EstimateRow | None
    added: EstimateRow | None


class PopeRow(TypedDict):
    """The scores of one arm on one split, see `gaze.hallucination.pope.Scores`.

    `over` is its accuracy minus the blind arm's, `gain` that minus the plain arm's, `paired` compares it with the plain arm, and
    `offset` is the accuracy of the plain arm's margins with a threshold at which they say yes as often as this arm.
    """

    arm: str
    set: str
    split: str
    labels: Literal["POPE", "RePOPE"]
    parser: str
    n: int
    true_yes: int
    false_yes: int
    true_no: int
    false_no: int
    unparsed: int
    accuracy: EstimateRow
    precision: EstimateRow | None
    recall: EstimateRow | None
    f1: EstimateRow | None
    yes_ratio: EstimateRow
    auroc: EstimateRow | None
    over: EstimateRow | None
    gain: EstimateRow | None
    paired: PairedRow | None
    offset: float | None


class PopeFileRow(TypedDict):
    """A file of questions, see `gaze.hallucination.pope_files.PopeSplit`; `asked` are those whose picture is there."""

    name: str
    set: str
    split: str
    official: str | None
    questions: int
    asked: int
    typos: int
    repeated: int
    relabelled: int | None


class RecallCheck(TypedDict):
    """Whether all splits of a set have one recall; None for a single split."""

    arm: str
    set: str
    parser: str
    equal: bool | None


class PopeResults(TypedDict):
    files: list[PopeFileRow]
    absent: list[str]
    yes_tokens: list[int]
    no_tokens: list[int]
    whole_words: bool
    arms: list[ArmRow]
    rows: list[PopeRow]
    recall: list[RecallCheck]


class ChairRow(TypedDict):
    """The scores of one arm, see `gaze.hallucination.chair.ChairScores`; `over` is its CHAIRs minus the blind arm's, and `paired`
    compares captions without a wrong object with those of the plain arm."""

    arm: str
    length: Literal["as written", "common"]
    captions: int
    sentence: EstimateRow
    mention: EstimateRow | None
    object: EstimateRow | None
    recall: EstimateRow | None
    objects: EstimateRow
    words: EstimateRow
    repeated: EstimateRow | None
    ended: EstimateRow
    over: EstimateRow | None
    paired: PairedRow | None


class ChairResults(TypedDict):
    """`absent` counts annotated pictures that were drawn but not there, `wordless` pictures that have no common length."""

    question: str
    longest: int
    images: list[str]
    absent: int
    untold: int
    wordless: int
    arms: list[ArmRow]
    inertia: InertiaResults
    rows: list[ChairRow]


class HallucinationResults(TypedDict):
    """What results.json holds."""

    model: str
    revision: str
    seed: int
    dtype: str
    pope: PopeResults | None
    chair: ChairResults | None


def arm_rows(arms: Sequence[Arm], rows: Sequence[Row], costs: Mapping[str, Passes]) -> list[ArmRow]:
    """What every arm does and costs; intervals are clustered by picture."""
    return [_arm_row(arm, [row for row in rows if row["arm"] == arm.name], costs[arm.name]) for arm in arms]


def _arm_row(arm: Arm, rows: Sequence[Row], cost: Passes) -> ArmRow:
    found: ArmRow = {
        "arm": arm.name,
        "prompt_passes": cost.prompt,
        "token_passes": cost.token,
        "steered": None,
        "added": None,
    }
    if arm.plan is None or not rows:
        return found
    steps, steered = (np.array([row[name] for row in rows]) for name in ("steps", "steered"))
    image = np.unique([row["picture"] for row in rows], return_inverse=True)[1]
    acted = np.arange(steps.max())[None, :] < steered[:, None]
    there = np.arange(steps.max())[None, :] < steps[:, None]
    found["steered"] = estimate_row(average(acted[there], np.broadcast_to(image[:, None], there.shape)[there]))
    if steered.any() and arm.boosts:
        some = steered > 0
        # Of every answer its mean step, so that long ones do not count for more.
        added = np.array([row["added"] for row in rows])[some] / steered[some]
        found["added"] = estimate_row(average(added, image[some], whole=(-1.0, 1.0)))
    return found


def pope_rows(splits: Sequence[PopeSplit], rows: Sequence[Row], there: set[str], arms: Sequence[Arm]) -> list[PopeRow]:
    """Scores every arm on every split by every parser, under POPE's labels and RePOPE's where they are."""
    return [
        cast(
            PopeRow,
            {"arm": arm.name, "set": split.set, "split": split.split, "labels": labels, "parser": parser, **found},
        )
        for split in splits
        for labels in ("POPE", *(["RePOPE"] if split.relabels is not None else []))
        for parser in pope.PARSERS
        for arm in arms
        if (found := _pope_row(split, rows, there, arm, labels, parser))
    ]


def _pope_row(
    split: PopeSplit, rows: Sequence[Row], there: set[str], arm: Arm, labels: str, parser: str
) -> dict[str, Any] | None:
    questions = _labelled(split, there, labels)
    if not questions:
        return None
    label = np.array([truth for _, truth in questions])
    asked: list[Asked] = [(question.image, question.text) for question, _ in questions]
    _, image = np.unique([question.image for question, _ in questions], return_inverse=True)

    def right(one: Arm) -> np.ndarray:
        return np.array([way is truth for way, truth in zip(says(one), label.tolist(), strict=True)])

    def says(one: Arm) -> list[bool | None]:
        return [pope.PARSERS[parser](row["text"]) for row in by_question(rows, one, asked)]

    def margins(one: Arm) -> np.ndarray:
        return np.array([row["margin"] for row in by_question(rows, one, asked)])

    said = says(arm)
    found = {
        **_plain(pope.score(label, said, image, margins(arm))),
        **dict.fromkeys(("over", "gain", "paired", "offset")),
    }
    if arm != BLIND:
        found["over"] = estimate_row(difference(right(arm), image, right(BLIND), image))
    if arm.plan is not None:
        found["gain"] = estimate_row(difference(right(arm), image, right(PLAIN), image))
        found["paired"] = _paired(right(arm), right(PLAIN))
        found["offset"] = pope.at_yes_ratio(label, margins(PLAIN), sum(way is True for way in said))
    return found


def _paired(right: Bool[np.ndarray, " item"], plain: Bool[np.ndarray, " item"]) -> PairedRow:
    better, worse = int(np.sum(right & ~plain)), int(np.sum(plain & ~right))
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return {"better": better, "worse": worse, "p": p}


def _labelled(split: PopeSplit, there: set[str], labels: str) -> list[tuple[Question, bool]]:
    questions = [question for question in split.questions if question.image in there]
    if labels == "POPE" or split.relabels is None:
        return [(question, question.label) for question in questions]
    return [(one, split.relabels[one.asked]) for one in questions if one.asked in split.relabels]


def recall_checks(rows: Sequence[PopeRow]) -> list[RecallCheck]:
    """Under POPE's own labels: RePOPE leaves out questions of each split."""
    groups = grouped(
        [row for row in rows if row["labels"] == "POPE"], lambda row: (row["arm"], row["set"], row["parser"])
    )
    return [
        {
            "arm": arm,
            "set": name,
            "parser": parser,
            "equal": pope.equal_recall([row["recall"] and Estimate(**row["recall"]) for row in some]),
        }
        for (arm, name, parser), some in groups.items()
    ]


def pope_files(splits: Sequence[PopeSplit], there: set[str]) -> list[PopeFileRow]:
    return [
        {
            "name": split.name,
            "set": split.set,
            "split": split.split,
            "official": split.official,
            "questions": len(split.questions),
            "asked": sum(question.image in there for question in split.questions),
            "typos": split.typos,
            "repeated": split.repeated,
            "relabelled": None if split.relabels is None else len(split.relabels),
        }
        for split in splits
    ]


def chair_rows(
    rules: ChairRules, rows: Sequence[Row], asked: Sequence[Asked], truth: Truth, arms: Sequence[Arm]
) -> tuple[list[ChairRow], int]:
    """Scores the captions of every arm, as written and at a common length; and of how many pictures nothing is left at that."""
    written = {
        arm.name: [
            Caption(name, row["text"], row["ended"])
            for (name, _), row in zip(asked, by_question(rows, arm, asked), strict=True)
        ]
        for arm in arms
    }
    cut, wordless = chair.at_common_length(written)
    lengths: Mapping[str, Mapping[str, Sequence[Caption]]] = {"as written": written, "common": cut}
    return [
        cast(ChairRow, {"arm": arm.name, "length": length, **_chair_row(rules, captions, arm, truth)})
        for length, captions in lengths.items()
        for arm in arms
        if captions[arm.name]
    ], wordless


def _chair_row(rules: ChairRules, captions: Mapping[str, Sequence[Caption]], arm: Arm, truth: Truth) -> dict[str, Any]:
    def wrong(name: str) -> np.ndarray:
        some = sorted(captions[name], key=lambda caption: caption.image)
        return np.array(
            [any(one.object not in truth[caption.image] for one in rules.mentions(caption.text)) for caption in some]
        )

    found: dict[str, Any] = {**_plain(chair.score(rules, captions[arm.name], truth)), "over": None, "paired": None}
    if arm != BLIND:
        own, blind = wrong(arm.name), wrong(BLIND.name)
        found["over"] = estimate_row(difference(own, np.arange(len(own)), blind, np.arange(len(blind))))
    if arm.plan is not None:
        found["paired"] = _paired(~wrong(arm.name), ~wrong(PLAIN.name))
    return found


def _plain(scores: pope.Scores | chair.ChairScores) -> dict[str, Any]:
    found = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return {name: asdict(one) if hasattr(one, "strips") else one for name, one in found.items()}
