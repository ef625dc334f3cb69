"""Writes the trained model as a Hugging Face checkpoint: `python -m experiments.testbed.export RUN DST`."""

from pathlib import Path

import click
import ml_dtypes
import numpy as np

from convert.safetensors_writer import write_safetensors
from experiments.testbed.train import restore
from qwen3vl_jax.files.write import new_folder
from qwen3vl_jax.load.checkpoint import SIDE_FILES
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.weights import disassemble


def export(model: Qwen3VL, run: Path, dst: Path) -> None:
    """Writes a model as the folder `dst`, in bfloat16, with the small files that training wrote into `run/checkpoint`."""
    stored = {name: array.astype(ml_dtypes.bfloat16) for name, array in disassemble(model).items()}
    with new_folder(dst.absolute()) as folder:
        parts = {name: (array.shape, array.dtype) for name, array in stored.items()}
        write_safetensors(folder, parts, lambda name: np.ascontiguousarray(stored[name]))
        for name in (*SIDE_FILES, "config.json"):
            if (run / "checkpoint" / name).is_file():
                (folder / name).write_bytes((run / "checkpoint" / name).read_bytes())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
def main(run: Path, dst: Path) -> None:
    """Writes the newest state of the training folder RUN as the folder DST."""
    export(restore(run.absolute()), run, dst)


if __name__ == "__main__":
    main()
