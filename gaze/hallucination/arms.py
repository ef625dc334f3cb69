"""Arms by name: the methods that are said to make a model look, each as settings of one plan.

An arm is a boost of attention, a gate for it, and a contrast of logits; most methods are one or two of the three.
"""

import zlib
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Float32
from pydantic import TypeAdapter, ValidationError

from gaze.hallucination.answers import Arm
from gaze.heads import HeadSet, random_heads
from gaze.steering.boosts import Boost, boost, image_keys
from gaze.steering.gates import Compare, Gate, Recall, Sensor, Told
from gaze.steering.guided import Contrast, Guided
from gaze.steering.versions import (
    Versions,
    diffused,
    masked,
    noised,
    picture_seeds,
    question_keys,
    uniform_noise,
    without,
    without_image,
)
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown
from qwen3vl_jax.generation.decoding import Plan, ReadingPlan
from qwen3vl_jax.inputs import Images, Prompt

CUTOFF = 0.1
"""Of PAI and VCD: what is less likely than this share of the likeliest token is not said."""
CG_LAYERS = (5 / 32, 19 / 32)
"""Layers 5 to 18 of 32, where CG-VLM's released code raises scores, as shares of the depth."""
STEPS = 4096
"""For so many steps the random gate has numbers."""

Mode = Literal["clean", "paper_code"]


@dataclass(frozen=True)
class ArmSettings:
    """What an arm does; a preset and what is changed in it.

    Attributes:
      boost: what is added to the scores of the picture's keys, see `gaze.steering.boosts.FORMS`; "none" for nothing.
      amount: how much; may be negative.
      heads: "all" of the layers, the "gaze" heads, or "random" ones, as many in each layer as there are gaze heads.
      layers: "all"; "upper", all but the first two (PAI); "middle", as CG-VLM; or A-B, from A up to but not with B.
      gate: what opens the boost, see `gaze.steering.gates`; "none" leaves it open.
      threshold: of the gate: it opens above, or for "mass" and "random" below.
      contrast: what the logits are contrasted with: the "text" without picture (PAI), or a picture of "noise" (VCD).
      weight: of the model's own logits in the contrast; one minus it is that of the others.
      noise: steps of diffusion, of 1,000, that make the picture of noise.
      mode: of the gate "interaction" and the boost: "clean" masks keys of picture and question where they stand; "paper_code"
        does as CG-VLM's released code: uniform noise as picture, an empty question, and a boost that is one key too late.
      seed: of the random gate, the random heads and all noise.
    """

    boost: Literal["none", "constant", "own", "mean"] = "none"
    amount: float = 0.0
    heads: Literal["all", "gaze", "random"] = "all"
    layers: str = "all"
    gate: Literal["none", "interaction", "divergence", "entropy", "grounding", "mass", "random"] = "none"
    threshold: float = 1.0
    contrast: Literal["none", "text", "noise"] = "none"
    weight: float = 1.0
    noise: int = 500
    mode: Mode = "clean"
    seed: int = 0


PRESETS = {
    "pai": ArmSettings(boost="own", amount=0.2, layers="upper"),
    "pai-logits": ArmSettings(contrast="text", weight=1.1),
    "pai-both": ArmSettings(boost="own", amount=0.2, layers="upper", contrast="text", weight=1.1),
    "gaze": ArmSettings(boost="constant", amount=1.0, heads="gaze"),
    "gaze-pai": ArmSettings(boost="own", amount=0.5, heads="gaze"),
    "cg": ArmSettings(boost="mean", amount=0.5, layers="middle", gate="interaction"),
    "cg-static": ArmSettings(boost="mean", amount=0.5, layers="middle"),
    "vcd": ArmSettings(contrast="noise", weight=2.0),
}
THRESHOLDS = {"divergence": 0.5, "entropy": 0.3, "grounding": 0.5, "mass": 0.2, "random": 0.3}
"""Where another gate is named and no threshold; 1 of the interaction is CG-VLM's. Set them by the share of tokens that fires."""
BELOW = ("mass", "random")

_SETTINGS = TypeAdapter(ArmSettings)


@dataclass(frozen=True)
class ArmModel:
    """What arms need to know of a model.

    Attributes:
      ends: tokens that end a turn.
      gaze: its gaze heads, if they are known.
    """

    config: Config
    ends: tuple[int, ...]
    gaze: HeadSet | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.config.text.num_hidden_layers, self.config.text.num_attention_heads


def parse_arm(text: str) -> ArmSettings:
    """Settings from NAME or NAME:setting=value,...: a preset and what is changed in it.

    Raises InputError for an unknown preset or setting, and for values that make no sense.
    """
    name, _, rest = text.partition(":")
    if name not in PRESETS:
        raise InputError(f"there is no arm {shown(name)}: choose one of {', '.join(PRESETS)}")
    changes = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    known = [field.name for field in fields(ArmSettings)]
    if odd := next((one for one in changes if one not in known), None):
        raise InputError(f"the arm {shown(text)} has no setting {shown(odd)}: give some of {', '.join(known)}")
    if changes.get("gate") in THRESHOLDS:
        changes = {"threshold": str(THRESHOLDS[changes["gate"]]), **changes}
    preset = PRESETS[name]
    try:
        found = _SETTINGS.validate_python({one: getattr(preset, one) for one in known} | changes)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"the arm {shown(text)} has a bad {wrong['loc'][0]}: {wrong['msg']}") from None
    for one in ("amount", "threshold", "weight"):
        if not np.isfinite(getattr(found, one)):
            raise InputError(f"the arm {shown(text)} has the {one} {getattr(found, one)}: give a finite number")
    if not 0 <= found.noise < 1000 or found.seed < 0:
        raise InputError(f"the arm {shown(text)} needs noise from 0 to 999 and a seed from 0")
    _layer_range(found.layers, 2)
    return found


def make_arm(text: str, model: ArmModel) -> Arm:
    """The arm of that name (see `parse_arm`) for a model.

    Raises InputError as `parse_arm`, for layers that the model lacks, and for gaze heads that are not known.
    """
    given = parse_arm(text)
    heads = _heads(given, model)
    settings = tuple(value for field in fields(given) for value in (field.name, getattr(given, field.name)))

    def plan(prompt: Prompt, images: Images) -> Plan | ReadingPlan:
        return make_plan(given, prompt, images, model, heads)

    used = np.flatnonzero(heads).tolist()
    return Arm(text, plan=plan, settings=(*settings, *used), boosts=given.boost != "none")


def make_plan(
    given: ArmSettings, prompt: Prompt, images: Images, model: ArmModel, heads: Float32[np.ndarray, "layer heads"]
) -> Plan | ReadingPlan:
    """What steers the answers to some prompts about some pictures; a boost alone needs no plan that reads."""
    raised: Boost | None = None
    if given.boost != "none":
        keys = image_keys(prompt)
        # The released code's span begins and ends one key too late.
        keys = np.roll(keys, 1, axis=1) if given.mode == "paper_code" else keys
        raised = boost(heads, keys, given.amount, given.boost)
    if raised is not None and given.gate == given.contrast == "none":
        return raised
    gate = None
    if given.gate != "none":
        sensor = _sensor(given, prompt, images, model, heads)
        gate = Gate(sensor, np.asarray(given.threshold, np.float32), given.gate in BELOW)
    contrast = None
    if given.contrast != "none":
        contrast = Contrast(
            _other(given, prompt, images, model), *(np.asarray(one, np.float32) for one in (given.weight, CUTOFF))
        )
    return Guided(raised, gate, contrast)


def _sensor(
    given: ArmSettings, prompt: Prompt, images: Images, model: ArmModel, heads: Float32[np.ndarray, "layer heads"]
) -> Sensor:
    keys = image_keys(prompt)
    if given.gate == "interaction":
        return Compare(_interacting(given, prompt, images, model))
    if given.gate == "divergence":
        return Compare(masked(prompt, [np.zeros_like(keys), keys]))
    if given.gate == "random":
        return Told(_drawn(prompt, images, given.seed, model.config.vision.spatial_merge_size))
    watched = heads / heads.sum() if given.gate == "mass" else None
    return Recall(keys.astype(np.float32), watched, given.gate)


def _interacting(given: ArmSettings, prompt: Prompt, images: Images, model: ArmModel) -> Versions:
    keys, asked = image_keys(prompt), question_keys(prompt, model.ends)
    if given.mode == "clean":
        return masked(prompt, [np.zeros_like(keys), keys, asked, keys | asked])
    noise, unasked = uniform_noise(images, given.seed, model.config.vision), without(prompt, asked)
    return noised([prompt, prompt, unasked, unasked], [False, True, False, True], noise)


def _other(given: ArmSettings, prompt: Prompt, images: Images, model: ArmModel) -> Versions:
    if given.contrast == "text":
        return without_image(prompt)
    return noised([prompt], [True], diffused(images, given.noise, given.seed, model.config.vision))


def _drawn(prompt: Prompt, images: Images, seed: int, merge: int) -> Float32[np.ndarray, "batch step"]:
    """Numbers from 0 to 1 for each row and step, which depend on its tokens and picture and not on the rows beside it."""
    assert prompt.image_cell is not None
    stride, pictures = images.patches.shape[1] // merge**2, picture_seeds(images)
    rows = []
    for tokens, valid, cells in zip(*map(np.asarray, (prompt.tokens, prompt.valid, prompt.image_cell)), strict=True):
        key = [seed, pictures[int(cells.max()) // stride], zlib.crc32(tokens[valid].tobytes())]
        rows.append(np.random.default_rng(key).random(STEPS, np.float32))
    return np.stack(rows)


def _heads(given: ArmSettings, model: ArmModel) -> Float32[np.ndarray, "layer heads"]:
    shape = model.shape
    if given.heads == "all":
        first, last = _layer_range(given.layers, shape[0])
        if not first < last <= shape[0]:
            raise InputError(f"layers {given.layers} are none of a model with {shape[0]}: give A-B with A below B")
        mask = np.zeros(shape, np.float32)
        mask[first:last] = 1
        return mask
    if model.gaze is None:
        raise InputError("the gaze heads of this model are not known: give --heads, a file that `gaze reproduce` wrote")
    chosen = model.gaze
    if given.heads == "random":
        chosen = random_heads(np.random.default_rng(given.seed), chosen, chosen.heads, shape)
    return chosen.to_mask(*shape).astype(np.float32)


def _layer_range(layers: str, count: int) -> tuple[int, int]:
    named = {"all": (0, count), "upper": (2, count), "middle": tuple(round(share * count) for share in CG_LAYERS)}
    if layers in named:
        return named[layers][0], named[layers][1]
    first, dash, last = layers.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise InputError(f"layers {shown(layers)} are none: give all, upper, middle or A-B")
    return int(first), int(last)
