"""The options that say what a run depends on, the same for every command. What is not given is left to the presets."""

from collections.abc import Callable
from typing import Any

import click

MODES = ("boost_suppress", "suppress_image", "suppress_all", "max_suppress_all")

COUNT, FEW = click.IntRange(1), click.IntRange(2)
OPTIONS: dict[str, dict[str, Any]] = {
    "model": dict(
        default="testbed", show_default=True, help="A converted checkpoint, a Hugging Face folder or a hub name."
    ),
    "dtype": dict(
        type=click.Choice(["float32", "bfloat16"]), help="Compute in this; float32 on a CPU, else as stored, without."
    ),
    "strips": dict(help="testbed, folder:PATH, comics:PATH or hub:NAME (default: testbed)."),
    "discovery-strips": dict(help="Strips for discovery, if from elsewhere."),
    "share": dict(is_flag=True, default=None, help="Let discovery and evaluation use the same strips."),
    "discovery": dict(type=FEW, help="Strips that find the heads (default: 60)."),
    "selection": dict(type=FEW, help="Strips that choose how many heads (default: 24)."),
    "evaluation": dict(type=FEW, help="Strips to evaluate on (default: 60)."),
    "heads": dict(help="Use this head set in place of the heads that are found."),
    "k": dict(type=COUNT, help="Number of heads; chosen on the selection strips without."),
    "draws": dict(type=COUNT, help="Random head sets to compare with (default: 10)."),
    "strength": dict(type=float, help="Added to, or subtracted from, the attention scores (default: 10000)."),
    "mode": dict(type=click.Choice(MODES), help="What is raised and what lowered (default: boost_suppress)."),
    "precision": dict(type=click.Choice(["ordered", "uniform"]), help="(default: ordered)"),
    "segment": dict(type=COUNT, help="Tokens of a part of a scheduled narration (default: 50; testbed 7)."),
    "photos": dict(help="Pictures with boxes: testbed, or coco:ANNOTATIONS,FOLDER (default: testbed)."),
    "images": dict(type=FEW, help="How many of them (default: 60)."),
    "models": dict(multiple=True, help="Further checkpoints to compare with; may be given several times."),
    "judge": dict(help="exact, first, caption, likelihood or chat:MODEL[@URL] (default: exact on the testbed)."),
    "seed": dict(type=click.IntRange(0), help="(default: 0)"),
}

Command = Callable[..., Any]


def options(*names: str) -> Callable[[Command], Command]:
    """Gives a command some of the options, all of them without names."""

    def give(command: Command) -> Command:
        for name in reversed(names or tuple(OPTIONS)):
            command = click.option(f"--{name}", **OPTIONS[name])(command)
        return command

    return give
