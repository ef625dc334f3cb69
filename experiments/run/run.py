"""What every experiment stands on: a model, pictures, gaze heads, and a run folder in which nothing is made twice.

RUN/settings.json        what the run depends on; another run may not go on in this folder
RUN/model.json           which weights it was made with
RUN/eN_NAME/             answers.jsonl, arrays, results.json of one experiment
RUN/heads.json           the gaze heads that experiment 1 found
RUN/verdicts/            what each judge made of which text
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from tqdm import tqdm
from typing_extensions import TypedDict

from experiments.data.sources import PURPOSES, Purpose, Source, open_source
from experiments.run.cache import SCHEMA, Arrays, check_finite, digest, find_arrays, write_arrays
from experiments.run.conditions import Aim, Condition, alike
from experiments.run.folder import open_folder
from experiments.run.meshes import open_mesh
from experiments.run.models import ModelFacts, computed_dtype, load_heads, model_facts, open_model
from experiments.run.processes import agree, shares, union
from experiments.run.records import Records, Row, chunk_name
from experiments.run.settings import Settings, checked
from experiments.run.summaries import Provenance
from gaze.heads import Head, HeadSet, random_heads
from gaze.judges.by_name import check_judge, make_judge
from gaze.judges.judge import Failed, Item, Judge
from gaze.judges.likelihood import Likelihood
from gaze.judges.outcomes import is_junk
from gaze.pictures.padding_buckets import SHAPES, buckets, shapes
from gaze.pictures.strips import Picture, Strip
from gaze.steering import engine as asking
from gaze.steering.engine import Request
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

PICTURES = 12
"""Pictures of a chunk, the part of the work that is saved at once."""
BATCH = 96
"""Texts that are judged at once."""

OPENED = ("_opened", "model", "processor", "judge")
"""What a run keeps of its model."""


class SteeringOptions(TypedDict):
    """What `gaze.steering.engine.Request` has beside its strip, heads and targets."""

    strength: float
    mode: str
    bias: str
    query_positions: str


class Strengths(TypedDict):
    """How hard each kind of heads is steered: what does best on the selection strips."""

    gaze: float
    random: float
    all: float


class Run:
    """A run. The model is opened when it is first needed: what is saved can be summed up without it."""

    def __init__(
        self, folder: Path, settings: Settings, checkpoint: str | Path | None = None, parent: "Run | None" = None
    ) -> None:
        """Opens a run folder, as `experiments.run.folder.open_folder`.

        Args:
          checkpoint: where the model lies, if `settings.model` only is what it is called.
          parent: the run that this one is a part of.
        """
        self.folder, self.settings = folder.absolute(), checked(settings)
        self.checkpoint, self.parent = checkpoint or self.settings.model, parent
        check_judge(self.settings.judge)
        self.mesh = open_mesh(self.settings.mesh)
        self._drawn: dict[Purpose, list[Strip]] = {}
        self.skipped = 0
        self.failed: list[str] = []
        open_folder(self.folder, self.settings, quiet=parent is not None)

    @cached_property
    def model(self) -> Qwen3VL:
        return self._opened[0]

    @cached_property
    def processor(self) -> Processor:
        return self._opened[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, heads per layer)."""
        return self._facts.layers, self._facts.heads

    @property
    def revision(self) -> str:
        """Which weights these are, as `qwen3vl_jax.load.model_revision`."""
        return self._facts.revision

    def close(self) -> None:
        """Lets go of the model, so that but one is in memory; it is opened again if it is needed."""
        for name in OPENED:
            self.__dict__.pop(name, None)
        if self.parent is not None:
            self.parent.close()

    @cached_property
    def sources(self) -> dict[Purpose, Source]:
        """Where the strips of each purpose come from; one source deals to several purposes what they do not share."""
        given = self.settings
        specs = {purpose: given.strips for purpose in PURPOSES}
        if given.discovery_strips is not None:
            specs["discovery"] = given.discovery_strips
        opened = {}
        for spec in dict.fromkeys(specs.values()):
            counts = {purpose: getattr(given, purpose) for purpose in PURPOSES if specs[purpose] == spec}
            opened[spec] = open_source(spec, given.seed, counts, given.share, given.panels)
        return {purpose: opened[spec] for purpose, spec in specs.items()}

    def place(self, name: str) -> Path:
        """The folder of one experiment."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def pictures(self, purpose: Purpose) -> list[Strip]:
        """The strips of one purpose: "discovery", "selection" or "evaluation"."""
        if purpose not in self._drawn:
            self._drawn[purpose] = self.sources[purpose].draw(purpose, getattr(self.settings, purpose))
        return self._drawn[purpose]

    def heads(self) -> HeadSet:
        """The gaze heads of this run."""
        path = self.folder / "heads.json"
        if not path.exists():
            raise InputError(f"{self.folder} has no heads yet: run experiment 1, discovery, in it first")
        return HeadSet.load(path)

    def strength(self, kind: Literal["gaze", "random", "all"] = "gaze") -> float:
        """How hard heads of a kind are steered: as the settings say, else at the kind's own best; see `e1_discovery.choose`."""
        given, path = self.settings.strength, self.folder / "strengths.json"
        if given is not None:
            return given
        if not path.exists():
            raise InputError(f"{self.folder} has no strengths yet: run experiment 1, discovery, in it first")
        found: float = read_json(path, "the strengths of a run", Strengths)[kind]
        return found

    def ranking(self) -> HeadSet:
        """All heads, best gaze score first."""
        return HeadSet.load(self.folder / "ranking.json")

    def controls(self, like: HeadSet, besides: Sequence[Head] = ()) -> list[HeadSet]:
        """Random head sets with as many heads in each layer, none of them those heads or others that are named `besides`."""
        rng = np.random.default_rng([self.settings.seed, 1])
        exclude = {*like.heads, *besides}
        return [random_heads(rng, like, exclude, self.shape) for _ in range(self.settings.draws)]

    def given_heads(self) -> HeadSet:
        """The heads of the file that the settings name, for this very model; see `experiments.run.models.load_heads`."""
        given = self.settings
        if given.heads is None:
            raise InputError(f"{self.folder} was given no heads: give --heads, a file that `gaze reproduce` wrote")
        return load_heads(given.heads, given.k, self.shape, self.revision, "--k")

    def key(self, *parts: object) -> str:
        """The digest of what something saved depends on: some values, see `experiments.run.cache.digest`, and the run itself.

        The run is its settings, the weights and the dtype; but neither its judge nor its mesh.
        """
        settings = dataclasses.replace(self.settings, judge="", mesh=None)
        return digest(SCHEMA, self._facts.weights, computed_dtype(self.settings.dtype), settings, *parts)

    def saved(
        self, path: Path, make: Callable[[], Mapping[str, np.ndarray]], *depends: object, gaps: Collection[str] = ()
    ) -> Arrays:
        """Arrays of the file `path` (.npz), made and written whole if it is not there, damaged, or depends on something else.

        Args:
          depends: what they depend on beside the run, as `key`; pictures by `digests`.
          gaps: names of the arrays that may hold NaN.

        Raises InputError if what is made is not finite.
        """
        key = self.key(*depends)
        found = find_arrays(path, key, gaps)
        if found is None:
            found = dict(make())
            try:
                check_finite(path, found, gaps)
            except InputError as error:
                raise InputError(
                    f"{error}, so it is not kept: check the model's weights, or give --dtype float32"
                ) from None
            write_arrays(path, key, found)
        return found

    def digests(self, pictures: Sequence[Picture]) -> list[str]:
        """A digest of each picture: its pixels, its regions and their captions. Of several processes each reads its share."""
        mine = shares(len(pictures))
        known = union({str(n): digest(picture) for n, picture in enumerate(pictures) if mine[n]})
        return [known[str(number)] for number in range(len(pictures))]

    def generate(self, name: str, pictures: Sequence[Picture], conditions: Sequence[Condition]) -> list[Row]:
        """All answers of an experiment, in order of chunk, condition, picture and aim; those already saved are read.

        Chunks are always the same, and conditions that share one way of asking are answered together, so that a run that
        was interrupted ends as one that was not. Prompts are padded to the longest of all conditions: little is compiled.
        """
        if len({condition.name for condition in conditions}) < len(conditions):
            raise ValueError(f"two conditions of {name} have one name")
        records = Records(self.place(name) / "answers.jsonl")
        parts = [(kind, kind[n : n + PICTURES]) for kind in _by_size(pictures) for n in range(0, len(kind), PICTURES)]
        digests = self.digests(pictures)
        asked = [_asked(kind, conditions) for kind, _ in parts]
        keys = [
            [self._chunk(pictures, digests, *part, some, condition) for condition in conditions]
            for part, some in zip(parts, asked, strict=True)
        ]
        jobs = [key for part in keys for key in part]
        records.tell_stale(jobs)
        agree(records.missing(jobs))
        with progress(name, len(jobs), len(jobs) - len(records.missing(jobs))) as done:
            for part, some, mine in zip(parts, asked, keys, strict=True):
                for combined in alike(conditions):
                    if missing := records.missing(mine[number] for number in combined):
                        made = self._answer(pictures, *part, some, [conditions[number] for number in combined])
                        rows = {mine[number]: some for number, some in zip(combined, made, strict=True)}
                        records.add({key: rows[key] for key in missing})
                        done(len(missing))
        records.finish(jobs)
        return records.rows()

    def answers(self, name: str) -> list[Row]:
        """The answers of an experiment as they are saved; lines spoiled since they were made are counted in `skipped`."""
        records = Records(self.place(name) / "answers.jsonl")
        self.skipped += records.skipped
        return records.rows()

    def judged(self, pictures: Sequence[Picture], rows: Sequence[Row]) -> list[Row]:
        """The rows with the region (`panel`, from 1) that each text describes, None if none, and who says so.

        Junk describes nothing, whatever a judge makes of it.
        """
        found = self.verdicts(pictures, [(row["strip"], row["text"]) for row in rows])
        return [
            {**row, "panel": None if region is None or is_junk(row["text"]) else region + 1, "judge": self.judge.name}
            for row, region in zip(rows, found, strict=True)
        ]

    def verdicts(self, pictures: Sequence[Picture], texts: Sequence[tuple[str, str]]) -> list[int | None]:
        """Which region (from 0) each text describes, None if none; `texts` are (name of the picture, text).

        A text that this very judge has judged before is not judged again. One that it failed on counts as None, is told on
        stderr, and is tried again next time.
        """
        judge = self.judge
        records = Records(self.folder / "verdicts" / f"{judge.name.replace('/', '-')}-{judge.version}.jsonl")
        by_name = {picture.name: picture for picture in pictures}
        told = dict(zip(by_name, self.digests([*by_name.values()]), strict=True))
        keys = [digest(SCHEMA, told[name], text) for name, text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        missing = records.missing(wanted)
        with progress(f"{judge.name} judge", len(wanted), len(wanted) - len(missing)) as done:
            for start in range(0, len(missing), BATCH):
                some = missing[start : start + BATCH]
                found = judge([Item(by_name[wanted[key][0]], wanted[key][1]) for key in some])
                rows = {key: self._verdict(*wanted[key], said) for key, said in zip(some, found, strict=True)}
                records.add({key: [row] for key, row in rows.items() if row})
                done(len(some))
        records.finish(sorted(records.keys()))
        said = {row["chunk"]: row["region"] for row in records.rows()}
        return [None if said.get(key) is None else said[key] - 1 for key in keys]

    def with_judge(self, name: str) -> "Run":
        """The same run under another judge; its model is this run's, whichever of the two needs it first."""
        other = copy(self)
        for kept in OPENED:
            other.__dict__.pop(kept, None)
        other.parent = self
        other.settings = dataclasses.replace(self.settings, judge=name)
        return other

    @cached_property
    def judge(self) -> Judge:
        return make_judge(self.settings.judge, self.likelihood)

    def likelihood(self) -> Likelihood:
        """The judge that is this run's own model."""
        return Likelihood(self.model, self.processor, self.revision)

    def provenance(self, question: str, heads: HeadSet | None = None, **settings: Any) -> Provenance:
        """What a number depends on; stands in every row of output."""
        return {
            "model": self.settings.model,
            "revision": self.revision,
            "heads": None if heads is None else heads.fingerprint,
            "k": 0 if heads is None else len(heads),
            "question": question,
            "mode": settings.get("mode", self.settings.mode),
            "bias": settings.get("bias", self.settings.bias),
            "strength": settings["strength"] if "strength" in settings else self._strength(heads),
            "query_positions": settings.get("query_positions", "all"),
            "seed": self.settings.seed,
        }

    def _verdict(self, strip: str, text: str, said: int | Failed | None) -> Row | None:
        if isinstance(said, Failed):
            self.failed.append(said.reason)
            click.echo(
                f"the {self.judge.name} judge failed on a text about {strip} ({said.reason}); start again to retry",
                err=True,
            )
            return None
        region = None if said is None else said + 1
        return {"strip": strip, "text": text, "region": region, "judge": self.judge.name, "version": self.judge.version}

    def _answer(
        self,
        pictures: Sequence[Picture],
        kind: Sequence[int],
        part: Sequence[int],
        asked: Sequence[tuple[int, str]],
        conditions: Sequence[Condition],
    ) -> list[list[Row]]:
        """The answers about `part` of the pictures of one `kind`, for each of some conditions that are asked alike.

        Args:
          asked: all that there must be room for.
        """
        texts = {question: [self.processor.chat(question)] for question in {question for _, question in asked}}
        some = [pictures[number] for number, _ in asked]
        room = shapes(self.processor, some, [texts[question] for _, question in asked], 1)[0]
        how = asking.GenerationOptions(
            Sampling.make(stop=self.processor.stop_tokens), conditions[0].max_new, strips=min(PICTURES, len(kind))
        )
        requests = [
            self._request(condition, place, aim)
            for condition in conditions
            for place, number in enumerate(part)
            for aim in condition.aims[number]
        ]
        some, about = [pictures[number] for number in part], [conditions[0].about(number) for number in part]
        said = iter(asking.answers(self.model, self.processor, some, about, requests, how, shape=room))
        return [
            [
                self._row(pictures[number], condition.about(number), condition, aim, next(said))
                for number in part
                for aim in condition.aims[number]
            ]
            for condition in conditions
        ]

    def _chunk(
        self,
        pictures: Sequence[Picture],
        digests: Sequence[str],
        kind: Sequence[int],
        part: Sequence[int],
        asked: Sequence[tuple[int, str]],
        condition: Condition,
    ) -> str:
        """The chunk of the answers about `part` of the pictures of one `kind`: its name, and all that it depends on."""
        key = self.key(
            [digests[number] for number in part],
            len(kind),
            [(pictures[number].size, question) for number, question in asked],  # all are padded to the largest
            [condition.about(number) for number in part],
            condition.max_new,
            [[(aim.target, aim.steps) for aim in condition.aims[number]] for number in part],
            condition.heads and condition.heads.heads,
            self._steering(condition),
            condition.tags,
            *([tuple(condition.weights)] if condition.weights else []),
        )
        return chunk_name(f"{condition.name}/{part[0]}", key)

    def _request(self, condition: Condition, place: int, aim: Aim) -> Request:
        return Request(place, condition.mask(*self.shape), aim.steps, **self._steering(condition))

    def _steering(self, condition: Condition) -> SteeringOptions:
        """How a condition steers: what it leaves open is the run's own."""
        given = self.settings
        return {
            "strength": self._strength(condition.heads) if condition.strength is None else condition.strength,
            "mode": condition.mode or given.mode,
            "bias": condition.bias or given.bias,
            "query_positions": condition.query_positions,
        }

    def _strength(self, heads: HeadSet | None) -> float:
        return 0.0 if heads is None else self.strength()

    def _row(self, picture: Picture, question: str, condition: Condition, aim: Aim, tokens: np.ndarray) -> Row:
        return {
            "strip": picture.name,
            "condition": condition.name,
            "target": None if aim.target is None else aim.target + 1,
            "text": self.processor.decode(tokens).strip(),
            "tokens": tokens.tolist(),
            **self.provenance(question, condition.heads, **self._steering(condition)),
            **condition.tags,
        }

    @cached_property
    def _opened(self) -> tuple[Qwen3VL, Processor]:
        if self.parent is not None and self.parent.checkpoint == self.checkpoint:
            return self.parent._opened
        return open_model(self.checkpoint, self.settings.dtype, self.mesh)

    @cached_property
    def _facts(self) -> ModelFacts:
        return model_facts(self.folder / "model.json", self.checkpoint, lambda: self.model)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal; called with how much more is done."""
    with tqdm(total=total, initial=done, desc=title, unit="part", disable=None, leave=False) as bar:
        yield bar.update


def _asked(kind: Sequence[int], conditions: Sequence[Condition]) -> list[tuple[int, str]]:
    """Numbers of pictures of one kind, each with every question that conditions ask about it."""
    return [*dict.fromkeys((number, condition.about(number)) for condition in conditions for number in kind)]


def _by_size(pictures: Sequence[Picture]) -> list[list[int]]:
    """Numbers of the pictures in a few classes of like size, so that little is compiled."""
    areas = [math.prod(picture.size) for picture in pictures]
    bounds = buckets(areas, SHAPES)
    classes = np.searchsorted(bounds, areas).tolist()
    return [[number for number, place in enumerate(classes) if place == which] for which in range(len(bounds))]
