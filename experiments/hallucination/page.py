"""The page of `gaze hallucination`: what was measured, beside the arm without pictures, and what the numbers cannot say."""

from collections.abc import Sequence

from experiments.hallucination.cells import INTERVALS, UNDEFINED, points, share_cell
from experiments.hallucination.inertia_page import inertia_chapter
from experiments.hallucination.results import (
    ArmRow,
    ChairResults,
    ChairRow,
    HallucinationResults,
    PairedRow,
    PopeFileRow,
    PopeResults,
    PopeRow,
)
from experiments.run.formatting import percent
from experiments.run.settings import is_testbed
from gaze.hallucination.answers import PLAIN
from gaze.report.html import Chapter, Cover, Table

UNTAUGHT = "This model has never learned to answer yes or no: its numbers mean nothing and show only that the measurement runs."
PAIRED = (
    "Better, worse: answers that this arm alone, or the plain model alone, has right; p: McNemar's exact test, which takes them "
    "for independent."
)


def cover(results: HallucinationResults) -> Cover:
    facts: list[tuple[str, str | float]] = [
        ("model", results["model"]),
        ("revision", results["revision"]),
        ("dtype", results["dtype"]),
        ("seed", results["seed"]),
    ]
    summary = [chapter.findings[0] for chapter in chapters(results) if chapter.findings]
    if is_testbed(results["model"]):
        summary = [UNTAUGHT, *summary]
    return Cover(
        "Does it tell of things that are not there?",
        "POPE asks whether a thing is in the picture; CHAIR counts the things in a description that are not.",
        facts,
        summary,
    )


def chapters(results: HallucinationResults) -> list[Chapter]:
    untaught = [UNTAUGHT] if is_testbed(results["model"]) else []
    found = []
    if (pope := results["pope"]) is not None:
        found.append(_pope(pope, untaught))
    if (chair := results["chair"]) is not None:
        found += [_chair(chair, untaught), inertia_chapter(chair["inertia"], untaught)]
    return found


def _pope(results: PopeResults, untaught: Sequence[str]) -> Chapter:
    unequal = [one for one in results["recall"] if one["equal"] is False]
    copies = [one["name"] for one in results["files"] if one["official"] is None]
    lost = sum(one["questions"] - one["asked"] for one in results["files"])
    whole = "whole words" if results["whole_words"] else "first pieces of words"
    caveats = [
        *untaught,
        *([f"{', '.join(copies)}: not byte for byte what the authors released."] if copies else []),
        *(
            [f"{lost} questions were not asked: their {len(results['absent'])} pictures cannot be read."]
            if lost
            else []
        ),
        *(
            f"Recall differs between the splits of {one['set']} ({one['arm']}, {one['parser']}): it should not."
            for one in unequal
        ),
        f"The margin is read of {whole}: {len(results['yes_tokens'])} tokens of yes, {len(results['no_tokens'])} of no.",
        "A model may have been trained on these very pictures and questions; nothing here can tell.",
    ]
    return Chapter(
        1,
        "pope",
        "POPE: is it in the picture?",
        "The model is asked whether a thing is in a picture. Without the picture it can only guess, and may guess well: what "
        "counts is the distance between the two.",
        [_pope_finding(row) for row in results["rows"] if row["parser"] == "official" and row["arm"] == PLAIN.name],
        tables=[_pope_table(results["rows"]), *_steered_tables(results), _files_table(results["files"])],
        caveats=[*caveats, *_arm_caveats(results["arms"])],
    )


def _steered_tables(results: PopeResults) -> list[Table]:
    compared = [row for row in results["rows"] if row["paired"] is not None]
    if not compared:
        return []
    table = Table(
        "POPE: each arm against the plain model",
        ("set", "split", "labels", "parser", "arm", "accuracy", "better", "worse", "p", "a mere shift"),
        [
            (
                row["set"],
                row["split"],
                row["labels"],
                row["parser"],
                row["arm"],
                UNDEFINED if row["gain"] is None else points(row["gain"]),
                *_pair(row["paired"]),
                UNDEFINED if row["offset"] is None else percent(row["offset"]),
            )
            for row in compared
        ],
        f"{PAIRED} A mere shift: the accuracy of the plain model's margins when the threshold is moved until it says yes as "
        "often as the arm. An arm that is no better has moved the answers towards yes or no, and grounded none of them.",
    )
    return [table, _arms_table(results["arms"])]


def _arms_table(arms: Sequence[ArmRow]) -> Table:
    return Table(
        "What the arms do and cost",
        ("arm", "passes, prompt", "passes, token", "steps steered", "attention added"),
        [
            (
                row["arm"],
                row["prompt_passes"],
                row["token_passes"],
                share_cell(row["steered"]),
                UNDEFINED if row["added"] is None else points(row["added"]),
            )
            for row in arms
        ],
        "Passes: rows that go through the decoder for one row of an answer, counted in the compiled program. Attention added: to "
        "the picture, in the steps that are steered, as the mean over the heads that are boosted.",
    )


def _arm_caveats(arms: Sequence[ArmRow]) -> list[str]:
    doses = [row["added"]["value"] for row in arms if row["added"] is not None]
    if len(doses) < 2:
        return []
    return [
        f"The arms give the picture from {100 * min(doses):.1f} to {100 * max(doses):.1f} points more attention: only arms with "
        "the same dose can be compared with each other."
    ]


def _pair(paired: PairedRow | None) -> tuple[str | int, str | int, str]:
    return (UNDEFINED,) * 3 if paired is None else (paired["better"], paired["worse"], f"{paired['p']:.3g}")


def _pope_finding(row: PopeRow) -> str:
    over = row["over"]
    assert over is not None
    return (
        f"{row['set']}, {row['split']}, labels of {row['labels']}: {share_cell(row['accuracy'])} right, "
        f"{points(over)} more than without the picture; {percent(row['yes_ratio']['value'])} of the answers are yes."
    )


def _pope_table(rows: Sequence[PopeRow]) -> Table:
    return Table(
        "POPE by split, labels, parser and arm",
        (
            "set",
            "split",
            "labels",
            "parser",
            "arm",
            "n",
            "accuracy",
            "precision",
            "recall",
            "F1",
            "yes",
            "AUROC",
            "unparsed",
        ),
        [
            (
                row["set"],
                row["split"],
                row["labels"],
                row["parser"],
                row["arm"],
                row["n"],
                share_cell(row["accuracy"]),
                share_cell(row["precision"]),
                share_cell(row["recall"]),
                share_cell(row["f1"]),
                share_cell(row["yes_ratio"]),
                share_cell(row["auroc"]),
                row["unparsed"],
            )
            for row in rows
        ],
        "Official parser: what has no exact No, no or not up to the first full stop is yes. Strict: the first word is yes or no; "
        f"all else is wrong, and counted as unparsed. {INTERVALS}",
    )


def _files_table(files: Sequence[PopeFileRow]) -> Table:
    return Table(
        "Files of questions",
        ("file", "released file", "questions", "asked", "“imange”", "repeated", "labels of RePOPE"),
        [
            (
                one["name"],
                one["official"] or "a copy",
                one["questions"],
                one["asked"],
                one["typos"],
                one["repeated"],
                UNDEFINED if one["relabelled"] is None else one["relabelled"],
            )
            for one in files
        ],
    )


def _chair(results: ChairResults, untaught: Sequence[str]) -> Chapter:
    caveats = [
        *untaught,
        "The original's rules are kept fault for fault: “bus” is not found, “buses” is; an orange shirt counts as the fruit.",
        *([f"{results['absent']} pictures that were drawn are not there."] if results["absent"] else []),
        *([f"{results['untold']} pictures have no reference caption."] if results["untold"] else []),
        *(
            [f"{results['wordless']} pictures are not in the rows of common length: an arm wrote no complete sentence."]
            if results["wordless"]
            else []
        ),
    ]
    return Chapter(
        2,
        "chair",
        "CHAIR: what does it tell of?",
        f"The model describes {len(results['images'])} pictures (“{results['question']}”, at most {results['longest']} tokens). "
        "Shorter descriptions hallucinate less: so length, recall and repetition stand in the same row, and the arms are "
        "compared at a common length, too.",
        [_chair_finding(row) for row in results["rows"] if row["arm"] == PLAIN.name],
        tables=[_chair_table(results["rows"]), *_chair_steered_tables(results)],
        caveats=[*caveats, *_arm_caveats(results["arms"])],
    )


def _chair_steered_tables(results: ChairResults) -> list[Table]:
    compared = [row for row in results["rows"] if row["paired"] is not None]
    if not compared:
        return []
    table = Table(
        "CHAIR: each arm against the plain model",
        ("length", "arm", "better", "worse", "p"),
        [(row["length"], row["arm"], *_pair(row["paired"])) for row in compared],
        f"A description is right if all that it tells of is there. {PAIRED}",
    )
    return [table, _arms_table(results["arms"])]


def _chair_finding(row: ChairRow) -> str:
    over = row["over"]
    assert over is not None
    return (
        f"{share_cell(row['sentence'])} of the descriptions ({row['length']}) tell of a thing that is not there, {points(over)} "
        f"more than without the picture; of the things that are there {share_cell(row['recall'])} are named, in "
        f"{row['words']['value']:.1f} words."
    )


def _chair_table(rows: Sequence[ChairRow]) -> Table:
    return Table(
        "CHAIR by length and arm",
        (
            *("length", "arm", "captions", "CHAIRs", "CHAIRi, mentions", "CHAIRi, distinct objects", "recall"),
            *("distinct objects", "words", "repeated 4-grams", "ended"),
        ),
        [
            (
                row["length"],
                row["arm"],
                row["captions"],
                share_cell(row["sentence"]),
                share_cell(row["mention"]),
                share_cell(row["object"]),
                share_cell(row["recall"]),
                row["objects"]["value"],
                row["words"]["value"],
                share_cell(row["repeated"]),
                share_cell(row["ended"]),
            )
            for row in rows
        ],
        f"Common length: of each picture as many complete sentences as every arm wrote. {INTERVALS}",
    )
