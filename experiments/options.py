"""The options that say what a run depends on, the same for every command. What is not given is left to the presets."""

from collections.abc import Callable
from typing import Any

import click

MODES = ("boost_suppress", "suppress_image", "suppress_all", "max_suppress_all")

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--model",
        default="testbed",
        show_default=True,
        help="A converted checkpoint, a Hugging Face folder or a hub name.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        help="Compute in this; float32 on a CPU, else as stored, without.",
    ),
    click.option("--strips", help="testbed, folder:PATH, comics:PATH or hub:NAME (default: testbed)."),
    click.option("--discovery-strips", help="Strips for discovery, if from elsewhere."),
    click.option("--share", is_flag=True, default=None, help="Let discovery and evaluation use the same strips."),
    click.option("--discovery", type=click.IntRange(2), help="Strips that find the heads (default: 60)."),
    click.option("--selection", type=click.IntRange(2), help="Strips that choose how many heads (default: 24)."),
    click.option("--evaluation", type=click.IntRange(2), help="Strips to evaluate on (default: 60)."),
    click.option("--heads", help="Use this head set in place of the heads that are found."),
    click.option("--k", type=click.IntRange(1), help="Number of heads; chosen on the selection strips without."),
    click.option("--draws", type=click.IntRange(1), help="Random head sets to compare with (default: 10)."),
    click.option("--strength", type=float, help="Added to, or subtracted from, the attention scores (default: 10000)."),
    click.option("--mode", type=click.Choice(MODES), help="What is raised and what lowered (default: boost_suppress)."),
    click.option("--precision", type=click.Choice(["ordered", "uniform"])),
    click.option("--segment", type=click.IntRange(1), help="Tokens of a part of a scheduled narration."),
    click.option("--photos", help="Pictures with boxes: testbed, or coco:ANNOTATIONS,FOLDER (default: testbed)."),
    click.option("--images", type=click.IntRange(2), help="How many of them (default: 60)."),
    click.option("--models", multiple=True, help="Further checkpoints to compare with; may be given several times."),
    click.option("--judge", help="exact, first, caption, likelihood or chat:MODEL[@URL]."),
    click.option("--seed", type=click.IntRange(0), help="(default: 0)"),
)


def options(command: Any) -> Any:
    """Gives a command the settings of a run as options; what is not given is left to `settings`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
