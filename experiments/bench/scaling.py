"""Discovery over 1, 2, 4 and 8 virtual devices of one machine: the same results, and less work for each device.

python -m experiments.bench.scaling --json scaling.json
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import jax
import numpy as np
from flax import nnx

from convert.cli import run
from experiments.bench.checkpoint import MEDIUM, SIZE, strip, write_checkpoint
from experiments.bench.discovery import TEXTS
from experiments.bench.report import BenchmarkReport, Figure, json_option, publish, say
from experiments.bench.sides import Measurement, Side, without_torch
from experiments.tpu.costs import cost
from experiments.tpu.programs import TAKEN, lower_discovery
from gaze.discovery.scores import Mass
from gaze.pictures.strips import Strip
from gaze.steering.engine import discover
from qwen3vl_jax.config import Config
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import make_mesh, shardings

DEVICES = 8
MESHES = ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (2, 4))
"""Devices on the data axis and on the model axis."""
STRIPS = 8
TOLERANCE = 1e-5
ENVIRONMENT = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}

# 30 million parameters, as eight devices may each hold all of them.
SMALL: dict[str, Any] = {
    **MEDIUM,
    "text_config": MEDIUM["text_config"]
    | dict(hidden_size=512, intermediate_size=1024, num_hidden_layers=6, head_dim=64),
    "vision_config": MEDIUM["vision_config"]
    | dict(depth=6, hidden_size=256, intermediate_size=1024, out_hidden_size=512, deepstack_visual_indexes=[0, 2, 4]),
}
SMALL["text_config"]["rope_scaling"] = MEDIUM["text_config"]["rope_scaling"] | dict(mrope_section=[12, 10, 10])


class Work(NamedTuple):
    """Of one device: operations, bytes to and from memory, bytes to other devices."""

    flops: float
    memory: float
    links: float


def discovering(folder: Path) -> Callable[[Sequence[Strip], int, int], Mass]:
    """Returns what scores strips on a mesh."""
    without_torch()

    def work(strips: Sequence[Strip], data: int, model: int) -> Mass:
        loaded, processor = load(folder, mesh=make_mesh(data, model))
        return discover(loaded, processor, strips, TEXTS)

    return work


def counting(raw: dict[str, Any]) -> Callable[[int, int], Work]:
    """Returns what compiles discovery of `STRIPS` strips for a mesh, without weights, and counts a device's work."""
    config = Config.from_dict(raw)

    def work(data: int, model: int) -> Work:
        mesh = make_mesh(data, model)
        abstract = nnx.eval_shape(lambda: Qwen3VL(config, nnx.Rngs(0)))
        placed = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract,
            shardings(abstract, mesh),
        )
        text = lower_discovery(placed, mesh, STRIPS).compile().as_text()
        found = cost(text or "", taken=TAKEN)
        return Work(float(found.flops), float(found.memory), float(found.links))

    return work


def measure(
    raw: dict[str, Any], counted: dict[str, Any], meshes: Sequence[tuple[int, int]], size: tuple[int, int] = SIZE
) -> BenchmarkReport:
    """Results of the first model on every mesh, and the work of the second; raises RuntimeError if results differ."""
    strips = [strip(number, size) for number in range(STRIPS)]
    runs: dict[tuple[int, int], Measurement] = {}
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        write_checkpoint(Path(place), raw)
        with Side(discovering, Path(place), env=ENVIRONMENT) as side:
            for mesh in meshes:
                runs[mesh] = side(strips, *mesh)
                say(f"results with data={mesh[0]}, model={mesh[1]}")
    apart = {mesh: float(np.abs(run.value - runs[meshes[0]].value).max()) for mesh, run in runs.items()}
    works = {}
    with Side(counting, counted, env=ENVIRONMENT) as side:
        for mesh in meshes:
            works[mesh] = side(*mesh).value
            say(f"work with data={mesh[0]}, model={mesh[1]}")
    if max(apart.values()) > TOLERANCE:
        raise RuntimeError(
            f"results differ by {max(apart.values()):.2e} between meshes, which may be {TOLERANCE:g} at most"
        )
    return summary(runs, apart, works)


def summary(
    runs: dict[tuple[int, int], Measurement], apart: dict[tuple[int, int], float], works: dict[tuple[int, int], Work]
) -> BenchmarkReport:
    one = next(iter(works.values()))
    figures = [Figure("difference", max(apart.values()), "largest difference between meshes", most=TOLERANCE)]
    middle, raw = {}, {}
    for mesh, work in works.items():
        name, devices = f"data={mesh[0]} model={mesh[1]}", mesh[0] * mesh[1]
        middle[f"{name} GFLOP"], middle[f"{name} bytes"] = work.flops / 1e9, work.memory
        middle[f"{name} exchanged, bytes"] = work.links
        raw[name] = {**work._asdict(), "difference": apart[mesh], **runs[mesh].raw}
        share = work.flops * devices / one.flops
        figures.append(Figure(name, share, f"operations of {devices} devices over those of one, {name}", most=1.1))
    notes = [
        f"Counted per device in the compiled program for {STRIPS} strips, loops as often as they run; nothing of it is a time: "
        f"{DEVICES} virtual devices share this machine's cores, so wall time says nothing about scaling.",
    ]
    return BenchmarkReport("scaling", figures, middle, raw, notes)


@click.command(help=__doc__)
@json_option
def command(file: Path | None) -> None:
    publish(measure(SMALL, MEDIUM, MESHES), file)


if __name__ == "__main__":
    run(command, "scaling")
