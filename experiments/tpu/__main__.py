"""Compiles discovery and steered decoding for TPUs that are not there: what would fit, and how fast it could be at best.

python -m experiments.tpu.__main__ --model 8B --topology v5e:2x4 --json plan.json
"""

import json
from pathlib import Path

import click

from convert.cli import run
from experiments.tpu.chips import topology, without_hardware
from qwen3vl_jax.errors import InputError

SIZES = ("2B", "8B", "32B", "30B-A3B")
TOPOLOGIES = ("v5e:2x4", "v5e:4x4", "v5e:8x8", "v5e:16x16")


@click.command(help=__doc__)
@click.option("--model", "sizes", multiple=True, type=click.Choice(SIZES), help="One of several; all without.")
@click.option("--topology", "names", multiple=True, help=f"One of several; {', '.join(TOPOLOGIES)} without.")
@click.option("--mesh", help="Such as data=4,model=2; without, as few chips on the model axis as the weights need.")
@click.option("--strips", default=4, show_default=True, type=click.IntRange(1), help="On each part of the data axis.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure here, too.")
def command(sizes: tuple[str, ...], names: tuple[str, ...], mesh: str | None, strips: int, file: Path | None) -> None:
    if file is not None and not file.parent.is_dir():
        raise InputError(f"{file.parent} is no folder, so {file.name} cannot be written there: make it first")
    without_hardware()  # before anything imports JAX
    from experiments.run.meshes import parse_mesh
    from experiments.tpu.plan import MeshLayout, default_mesh, plan
    from experiments.tpu.programs import PROGRAMS
    from experiments.tpu.report import as_json, table

    axes = parse_mesh(mesh) if mesh else None
    places = {name: topology(name) for name in names or TOPOLOGIES}
    plans = []
    for size in sizes or SIZES:
        for name, (chip, devices) in places.items():
            layout = MeshLayout(size, name, **(axes or default_mesh(size, chip, devices)), strips=strips)
            for program in PROGRAMS:
                click.echo(f"{size} on {name}: {program.name}, data={layout.data}, model={layout.model}", err=True)
                plans.append(plan(layout, program, chip, devices))
    table(plans)
    if file is not None:
        file.write_text(json.dumps([as_json(one) for one in plans], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(command, "python -m experiments.tpu")
