"""The command `gaze`."""

from pathlib import Path
from typing import Any

import click

from convert.cli import run

# JAX and transformers take seconds to import: each command imports its own work, and --help none.

MODES = ("boost_suppress", "suppress_image", "suppress_all", "max_suppress_all")

model_option = click.option(
    "--model",
    "model",
    default="testbed",
    show_default=True,
    help="A converted checkpoint, a Hugging Face folder or a hub name.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Compute in this; float32 on a CPU, else as stored, without.",
)


@click.group()
def cli() -> None:
    """Find the attention heads with which a vision-language model looks, and steer them."""


@cli.command("ask")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--look-at", metavar="PANEL|x0,y0,x1,y1", help="Steer to a panel (from 1) or to a box in pixels.")
@click.option("--panels", default=6, show_default=True, type=click.IntRange(1), help="Panels side by side in IMAGE.")
@click.option("--heads", type=click.Path(path_type=Path), help="Head set or ranking; the testbed has its own.")
@click.option("--top", type=click.IntRange(1), help="Use only the first so many heads.")
@click.option(
    "--strength", default=10_000.0, show_default=True, help="Added to, or subtracted from, the attention scores."
)
@click.option("--mode", type=click.Choice(MODES), default=MODES[0], show_default=True)
@click.option("--precision", type=click.Choice(["ordered", "uniform"]), default="ordered", show_default=True)
@click.option(
    "--decode-only", is_flag=True, help="Steer from the first decoded token on, not while the prompt is read."
)
@click.option("--max-new", default=128, show_default=True, type=click.IntRange(1), help="Longest answer in tokens.")
@model_option
@dtype_option
def ask_command(
    image: Path,
    question: str,
    look_at: str | None,
    panels: int,
    heads: Path | None,
    top: int | None,
    strength: float,
    mode: str,
    precision: str,
    decode_only: bool,
    max_new: int,
    model: str,
    dtype: str | None,
) -> None:
    """Answer QUESTION about IMAGE, word by word, looking where it likes or where it is told to."""
    from experiments.ask import Look, ask, parse_place

    look = None
    if look_at is not None:
        look = Look(parse_place(look_at), panels, heads, top, strength, mode, precision, decode_only)
    for piece in ask(model, dtype, image, question, look, max_new):
        click.echo(piece, nl=False)
    click.echo()


@cli.command("reproduce")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/reproduce-DATE-TIME without.")
@click.option("--strips", default=60, show_default=True, type=click.IntRange(2), help="Strips to evaluate on.")
@click.option(
    "--discovery-strips", default=60, show_default=True, type=click.IntRange(2), help="Strips that find the heads."
)
@click.option(
    "--selection-strips", default=24, show_default=True, type=click.IntRange(2), help="Strips that choose how many."
)
@click.option(
    "--draws", default=10, show_default=True, type=click.IntRange(1), help="Random head sets to compare with."
)
@click.option(
    "--strength", default=10_000.0, show_default=True, help="Added to, or subtracted from, the attention scores."
)
@click.option("--mode", type=click.Choice(MODES), default=MODES[0], show_default=True)
@click.option("--precision", type=click.Choice(["ordered", "uniform"]), default="ordered", show_default=True)
@click.option("--max-new", default=16, show_default=True, type=click.IntRange(1), help="Longest answer in tokens.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@model_option
@dtype_option
def reproduce_command(out: Path | None, model: str, dtype: str | None, **settings: Any) -> None:
    """Find the gaze heads on drawn strips, steer with them, and compare with random heads and with all heads."""
    from experiments.reproduce import Settings, reproduce

    reproduce(model, dtype, out, Settings(**settings))


def main() -> None:
    """Exit status: 0, 2 for input that cannot be used, 130 when interrupted."""
    run(cli, "gaze")
