"""The command `gaze`."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from experiments.commands.options import MODES, PANELS, Command, distributed_options, options
from experiments.paper import ALL, EXPERIMENTS
from experiments.run import processes
from qwen3vl_jax.errors import InputError

# JAX and transformers take seconds to import: each command imports its own work, and --help none.


class RunFolder(click.Path):
    """The name of a run folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # which otherwise is the folder that one is in
            raise InputError("'' names no run folder: give a name")
        return super().convert(value, param, ctx)


class ExperimentName(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """The name of an experiment, in full or only its number, such as e4."""

    name = "experiment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = {known.partition("_")[0]: known for known in EXPERIMENTS}.get(value, value)
        if name not in ALL:
            raise InputError(f"there is no experiment {value!r}: give {', '.join(ALL)}, or a number alone, as e1")
        return str(name)


@click.group()
def cli() -> None:
    """Find the attention heads with which a vision-language model looks, and steer them."""
    for word in sys.argv[1:]:
        if any("\ud800" <= sign <= "\udfff" for sign in word):  # bytes that are no UTF-8
            raise InputError(f"{word!r} on the command line is not UTF-8: give questions and names of files in UTF-8")


@cli.command("ask")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--look-at", metavar="PANEL|x0,y0,x1,y1", help="Steer to a panel (from 1) or to a box in pixels.")
@click.option("--panels", default=6, show_default=True, type=PANELS, help="Panels side by side in IMAGE.")
@click.option("--heads", type=click.Path(path_type=Path), help="Head set or ranking; the testbed has its own.")
@click.option("--top", type=click.IntRange(1), help="Use only the first so many heads.")
@click.option(
    "--strength",
    type=float,
    help="Added to the attention scores, or subtracted (default: what the heads were chosen with).",
)
@click.option("--mode", type=click.Choice(MODES), default=MODES[0], show_default=True)
@click.option(
    "--decode-only", is_flag=True, help="Steer from the first decoded token on, not while the prompt is read."
)
@click.option("--max-new", default=128, show_default=True, type=click.IntRange(1), help="Longest answer in tokens.")
@options("bias", "model", "dtype", "mesh")
def ask_command(
    image: Path,
    question: str,
    look_at: str | None,
    panels: int,
    heads: Path | None,
    top: int | None,
    strength: float | None,
    mode: str,
    decode_only: bool,
    max_new: int,
    bias: str | None,
    model: str | None,
    dtype: str | None,
    mesh: str | None,
) -> None:
    """Answer QUESTION about IMAGE, word by word, looking where it likes or where it is told to."""
    from experiments.commands.ask import SteeringTarget, ask, parse_place

    look = None
    if look_at is not None:
        look = SteeringTarget(parse_place(look_at), panels, heads, top, strength, mode, bias or "add", decode_only)
    for piece in ask(model or "testbed", dtype, mesh, image, question, look, max_new):
        click.echo(piece, nl=False)
    click.echo()


def _run_folder(name: str) -> Callable[[Command], Command]:
    return click.option(
        "--out",
        type=RunFolder(path_type=Path),
        help=f"Run folder, gone on with if it is there; runs/{name}-DATE-TIME without.",
    )


def _folder(out: Path | None, name: str) -> Path:
    return out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@cli.command("discover")
@_run_folder("discover")
@options()
@distributed_options
def discover_command(out: Path | None, **given: Any) -> None:
    """Find the gaze heads of a model, and choose how many of them to steer."""
    from experiments.commands.evaluate import discover

    discover(_folder(out, "discover"), given)


@cli.command("evaluate")
@_run_folder("evaluate")
@options()
@distributed_options
def evaluate_command(out: Path | None, **given: Any) -> None:
    """Steer with the heads that `gaze discover` found in the run folder, and compare with random heads and with all heads.

    What is not given is as it was there. Without a run the heads are found first.
    """
    from experiments.commands.evaluate import evaluate

    evaluate(_folder(out, "evaluate"), given)


@cli.command("reproduce")
@_run_folder("reproduce")
@click.option("--all", "everything", is_flag=True, help="All experiments, in about half an hour on two cores.")
@options()
@distributed_options
def reproduce_command(out: Path | None, everything: bool, **given: Any) -> None:
    """Find the gaze heads, steer with them, and compare with random heads and with all heads."""
    from experiments.commands.reproduce import SHORT, reproduce
    from experiments.run.settings import resolve_settings

    reproduce(_folder(out, "reproduce"), resolve_settings(given), ALL if everything else SHORT)


@cli.command("run")
@click.argument("name", type=ExperimentName())
@_run_folder("run")
@options()
@distributed_options
def run_command(name: str, out: Path | None, **given: Any) -> None:
    """Run one experiment of the paper, with the heads that experiment 1 finds in the same run folder.

    NAME is e1 to e10, or judge_calibration.
    """
    from experiments.commands.runner import run_alone

    run_alone(name, _folder(out, name), given)


@cli.command("diagnose")
@click.argument("model", default="testbed")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--out",
    type=RunFolder(path_type=Path),
    help="Keep the run in this folder, or go on with it.",
)
@options(
    *(
        "dtype",
        "mesh",
        "strips",
        "panels",
        "photos",
        "discovery",
        "selection",
        "evaluation",
        "draws",
        "k",
        "judge",
        "seed",
    )
)
@distributed_options
def diagnose_command(model: str, as_json: bool, out: Path | None, **given: Any) -> None:
    """Does MODEL have gaze heads at all? Which, and what does steering with them do and cost?

    All heads that look where the question says are judged together, or the best --k of them. More strips and draws make
    an uncertain answer certain.
    """
    from experiments.commands.diagnose import diagnose
    from experiments.commands.diagnosis import show

    found = diagnose(model, out, given)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(found)


@cli.command("hallucination")
@click.argument("model", default="testbed")
@click.option(
    "--pope", type=click.Path(path_type=Path), help="Folder of POPE's files, RePOPE's labels beside them if at hand."
)
@click.option(
    "--coco",
    required=True,
    metavar="ANNOTATIONS,IMAGES",
    help="Folder of COCO's instances and captions, and of pictures.",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME[:SETTING=VALUE,...]",
    help="What steers it: pai, pai-logits, pai-both, gaze, gaze-pai, cg, cg-static or vcd; may be given several times.",
)
@_run_folder("hallucination")
@options("dtype", "heads", "k", "images", "seed")
def hallucination_command(
    model: str, pope: Path | None, coco: str, arms: tuple[str, ...], out: Path | None, **given: Any
) -> None:
    """Does MODEL tell of things that are not in the picture? POPE and CHAIR, with the picture and without."""
    from experiments.commands.hallucination import hallucination

    hallucination(model, pope, coco, _folder(out, "hallucination"), given, arms)


@cli.command("judge")
@click.argument("out", metavar="RUN", type=RunFolder(path_type=Path))
@click.option("--judge", required=True, help="exact, first, caption, likelihood or chat:MODEL[@URL].")
@click.option("--dry-run", is_flag=True, help="Count what a chat judge would be sent, and send nothing.")
@options("mesh")
@distributed_options
def judge_command(out: Path, judge: str, dry_run: bool, mesh: str | None) -> None:
    """Judge the saved answers of RUN once more, and write its results and report anew."""
    from experiments.commands.reproduce import judge_again, rehearse

    if dry_run:
        click.echo(rehearse(out, judge))
    else:
        judge_again(out, judge, mesh)


def main() -> None:
    """Exit status: 0, 2 for input that cannot be used, 75 if another process is lost, 130 interrupted, 143 terminated."""
    processes.main(cli, "gaze")
