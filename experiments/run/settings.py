"""What a run depends on, where it runs, and what both are unless somebody says otherwise."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from experiments.run.cache import SCHEMA
from experiments.testbed.testbeds import SPARSE, TESTBED, TESTBEDS, find_testbed
from gaze.prompts import LEAST_PANELS, MOST_PANELS
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json, said, shown

FILE = "settings.json"
KIND = "the settings of a run"
RENAMED = {"precision": ("bias", {"ordered": "add", "uniform": "replace"})}
"""Settings of version 1 that are called otherwise now, and their values."""

PAPER_STRENGTH = 10_000.0
"""The paper's one strength, for gaze heads and controls alike."""

Count = Annotated[int, Field(ge=1)]
Few = Annotated[int, Field(ge=2)]


@dataclass(frozen=True)
class Settings:
    """What a run depends on; but its answers do not depend on the judge, nor its results on the mesh.

    Attributes:
      mesh: see `experiments.run.meshes`.
      strips: where strips come from (see `experiments.data.sources`).
      discovery_strips: where those for discovery come from, if elsewhere (the paper finds heads on other comics).
      panels: how many panels a strip has.
      share: whether discovery and evaluation may use the same strips.
      discovery, selection, evaluation: how many strips find the heads, choose how many heads, and are answered about.
      heads: a head set to use in place of the heads that discovery finds.
      k: how many heads; chosen on the selection strips without.
      draws: random head sets to compare with.
      strength: of all steering; without, each kind of heads has its own best, chosen on the selection strips.
      segment: tokens of one part of a narration that follows a schedule; the paper's 50, a caption on a testbed.
      brief, static, narration: longest answers in tokens, to VQA, to one panel, and of a whole strip.
      photos, images: pictures with boxes (a testbed's, or coco:ANNOTATIONS,FOLDER), and how many of them.
      models: further checkpoints to compare with this one.
      judge: see `gaze.judges.by_name`.
    """

    __pydantic_config__: ClassVar = ConfigDict(strict=True, allow_inf_nan=False, revalidate_instances="always")

    model: str = TESTBED
    dtype: Literal["float32", "bfloat16"] | None = None
    mesh: str | None = None
    strips: str = TESTBED
    discovery_strips: str | None = None
    panels: Annotated[int, Field(ge=LEAST_PANELS, le=MOST_PANELS)] = 6
    share: bool = False
    discovery: Few = 60
    selection: Few = 24
    evaluation: Few = 60
    heads: str | None = None
    k: Count | None = None
    draws: Count = 10
    strength: Annotated[float, Field(ge=0)] | None = None
    mode: Literal["boost_suppress", "suppress_image", "suppress_all", "max_suppress_all"] = "boost_suppress"
    bias: Literal["add", "replace"] = "add"
    segment: Count = 50
    brief: Count = 15
    static: Count = 100
    narration: Count = 300
    photos: str = TESTBED
    images: Few = 60
    models: tuple[str, ...] = ()
    judge: str = "exact"
    seed: Annotated[int, Field(ge=0)] = 0


def checked(settings: Settings) -> Settings:
    """The settings, each of its own type. Raises InputError that names the first that no run can have."""
    try:
        return TypeAdapter(Settings).validate_python(settings)
    except ValidationError as error:
        raise InputError(f"the settings of a run cannot be: {said(error)}") from None


def is_testbed(model: str) -> bool:
    """Whether a model is a testbed, or a folder that has the shape of one."""
    return find_testbed(model) is not None


def presets(model: str) -> Settings:
    """The paper's settings; for a testbed, which answers in short captions of pictures of its own, shorter ones."""
    name = find_testbed(model)
    if name is None:
        return Settings(model=model, judge="likelihood")
    its = TESTBEDS[name]
    return Settings(
        model=model, strips=name, photos=name, segment=its.segment, static=its.static, narration=its.narration
    )


def resolve_settings(given: Mapping[str, Any]) -> Settings:
    """The presets for a model, and what a person has given; None stands for what they have not."""
    return _with(presets(given.get("model") or TESTBED), given)


def read_settings(folder: Path, hint: str = "") -> tuple[Settings, int]:
    """The settings of the run in a folder, and its version. What is newer than the run has its default.

    Raises InputError that names the file, and the setting if it is one that is not known or has no such value.
    """
    path = folder / FILE
    raw: dict[str, Any] = read_json(path, KIND, dict, hint)
    version = raw.pop("version", 1)
    if type(version) is not int or version < 1:
        raise InputError(f"{path} has the version {shown(version)}, but should have a number from 1: {hint}")
    if version > SCHEMA:
        raise InputError(f"{path} is of version {version}, later than this program's {SCHEMA}: {hint}")
    for old, (new, values) in RENAMED.items():
        if version == 1 and old in raw:
            raw[new] = values.get(raw.pop(old))
    if version < 3:
        raw |= {
            name: SPARSE for name in ("model", "strips", "photos") if raw.get(name) == TESTBED
        }  # what was called so
        if raw.get("strength") == PAPER_STRENGTH:
            del raw["strength"]  # what it was unless somebody said otherwise
    if unknown := raw.keys() - {field.name for field in fields(Settings)}:
        raise InputError(f"{path} has a setting {shown(min(unknown))}, which this version does not know: {hint}")
    if raw.get("judge", "") is None:  # a run has no judge of its own
        del raw["judge"]
    try:
        return TypeAdapter(Settings).validate_json(json.dumps(raw)), version
    except ValidationError as error:
        raise InputError(f"{path} is not {KIND}: {said(error)}: {hint}") from None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, readable or not."""
    return os.path.exists(folder / FILE)  # False, too, for a name that cannot be


def as_saved(folder: Path, given: Mapping[str, Any]) -> Settings:
    """The settings of the run in a folder, and what a person has given.

    Raises InputError if there is no run, or as `read_settings`.
    """
    if not is_run(folder):
        raise InputError(f"there is no run in {folder}: give a folder that `gaze reproduce` wrote")
    saved, _ = read_settings(folder, "give a folder that `gaze reproduce` wrote")
    return _with(replace(saved, judge=presets(saved.model).judge), given)


def _with(settings: Settings, given: Mapping[str, Any]) -> Settings:
    names = {field.name for field in fields(Settings)}
    return replace(settings, **{name: value for name, value in given.items() if value is not None and name in names})
