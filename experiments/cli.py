"""The command `gaze`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from convert.cli import run
from experiments.options import MODES, options

# JAX and transformers take seconds to import: each command imports its own work, and --help none.


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
@options("model", "dtype")
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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder, gone on with if it is there; runs/reproduce-DATE-TIME without.",
)
@click.option(
    "--all", "everything", is_flag=True, help="All nine experiments of the paper, in about half an hour on two cores."
)
@options()
def reproduce_command(out: Path | None, everything: bool, model: str, **given: Any) -> None:
    """Find the gaze heads, steer with them, and compare with random heads and with all heads."""
    from experiments.reproduce import ALL, SHORT, reproduce
    from experiments.settings import settled

    folder = out or Path("runs") / f"reproduce-{datetime.now():%Y%m%d-%H%M%S}"
    reproduce(folder, settled(model, given), ALL if everything else SHORT)


@cli.command("diagnose")
@click.argument("model", default="testbed")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the run in this folder, or go on with it.")
@options("dtype", "strips", "photos", "draws", "k", "judge", "seed")
def diagnose_command(model: str, as_json: bool, out: Path | None, **given: Any) -> None:
    """Does MODEL have gaze heads at all? Which, how stable, and what does steering with them cost?"""
    from experiments.diagnose import diagnose, show

    found = diagnose(model, out, given)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(found)


@cli.command("judge")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--judge", required=True, help="exact, first, caption, likelihood or chat:MODEL[@URL].")
@click.option("--dry-run", is_flag=True, help="Count what a chat judge would be sent, and send nothing.")
def judge_command(run_folder: Path, judge: str, dry_run: bool) -> None:
    """Judge the saved answers of RUN once more, and write its results and report anew."""
    from experiments.reproduce import judge_again, rehearse

    if dry_run:
        click.echo(rehearse(run_folder, judge))
    else:
        judge_again(run_folder, judge)


def main() -> None:
    """Exit status: 0, 2 for input that cannot be used, 130 when interrupted."""
    run(cli, "gaze")
