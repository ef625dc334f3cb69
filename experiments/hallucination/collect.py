"""Asks a model, arm by arm, and keeps every answer: killed anywhere and started again, nothing is asked twice."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from experiments.run.cache import digest
from experiments.run.records import Records, Row, chunk_name
from experiments.run.run import Run, progress
from gaze.hallucination.answers import Arm, Room, YesNo, answer, needed, prepared, yes_no
from gaze.hallucination.passes import Passes, count_passes
from gaze.pictures.padding_buckets import SHAPES, buckets
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import is_there, read_bytes, reading
from qwen3vl_jax.images import MOST_PICTURE_BYTES, open_image, smart_resize
from qwen3vl_jax.processing.processor import Processor

DESCRIBE = "Please describe this image in detail."
"""The usual question of CHAIR."""
ROWS = 32
"""Questions of a chunk, the part of the work that is saved at once; those about one picture are never parted."""
NAMED = 5
"""Absent pictures that are told by name."""

Asked = tuple[str, str]
"""A picture's name and a question about it."""


@dataclass(frozen=True)
class PictureFile:
    """A picture on the disk: its size in pixels, and a digest of its bytes."""

    name: str
    path: Path
    size: tuple[int, int]
    key: str


@dataclass(frozen=True)
class Batch:
    """Questions that are answered at once; `pictures` is empty for an arm that shows none."""

    arm: Arm
    pictures: Sequence[PictureFile]
    questions: Sequence[tuple[int, str]]
    room: Room

    def name(self, number: int) -> str:
        return self.pictures[number].name if self.arm.image else ""


def find_pictures(names: Iterable[str], folder: Path) -> tuple[dict[str, PictureFile], list[tuple[str, str]]]:
    """The pictures that can be read, and the names of the others with the reason, which is told on stderr.

    Raises InputError if the folder is not there.
    """
    check_folder(folder)
    found, lost = {}, []
    for name in names:
        try:
            found[name] = _picture(name, folder)
        except InputError as error:
            lost.append((name, str(error)))
    for name, reason in lost[:NAMED]:
        click.echo(f"left out {name}: {reason}", err=True)
    if len(lost) > NAMED:
        click.echo(f"left out {len(lost) - NAMED} more pictures of {folder}", err=True)
    return found, lost


def check_folder(folder: Path) -> None:
    """Raises InputError unless there is such a folder."""
    with reading(folder, "a folder of pictures"):
        there = folder.is_dir()
    if not there:
        raise InputError(f"there is no folder {folder}: give the one that holds the pictures")


def is_present(name: str, folder: Path) -> bool:
    return is_there(folder / name, "an image")


def _picture(name: str, folder: Path) -> PictureFile:
    path = folder / name
    with reading(path, "an image"):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} is a link that leads out of {folder}: put the picture there itself")
    content = read_bytes(path, "an image", most=MOST_PICTURE_BYTES)
    return PictureFile(name, path, open_image(path).size, digest(content))


def generate(
    run: Run,
    name: str,
    arms: Sequence[Arm],
    asked: Sequence[Asked],
    pictures: Mapping[str, PictureFile],
    max_new: int,
) -> list[Row]:
    """The answers of all arms to all questions; those that are saved are read. An arm without pictures answers each text once."""
    tokens = yes_no(run.processor)
    records = Records(run.place(name) / "answers.jsonl")
    batches = [batch for arm in arms for batch in batches_of(run.processor, arm, asked, pictures)]
    keys = [_key(run, number, batch, tokens, max_new) for number, batch in enumerate(batches)]
    records.tell_stale(keys)
    with progress(name, len(keys), len(keys) - len(records.missing(keys))) as done:
        for key, batch in zip(keys, batches, strict=True):
            if records.missing([key]):
                records.add({key: _rows(run, batch, tokens, max_new)})
                done(1)
    records.finish(keys)
    return records.rows()


def passes(run: Run, arm: Arm, picture: PictureFile, text: str) -> Passes:
    """What an arm costs, counted in the programs that answer a question about a picture."""
    shown = [open_image(picture.path)] if arm.image else []
    asked = prepared(run.processor, arm, shown, [(0, text)])
    return count_passes(run.model, asked.prompt, asked.images, asked.plan)


def by_question(rows: Sequence[Row], arm: Arm, asked: Sequence[Asked]) -> list[Row]:
    """The answers of one arm, in the order of some questions."""
    known = {(row["picture"], row["question"]): row for row in rows if row["arm"] == arm.name}
    return [known[picture if arm.image else "", text] for picture, text in asked]


def batches_of(
    processor: Processor, arm: Arm, asked: Sequence[Asked], pictures: Mapping[str, PictureFile]
) -> list[Batch]:
    """Questions in batches that are answered, and saved, at once."""
    if not arm.image:
        return _blind_batches(processor, arm, [*dict.fromkeys(text for _, text in asked)])
    about: dict[str, list[str]] = {}
    for name, text in dict.fromkeys(asked):
        about.setdefault(name, []).append(text)
    found = []
    for alike, patches in _by_size([pictures[name] for name in about], processor):
        parts = _packed(alike, about)
        rows = max(sum(len(about[one.name]) for one in part) for part in parts)
        length = needed(processor, {text for one in alike for text in about[one.name]}, arm, patches)
        room = Room(max(map(len, parts)), patches, rows, length)
        for part in parts:
            questions = [(number, text) for number, one in enumerate(part) for text in about[one.name]]
            found.append(Batch(arm, part, questions, room))
    return found


def _blind_batches(processor: Processor, arm: Arm, texts: Sequence[str]) -> list[Batch]:
    room = Room(0, 0, min(ROWS, len(texts)), needed(processor, texts, arm, 0))
    parts = [texts[start : start + ROWS] for start in range(0, len(texts), ROWS)]
    return [Batch(arm, (), [(0, text) for text in part], room) for part in parts]


def _packed(pictures: Sequence[PictureFile], about: Mapping[str, Sequence[str]]) -> list[list[PictureFile]]:
    """The pictures in parts with at most `ROWS` questions, or of one picture that has more."""
    parts: list[list[PictureFile]] = []
    used = 0
    for one in pictures:
        count = len(about[one.name])
        if not parts or used + count > ROWS:
            parts.append([])
            used = 0
        parts[-1].append(one)
        used += count
    return parts


def _by_size(pictures: Sequence[PictureFile], processor: Processor) -> list[tuple[list[PictureFile], int]]:
    """The pictures in a few classes of like size, each with the patches of its largest."""
    given = processor.settings
    limits = given.factor, given.min_pixels, given.max_pixels
    sizes = [
        math.prod(smart_resize(height, width, *limits)) // given.patch_size**2
        for width, height in (one.size for one in pictures)
    ]
    bounds = buckets(sizes, SHAPES)
    ranks = np.searchsorted(bounds, sizes).tolist()
    return [
        ([one for one, rank in zip(pictures, ranks, strict=True) if rank == number], bound)
        for number, bound in enumerate(bounds)
    ]


def _key(run: Run, number: int, batch: Batch, tokens: YesNo, max_new: int) -> str:
    arm, room = batch.arm, batch.room
    pictures = [(one.name, one.key) for one in batch.pictures]
    key = run.key(arm.name, arm.image, arm.settings, pictures, batch.questions, tuple(room), tuple(tokens), max_new)
    return chunk_name(f"{arm.name}/{number}", key)


def _rows(run: Run, batch: Batch, tokens: YesNo, max_new: int) -> list[Row]:
    pictures = [open_image(one.path) for one in batch.pictures]
    found = answer(run.model, run.processor, batch.arm, pictures, batch.questions, tokens, batch.room, max_new)
    if odd := next((one for one in found if not math.isfinite(one.margin)), None):
        raise InputError(
            f"the margin of yes over no is {odd.margin}, so it is not kept: check the model's weights, or give --dtype float32"
        )
    return [
        {
            "arm": batch.arm.name,
            "picture": batch.name(number),
            "question": text,
            "text": run.processor.decode(one.tokens).strip(),
            "tokens": one.tokens,
            "ended": one.ended,
            "margin": one.margin,
            **({} if batch.arm.plan is None else {"steps": one.steps, "steered": one.open, "added": one.added}),
            "model": run.settings.model,
            "revision": run.revision,
        }
        for (number, text), one in zip(batch.questions, found, strict=True)
    ]
