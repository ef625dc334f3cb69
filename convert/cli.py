"""The command `qwen3vl-convert`."""

import json
import logging
import os
import signal
import sys
from threading import Timer
from typing import Any

import click
from click_default_group import DefaultGroup
from tqdm import tqdm

from qwen3vl_jax.errors import InputError

UNRAISABLE = sys.unraisablehook

# JAX, Orbax and transformers take seconds to import: each command imports its own work, and --help none.


@click.group(cls=DefaultGroup, default="convert", default_if_no_args=True)
def cli() -> None:
    """Convert Qwen3-VL checkpoints between Hugging Face and Orbax, and check them.

    \b
    qwen3vl-convert SRC DST       convert; the direction follows from SRC
    qwen3vl-convert verify SRC    compare with transformers
    """


@cli.command("convert")
@click.argument("src")
@click.argument("dst")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Store every tensor so; bit for bit without.")
def convert_command(src: str, dst: str, dtype: str | None) -> None:
    """Convert SRC into the new folder DST (the default command).

    SRC is a Hugging Face folder or hub name (then DST is an Orbax checkpoint), or a folder that this command wrote (then
    DST is a Hugging Face folder again). DST also gets config, tokenizer and processor files, so it is all one needs. If
    anything fails, DST does not exist.
    """
    from convert.convert import convert

    with tqdm(unit="B", unit_scale=True, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        convert(src, dst, dtype, progress)


@cli.command("verify")
@click.argument("src")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify_command(src: str, as_json: bool) -> None:
    """Compare the checkpoint SRC with transformers, number by number; exit status 0 for PASS, 1 for FAIL.

    Needs PyTorch, and memory for the weights in float32.
    """
    from convert.verify import verify

    report = verify(src)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else str(report))
    sys.exit(0 if report.passed else 1)


def main() -> None:
    """Exit status: 0, 1 if a check fails, 2 for input that cannot be used, 130 when interrupted, 143 when terminated."""
    run(cli, "qwen3vl-convert")


def run(command: click.Command, name: str) -> None:
    """Runs a command line; whatever a person did wrong becomes one sentence on stderr and exit status 2."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _unraisable
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the stack trace of an error before it raises it
    try:
        command(prog_name=name, standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)


def _unraisable(lost: Any) -> None:
    """Python drops what is raised within a callback of its garbage collector, where JAX has one: Ctrl-C is to come again."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        UNRAISABLE(lost)


def _terminate(*_: Any) -> None:
    # An exception, so that what is half-written is removed on the way out.
    sys.exit(128 + signal.SIGTERM)


def _fail(message: str, status: int) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
