"""Writes the trained model as a Hugging Face checkpoint: `python -m experiments.testbed.v2.export RUN DST`."""

from pathlib import Path

import click
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from convert.safetensors_writer import write_safetensors
from experiments.testbed.v2.train import WARMUP, begin, optimizer, states
from qwen3vl_jax.files.write import new_folder
from qwen3vl_jax.load.checkpoint import SIDE_FILES
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.weights import disassemble


def restore(folder: Path, step: int | None = None) -> Qwen3VL:
    """The newest state of a training folder, or the one saved at a step."""
    _, model = begin(folder, 0)
    graph, params = nnx.split(model)
    with states(folder) as manager:
        saved = ocp.args.StandardRestore((params, optimizer(model, 2 * WARMUP).init(params)))
        params, _ = manager.restore(step or manager.latest_step(), args=saved)
    return nnx.merge(graph, params)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
def main(run: Path, dst: Path) -> None:
    """Writes the newest state of the training folder RUN as the folder DST, in bfloat16."""
    weights = disassemble(restore(run.absolute()))
    stored = {name: array.astype(ml_dtypes.bfloat16) for name, array in weights.items()}
    with new_folder(dst.absolute()) as folder:
        parts = {name: (array.shape, array.dtype) for name, array in stored.items()}
        write_safetensors(folder, parts, lambda name: np.ascontiguousarray(stored[name]))
        for name in (*SIDE_FILES, "config.json"):
            if (run / "checkpoint" / name).is_file():
                (folder / name).write_bytes((run / "checkpoint" / name).read_bytes())


if __name__ == "__main__":
    main()
