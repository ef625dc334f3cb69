"""`gaze ask`: one question about one picture, looked at where the model likes or where it is told to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool
from PIL import Image

from experiments.run.meshes import open_mesh
from experiments.run.models import load_heads, open_model
from experiments.run.settings import PAPER_STRENGTH
from experiments.testbed.testbeds import TESTBEDS
from gaze.heads import HeadSet
from gaze.pictures.regions import box_cells, panel_cells, region_keys
from gaze.pictures.strips import Strip
from gaze.steering.masks import Steering, schedule, steering
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown
from qwen3vl_jax.generation.decoding import stream
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.images import open_image
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.load import model_revision
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Batch, Processor
from qwen3vl_jax.vision import Vision

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SteeringTarget:
    """Where to look (a panel's number, from 1, or a box in pixels), with which heads and how hard.

    Without a strength it is the one that the heads were chosen with, else the paper's.
    """

    place: int | Box
    panels: int
    heads: Path | None
    top: int | None
    strength: float | None
    mode: str
    bias: str
    decode_only: bool


def parse_place(text: str) -> int | Box:
    """`3` is a panel, `10,20,80,90` a box: left, top, right, bottom in pixels."""
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) == 1:
            return int(text)
        left, top, right, bottom = numbers
    except ValueError:
        raise InputError(f"cannot look at {text!r}: give a panel's number, or a box as x0,y0,x1,y1 in pixels") from None
    return (left, top, right, bottom)


def ask(
    model_name: str,
    dtype: str | None,
    mesh: str | None,
    image: Path,
    question: str,
    look: SteeringTarget | None,
    max_new: int,
) -> Iterator[str]:
    """The answer, piece by piece as it comes; a mesh as in `experiments.run.meshes`."""
    picture = open_image(image)
    if look is not None and look.heads is None and model_name not in TESTBEDS:
        raise InputError(
            f"which heads of {model_name} look is not known: give --heads, a file that `gaze reproduce` wrote"
        )
    if look is not None and look.heads is not None:
        HeadSet.load(look.heads)  # if that is no file of heads, it is told before the model is read
    model, processor = open_model(model_name, dtype, open_mesh(mesh))
    batch = processor([processor.chat(question)], [[picture]])
    plan = None if look is None else _plan(model, processor, batch, picture, look, _heads(model_name, model, look))
    vision = jax.jit(Qwen3VL.encode)(model, batch.images)
    sampling = Sampling.make(stop=processor.stop_tokens)
    yield from _words(processor, model, batch.prompt, vision, plan, sampling, max_new)


def _words(
    processor: Processor,
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    plan: Steering | None,
    sampling: Sampling,
    max_new: int,
) -> Iterator[str]:
    tokens: list[int] = []
    said = ""
    for token, done in stream(model, prompt, vision, plan, sampling, jax.random.key(0), max_new=max_new):
        tokens += [] if done[0] else [int(token[0])]
        text = processor.decode(tokens)
        # A character may take several tokens: what is not whole yet waits for the next.
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(said) :]
            said = text


def _heads(name: str, model: Qwen3VL, look: SteeringTarget) -> HeadSet:
    if look.heads is None:
        return HeadSet.load(TESTBEDS[name].checkpoint / "heads.json", look.top)
    text = model.config.text
    return load_heads(
        look.heads, look.top, (text.num_hidden_layers, text.num_attention_heads), model_revision(model), "--top"
    )


def _plan(
    model: Qwen3VL, processor: Processor, batch: Batch, picture: Image.Image, look: SteeringTarget, heads: HeadSet
) -> Steering:
    text = model.config.text
    regions, target = _regions(processor, batch, picture, look)
    return steering(
        heads.to_mask(text.num_hidden_layers, text.num_attention_heads),
        batch.prompt,
        regions[None],
        schedule([(int(look.decode_only), target)])[None],
        _strength(look, heads),
        look.mode,
        look.bias,
    )


def _strength(look: SteeringTarget, heads: HeadSet) -> float:
    if look.strength is not None:
        return look.strength
    found = heads.settings.get("strength", PAPER_STRENGTH)
    if not isinstance(found, (int, float)):
        raise InputError(f"the heads were chosen with the strength {shown(found)}, which is no number: give --strength")
    return float(found)


def _regions(
    processor: Processor, batch: Batch, picture: Image.Image, look: SteeringTarget
) -> tuple[Bool[np.ndarray, "region key"], int]:
    """Keys of every region, and which of them is meant."""
    rows, cols = (int(n) for n in batch.grids[0])
    merge = processor.settings.merge_size
    row = np.asarray(batch.prompt.image_cell)[0]
    if isinstance(look.place, int):
        if not 1 <= look.place <= look.panels:
            raise InputError(f"there is no panel {look.place}: give a number from 1 to {look.panels}")
        widths = Strip.even("", picture, look.panels).widths
        return region_keys(row, panel_cells((rows, cols), widths, merge)), look.place - 1
    cells, centred = box_cells((rows, cols), look.place, picture.size, merge)
    if not centred:
        size = f"{picture.width * merge / cols:.0f} x {picture.height * merge / rows:.0f}"
        raise InputError(
            f"the box {look.place} holds the centre of no image token ({size} pixels each): make it larger"
        )
    return region_keys(row, cells[None]), 0
