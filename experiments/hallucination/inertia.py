"""Text inertia of the plain model's descriptions: where it looks while it writes them, and what the picture does to them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Float, Int32
from typing_extensions import TypedDict

from experiments.hallucination.collect import Asked, Batch, PictureFile, batches_of
from experiments.run.cache import Arrays
from experiments.run.records import Row
from experiments.run.run import Run, progress
from experiments.run.summaries import EstimateRow, estimate_row
from gaze.hallucination.answers import PLAIN, Room, prepared
from gaze.hallucination.chair_words import ChairRules
from gaze.hallucination.inertia import dependence, looks, swapped
from gaze.hallucination.word_classes import CLASSES, Word, classified, next_object
from gaze.heads import HeadSet
from gaze.statistics import average
from gaze.steering.boosts import image_keys
from gaze.text_spans import token_ends
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.images import open_image
from qwen3vl_jax.inputs import Images
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import across, fetch, mesh_of
from qwen3vl_jax.vision import Vision

CAPTIONS, PIECE = 50, 8
"""So many descriptions are read again, a piece at a time."""
PARTS, STARTS, AHEAD = 4, (0.25, 0.5, 0.75), 24
"""Parts of a description; where in it the picture changes, and how many tokens are written after that."""
MEASURES = ("share", "sink_free", "lift", "gaze", "dependence")


class InertiaRow(TypedDict):
    """Means over words, each at its first token, see `gaze.hallucination.inertia`; `part` counts from 1, None for the whole.

    `share`, `sink_free` and `lift` are means over all heads, `gaze` is the share of the gaze heads, `dependence` is in nats.
    """

    part: int | None
    words: str
    n: int
    share: EstimateRow
    sink_free: EstimateRow
    lift: EstimateRow
    gaze: EstimateRow | None
    dependence: EstimateRow


class SwapRow(TypedDict):
    """How often the next object is another one when the picture is, from a share of the description on."""

    at: float
    changed: EstimateRow | None


class InertiaResults(TypedDict):
    """`captions` counts those with a word."""

    captions: int
    rows: list[InertiaRow]
    swaps: list[SwapRow]


class Described(TypedDict):
    """A description with what was measured of it: each of `MEASURES` by token, and what is written after each of `STARTS`."""

    words: list[Word]
    measures: dict[str, Float[np.ndarray, " token"]]
    starts: list[int]
    before: list[str | None]
    after: list[str | None]


def text_inertia(
    run: Run,
    asked: Sequence[Asked],
    pictures: Mapping[str, PictureFile],
    rows: Sequence[Row],
    rules: ChairRules,
    gaze: HeadSet | None,
) -> InertiaResults:
    """Reads the first descriptions again; what is saved is not read again."""
    said = {row["picture"]: row["tokens"] for row in rows if row["arm"] == PLAIN.name}
    some = [(name, text) for name, text in asked if said[name]][:CAPTIONS]
    found: list[Described] = []
    pieces = [*_pieces(run, some, pictures)]
    names = [name for name, _ in some]
    following = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    with progress("inertia", len(pieces)) as done:
        for number, piece in enumerate(pieces):
            tokens = [said[one.name] for one in piece.pictures]
            others = [pictures[following[one.name]] for one in piece.pictures]
            depends = [(one.name, one.key) for one in (*piece.pictures, *others)]
            path = run.place("chair") / f"inertia-{number}.npz"
            make = partial(_read_again, run, piece, tokens, others, gaze)
            arrays = run.saved(path, make, "inertia", depends, tokens, tuple(piece.room), AHEAD, STARTS)
            found += [_described(run, rules, arrays, row, one) for row, one in enumerate(tokens)]
            done(1)
    return _results(found)


def _pieces(run: Run, asked: Sequence[Asked], pictures: Mapping[str, PictureFile]) -> Iterator[Batch]:
    """The questions of batches, each about another picture, a few at a time."""
    for batch in batches_of(run.processor, PLAIN, asked, pictures) if asked else ():
        room = Room(PIECE, batch.room.patches, PIECE, batch.room.length)
        for start in range(0, len(batch.questions), PIECE):
            texts = [text for _, text in batch.questions[start : start + PIECE]]
            yield Batch(PLAIN, batch.pictures[start : start + PIECE], [*enumerate(texts)], room)


def _read_again(
    run: Run, piece: Batch, said: Sequence[Sequence[int]], others: Sequence[PictureFile], gaze: HeadSet | None
) -> dict[str, np.ndarray]:
    model, text, count = run.model, run.model.config.text, len(said)
    rows = [min(row, count - 1) for row in range(PIECE)]  # the last one fills the piece
    shown = [open_image(one.path) for one in piece.pictures]
    strange = [open_image(one.path).resize(own.size) for one, own in zip(others, shown, strict=True)]
    questions = [(row, piece.questions[at][1]) for row, at in enumerate(rows)]
    own, other = (
        prepared(run.processor, PLAIN, [some[at] for at in rows], questions, piece.room) for some in (shown, strange)
    )
    longest = run.settings.narration
    tokens, lengths = np.zeros((PIECE, longest), np.int32), np.array([len(said[at]) for at in rows], np.int32)
    for row, at in zip(tokens, rows, strict=True):
        row[: len(said[at])] = said[at]
    keys = image_keys(own.prompt)
    given = across((own.images, other.images, own.prompt, keys, tokens, lengths), mesh_of(model))
    images, strange_images, prompt, keys, tokens, lengths = given
    vision, changed = (_encode(model, some) for some in (images, strange_images))
    heads = np.zeros((text.num_hidden_layers, text.num_attention_heads), np.float32)
    heads = heads if gaze is None else gaze.to_mask(*heads.shape).astype(np.float32)
    seen = fetch(looks(model, prompt, vision, keys, tokens, lengths))
    arrays = {name: np.mean(getattr(seen, name), axis=(0, 3)) for name in ("share", "sink_free", "lift")}
    arrays["gaze"] = np.einsum("lbth,lh->bt", seen.share, heads / max(heads.sum(), 1))
    arrays["dependence"] = fetch(dependence(model, prompt, vision, keys, tokens))
    stop = Sampling.make(stop=run.processor.stop_tokens)
    for place, share in enumerate(STARTS):
        starts = _starts(np.asarray(fetch(lengths)), share)
        written = swapped(model, prompt, vision, changed, keys, tokens, starts, stop, max_new=AHEAD)
        arrays[f"tokens_{place}"], arrays[f"length_{place}"] = fetch((written.tokens, written.length))
    return {name: np.asarray(array)[:count] for name, array in arrays.items()} | {"known": np.array(gaze is not None)}


@jax.jit
def _encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)


def _starts(lengths: Int32[np.ndarray, " row"], share: float) -> Int32[np.ndarray, " row"]:
    return np.floor(share * lengths).astype(np.int32)


def _described(run: Run, rules: ChairRules, arrays: Arrays, row: int, said: Sequence[int]) -> Described:
    def words(tokens: Sequence[int]) -> list[Word]:
        decode = run.processor.decode
        return classified(decode(tokens).strip(), token_ends(decode, tokens), rules)

    starts = [int(_starts(np.array([len(said)], np.int32), share)[0]) for share in STARTS]
    before, after = [], []
    for place, start in enumerate(starts):
        length = int(arrays[f"length_{place}"][row])
        new = arrays[f"tokens_{place}"][row, :length].tolist()
        before.append(next_object(words(said[: start + AHEAD]), start))
        after.append(next_object(words([*said[:start], *new]), start))
    measures = {name: arrays[name][row, : len(said)] for name in MEASURES if name != "gaze" or arrays["known"]}
    return {"words": words(said), "measures": measures, "starts": starts, "before": before, "after": after}


def _results(found: Sequence[Described]) -> InertiaResults:
    described = [one for one in found if one["words"]]
    kinds = [(None, "all"), *((part, "all") for part in range(1, PARTS + 1)), *((None, kind) for kind in CLASSES)]
    rows = [row for part, kind in kinds if (row := _row(described, part, kind)) is not None]
    return {"captions": len(described), "rows": rows, "swaps": [_swap(found, place) for place in range(len(STARTS))]}


def _row(described: Sequence[Described], part: int | None, kind: str) -> InertiaRow | None:
    chosen = [
        (number, word.token)
        for number, one in enumerate(described)
        for word in one["words"]
        if kind in ("all", word.kind) and part in (None, 1 + PARTS * word.token // len(one["measures"]["share"]))
    ]
    if not chosen:
        return None
    place = np.array([number for number, _ in chosen])

    def mean(name: str) -> EstimateRow:
        found = [max(float(described[number]["measures"][name][token]), 0.0) for number, token in chosen]
        # What has no upper end ends at what was seen.
        return estimate_row(average(np.array(found), place, whole=(0.0, max(1.0, *found))))

    return {
        "part": part,
        "words": kind,
        "n": len(chosen),
        "share": mean("share"),
        "sink_free": mean("sink_free"),
        "lift": mean("lift"),
        "gaze": mean("gaze") if "gaze" in described[0]["measures"] else None,
        "dependence": mean("dependence"),
    }


def _swap(found: Sequence[Described], place: int) -> SwapRow:
    told = [(number, one) for number, one in enumerate(found) if one["before"][place] is not None]
    if not told:
        return {"at": STARTS[place], "changed": None}
    changed = np.array([one["before"][place] != one["after"][place] for _, one in told])
    return {"at": STARTS[place], "changed": estimate_row(average(changed, np.array([number for number, _ in told])))}
