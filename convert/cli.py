"""The command `qwen3vl-convert`."""

import json
import sys

import click
from tqdm import tqdm

from convert.command_line import run as run  # where it used to be

# JAX, Orbax and transformers take seconds to import: each command imports its own work, and --help none.


class ConvertByDefault(click.Group):
    """`convert` need not be said."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        said = args and args[0] in (*self.commands, "--help")
        return super().parse_args(ctx, args if said else ["convert", *args])


@click.group(cls=ConvertByDefault)
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
