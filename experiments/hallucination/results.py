"""What answers and captions of all arms come to: the schema of results.json, and how it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal, cast

import numpy as np
from typing_extensions import TypedDict

from experiments.hallucination.collect import Asked, by_question
from experiments.run.records import Row
from experiments.run.summaries import EstimateRow, estimate_row, grouped
from gaze.hallucination import chair, pope
from gaze.hallucination.answers import ARMS, Arm
from gaze.hallucination.chair import Caption, Truth
from gaze.hallucination.chair_words import ChairRules
from gaze.hallucination.pope_files import PopeSplit, Question
from gaze.statistics import Estimate, difference


class PopeRow(TypedDict):
    """The scores of one arm on one split, see `gaze.hallucination.pope.Scores`; `over` is its accuracy minus the blind arm's."""

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
    rows: list[PopeRow]
    recall: list[RecallCheck]


class ChairRow(TypedDict):
    """The scores of one arm, see `gaze.hallucination.chair.ChairScores`; `over` is its CHAIRs minus the blind arm's."""

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


class ChairResults(TypedDict):
    """`absent` counts annotated pictures that were drawn but not there, `wordless` pictures that have no common length."""

    question: str
    longest: int
    images: list[str]
    absent: int
    untold: int
    wordless: int
    rows: list[ChairRow]


class HallucinationResults(TypedDict):
    """What results.json holds."""

    model: str
    revision: str
    seed: int
    dtype: str
    pope: PopeResults | None
    chair: ChairResults | None


def pope_rows(splits: Sequence[PopeSplit], rows: Sequence[Row], there: set[str]) -> list[PopeRow]:
    """Scores every arm on every split by every parser, under POPE's labels and RePOPE's where they are."""
    return [
        cast(
            PopeRow,
            {"arm": arm.name, "set": split.set, "split": split.split, "labels": labels, "parser": parser, **found},
        )
        for split in splits
        for labels in ("POPE", *(["RePOPE"] if split.relabels is not None else []))
        for parser in pope.PARSERS
        for arm in ARMS
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

    def says(one: Arm) -> list[bool | None]:
        return [pope.PARSERS[parser](row["text"]) for row in by_question(rows, one, asked)]

    said = says(arm)
    margin = np.array([row["margin"] for row in by_question(rows, arm, asked)])
    blind = ARMS[-1]
    over = None
    if arm != blind:
        right, other = (
            [way is truth for way, truth in zip(some, label.tolist(), strict=True)] for some in (said, says(blind))
        )
        over = estimate_row(difference(np.array(right), image, np.array(other), image))
    return {**_plain(pope.score(label, said, image, margin)), "over": over}


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
    rules: ChairRules, rows: Sequence[Row], asked: Sequence[Asked], truth: Truth
) -> tuple[list[ChairRow], int]:
    """Scores the captions of every arm, as written and at a common length; and of how many pictures nothing is left at that."""
    written = {
        arm.name: [
            Caption(name, row["text"], row["ended"])
            for (name, _), row in zip(asked, by_question(rows, arm, asked), strict=True)
        ]
        for arm in ARMS
    }
    cut, wordless = chair.at_common_length(written)
    lengths: Mapping[str, Mapping[str, Sequence[Caption]]] = {"as written": written, "common": cut}
    return [
        cast(ChairRow, {"arm": arm, "length": length, **_chair_row(rules, arms, arm, truth)})
        for length, arms in lengths.items()
        for arm, some in arms.items()
        if some
    ], wordless


def _chair_row(rules: ChairRules, arms: Mapping[str, Sequence[Caption]], arm: str, truth: Truth) -> dict[str, Any]:
    blind = ARMS[-1].name
    over = None
    if arm != blind:
        wrong = {}
        for name in (arm, blind):
            some = sorted(arms[name], key=lambda caption: caption.image)
            wrong[name] = np.array(
                [
                    any(one.object not in truth[caption.image] for one in rules.mentions(caption.text))
                    for caption in some
                ]
            )
        place = np.arange(len(wrong[arm]))
        over = estimate_row(difference(wrong[arm], place, wrong[blind], place))
    return {**_plain(chair.score(rules, arms[arm], truth)), "over": over}


def _plain(scores: pope.Scores | chair.ChairScores) -> dict[str, Any]:
    found = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return {name: asdict(one) if hasattr(one, "strips") else one for name, one in found.items()}
