"""The options that say what a run depends on and where it runs, the same for every command.

What is not given is left to the presets.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from experiments.run.processes import Cluster, is_worker, join_cluster, share, supervise
from qwen3vl_jax.errors import InputError

MODES = ("boost_suppress", "suppress_image", "suppress_all", "max_suppress_all")

COUNT, FEW, PANELS = click.IntRange(1), click.IntRange(2), click.IntRange(2, 12)
OPTIONS: dict[str, dict[str, Any]] = {
    "model": dict(
        help="A converted checkpoint, a Hugging Face folder or a hub name (default: testbed; also testbed-sparse)."
    ),
    "mesh": dict(
        metavar="data=D,model=M", help="Spread strips and weights over D x M devices; all on one device without."
    ),
    "dtype": dict(
        type=click.Choice(["float32", "bfloat16"]), help="Compute in this; float32 on a CPU, else as stored, without."
    ),
    "strips": dict(help="testbed, testbed-sparse, folder:PATH, comics:PATH or hub:NAME (default: the testbed's own)."),
    "discovery-strips": dict(help="Strips for discovery, if from elsewhere."),
    "panels": dict(type=PANELS, help="Panels of a strip (default: 6)."),
    "share": dict(is_flag=True, default=None, help="Let discovery and evaluation use the same strips."),
    "discovery": dict(type=FEW, help="Strips that find the heads (default: 60; diagnose 16)."),
    "selection": dict(
        type=FEW, help="Strips that choose how many heads, or how strong to steer (default: 24; diagnose 4)."
    ),
    "evaluation": dict(type=FEW, help="Strips to evaluate on (default: 60; diagnose 12)."),
    "heads": dict(help="Use this head set in place of the heads that are found."),
    "k": dict(type=COUNT, help="Number of heads; chosen on the selection strips without."),
    "draws": dict(type=COUNT, help="Random head sets to compare with (default: 10; diagnose 20)."),
    "strength": dict(
        type=float, help="Added to the attention scores, or subtracted; without, what is best for a kind of heads."
    ),
    "mode": dict(type=click.Choice(MODES), help="What is raised and what lowered (default: boost_suppress)."),
    "bias": dict(
        type=click.Choice(["add", "replace"]), help="Add the strength to the scores, or replace them (default: add)."
    ),
    "segment": dict(type=COUNT, help="Tokens of a part of a scheduled narration (default: 50; testbed 10)."),
    "photos": dict(
        help="Pictures with boxes: testbed, testbed-sparse or coco:ANNOTATIONS,FOLDER (default: the testbed's own)."
    ),
    "images": dict(type=FEW, help="How many of them (default: 60)."),
    "models": dict(multiple=True, help="Further checkpoints to compare with; may be given several times."),
    "judge": dict(help="exact, first, caption, likelihood or chat:MODEL[@URL] (default: exact on a testbed)."),
    "seed": dict(type=click.IntRange(0), help="(default: 0)"),
}

Command = Callable[..., Any]


def options(*names: str) -> Callable[[Command], Command]:
    """Gives a command some of the options, all of them without names."""

    def give(command: Command) -> Command:
        for name in reversed(names or tuple(OPTIONS)):
            command = click.option(f"--{name}", **OPTIONS[name])(command)
            if name == "bias":
                command = _old_bias(command)
        return command

    return give


def _old_bias(command: Command) -> Command:
    """Lets a command still take what --bias was called before."""

    @click.option("--precision", type=click.Choice(["ordered", "uniform"]), hidden=True)
    @wraps(command)
    def renamed(precision: str | None, bias: str | None, **given: Any) -> None:
        if precision is not None:
            if bias is not None:
                raise InputError("--precision is what --bias was called before: give --bias alone")
            bias = {"ordered": "add", "uniform": "replace"}[precision]
            click.echo(f"--precision {precision} is now called --bias {bias}", err=True)
        command(bias=bias, **given)

    return renamed


def distributed_options(command: Command) -> Command:
    """Gives a command with --out, --mesh and --judge the options of a run of several processes, and makes it one of them."""

    @click.option("--processes", metavar="auto|N", help="Run as one of N processes that do the same command together.")
    @click.option("--process", type=int, help="Which one this is, from 0; it finds out by itself with `auto`.")
    @click.option("--coordinator", metavar="HOST:PORT", help="Of process 0, any free port; likewise.")
    @wraps(command)
    def run(
        processes: str | None, process: int | None, coordinator: str | None, out: Path | None, **given: Any
    ) -> None:
        if processes is None:
            if process is not None or coordinator is not None:
                raise InputError("--process and --coordinator are for several processes: give --processes N, too")
            command(out=out, **given)
            return
        cluster = Cluster(processes, process, coordinator)
        if not given["mesh"]:
            raise InputError("several processes share one model: give --mesh, as data=4,model=2")
        if (given["judge"] or "").startswith("chat:"):
            raise InputError(
                "a chat judge is asked by one process: let `gaze judge` ask it afterwards, without --processes"
            )
        if not is_worker():
            sys.exit(supervise())
        with join_cluster(cluster) as scratch:
            command(out=share(out, scratch), **given)

    return run
