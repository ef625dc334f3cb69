"""Writes the trained model as a Hugging Face checkpoint: `python -m experiments.testbed.sparse.export RUN DST`."""

from pathlib import Path

import click

from experiments.testbed.export import export
from experiments.testbed.sparse.train import restore


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
def main(run: Path, dst: Path) -> None:
    """Writes the newest state of the training folder RUN as the folder DST, without the helper heads."""
    export(restore(run).model, run, dst)


if __name__ == "__main__":
    main()
