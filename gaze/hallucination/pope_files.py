"""POPE's files of questions (arXiv 2305.10355), RePOPE's labels (arXiv 2504.15707), and copies of both with their faults.

A file holds the questions of one split, as JSON lines or as one JSON array; its name ends with the split. RePOPE's files
have the names of POPE's with "repope" for "pope", and correct labels of questions that POPE's have.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import parse_json, read_bytes, reading, shown, validate

SPLITS = ("random", "popular", "adversarial")
KIND, HINT = "a POPE file", "give one such as coco_pope_random.json"
TYPO, RIGHT = "imange", "image"
"""A slip of some copies, that is asked as it stands."""
OFFICIAL = {
    "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994": "coco random",
    "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753": "coco popular",
    "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8": "coco adversarial",
    "f06eecde6d6ef4a00b95a7bbb510490708a09a6a67d952b59b8bdd33ac2c7200": "aokvqa random",
    "2ae5bedee3450cda52f9b033942c7b04a3917a86a110e859a66c1e41934c6ffd": "aokvqa popular",
    "2ddd3bdfa0df7a77a2cb1765ed06ac5ed190b5a093aa405b96986e862e8cdac1": "aokvqa adversarial",
    "6ce488eade3770185034939fabfe742fa32ed369011c8d9c3ac77bc0c85abd94": "gqa random",
    "dd03f06a458dd216e83233160fbf6628af9c63c84b11e99599f4fc0304b3361d": "gqa popular",
    "74e01b41d8308e2392e3b8d961167496ff3901c01100265d931a7a392f138a7a": "gqa adversarial",
    "f464fcaf60b24ce2f280cf33f122e000dbdd35c8e88f77c4141c9c2cba864611": "RePOPE random",
    "57832b055bae5fd6176278a4f104c98ddd84811f7d26dfcb93d481f6c9da09a5": "RePOPE popular",
    "8c346dbb060bf422ff92e769fa68e5ab3e8a777cb28a26e973387441e05c9ccf": "RePOPE adversarial",
}
"""What the authors released, by its SHA-256: copies differ in rows, wording and labels."""

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Asked = tuple[str, str]
"""A question as labels and answers know it: the picture's name and the text, without the typo."""


class Entry(TypedDict):
    """A question as a file has it."""

    question_id: int | str
    image: Text
    text: Text
    label: Literal["yes", "no"]


class Entries(TypedDict):
    """The questions of a file by where they stand in it."""

    questions: dict[str, Entry]


@dataclass(frozen=True)
class Question:
    """Whether something is in a picture; `label` is the truth."""

    id: int | str
    image: str
    text: str
    label: bool

    @property
    def asked(self) -> Asked:
        return self.image, self.text.replace(TYPO, RIGHT)


@dataclass(frozen=True)
class PopeSplit:
    """The questions of one file, and what is odd about it.

    Attributes:
      name: of the file, without its ending.
      set: the name without the split, which the files of one set of questions share.
      split: one of `SPLITS`.
      official: which of the released files this is, byte for byte; None for a copy.
      typos: questions with `TYPO`.
      repeated: questions that stand there before.
      relabels: RePOPE's label of the questions that it keeps; None without its file.
    """

    name: str
    set: str
    split: str
    questions: tuple[Question, ...]
    official: str | None
    typos: int
    repeated: int
    relabels: Mapping[Asked, bool] | None = None


def read_pope(folder: Path) -> list[PopeSplit]:
    """The splits in a folder, each with RePOPE's labels if they lie beside it; other files are left alone.

    Raises InputError that names the file for one that cannot be read, a label that is missing or neither yes nor no, an id
    given twice, one question with two labels, a picture outside the folder of pictures, and labels of RePOPE for
    questions that are not there; and for a folder without any split.
    """
    with reading(folder, "a folder of POPE files"):
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".jsonl") and _split(path.stem))
    found = {}
    for path in paths:
        if path.stem in found:
            raise InputError(f"{folder} has {path.stem} as .json and as .jsonl: keep one of the two")
        found[path.stem] = read_split(path)
    labels = {name: one for name, one in found.items() if "repope" in name}
    splits = {name: one for name, one in found.items() if name not in labels}
    if not splits:
        raise InputError(f"{folder} holds no POPE file: give a folder with files such as coco_pope_random.json")
    for name, one in labels.items():
        of = name.replace("repope", "pope")
        if of not in splits:
            raise InputError(f"{folder} has the labels {name} but no {of}: put the file of questions beside it")
        splits[of] = _relabelled(splits[of], one)
    return list(splits.values())


def read_split(path: Path) -> PopeSplit:
    """One file. Raises InputError as `read_pope`."""
    raw = read_bytes(path, KIND, HINT)
    entries = _entries(raw, path)
    questions = tuple(Question(one["question_id"], one["image"], one["text"], one["label"] == "yes") for one in entries)
    if not questions:
        raise InputError(f"{path} holds no question: {HINT}")
    _check(questions, path)
    split = _split(path.stem)
    name = path.stem.removesuffix(split).rstrip("_-.")
    typos = sum(TYPO in question.text for question in questions)
    repeated = len(questions) - len({question.asked for question in questions})
    official = OFFICIAL.get(hashlib.sha256(raw).hexdigest())
    return PopeSplit(path.stem, name, split or "all", questions, official, typos, repeated)


def _split(name: str) -> str:
    return next((split for split in SPLITS if name.endswith(split)), "")


def _entries(raw: bytes, path: Path) -> list[Entry]:
    with reading(path, KIND, HINT):
        text = raw.decode("utf-8-sig")
    parsed: list[tuple[str, Any]]
    if text.lstrip().startswith("["):
        values = parse_json(text, path, KIND, list, HINT)
        parsed = [(f"entry {number}", value) for number, value in enumerate(values, start=1)]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        parsed = [(f"line {number}", parse_json(line, f"line {number} of {path}", KIND)) for number, line in lines]
    found = validate({"questions": dict(parsed)}, path, KIND, Entries, HINT)
    return [*found["questions"].values()]


def _check(questions: Sequence[Question], path: Path) -> None:
    """Raises InputError for what the types do not show."""
    ids = Counter(question.id for question in questions)
    number, times = ids.most_common(1)[0]
    if times > 1:
        raise InputError(f"{path} has several questions of the question_id {shown(number)}: give each its own")
    labels: dict[Asked, bool] = {}
    for question in questions:
        which = f"question {shown(question.id)} in {path}"
        place = PurePosixPath(question.image)
        if place.is_absolute() or ".." in place.parts or not place.name or not question.image.isprintable():
            raise InputError(
                f"{which} has the image {shown(question.image)}: give the name of a file in the folder of pictures"
            )
        if labels.setdefault(question.asked, question.label) != question.label:
            raise InputError(f"{which} is labelled yes and no: {shown(question.text)} about {shown(question.image)}")


def _relabelled(split: PopeSplit, labels: PopeSplit) -> PopeSplit:
    known = {question.asked for question in split.questions}
    if strange := next((one for one in labels.questions if one.asked not in known), None):
        asked = json.dumps(strange.text, ensure_ascii=True)
        raise InputError(
            f"{labels.name} labels {asked} about {shown(strange.image)}, which {split.name} does not ask: give the labels "
            "of these questions"
        )
    relabels = {question.asked: question.label for question in labels.questions}
    return PopeSplit(**{**vars(split), "relabels": relabels})
