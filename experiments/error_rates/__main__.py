"""`python -m experiments.error_rates models` and `... power` write the tables beside this file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from experiments.error_rates import power, suite
from experiments.error_rates.models import Source, models
from experiments.run import processes
from experiments.testbed.testbeds import find_testbed
from gaze.testbed import CHECKPOINT

HERE = Path(__file__).parent


@click.group()
def cli() -> None:
    """How often `gaze diagnose` is right."""


@cli.command("models")
@click.argument("checkpoint", type=click.Path(path_type=Path), default=CHECKPOINT)
@click.option("--runs", type=click.Path(path_type=Path), help="Keep models and their runs here, and go on with them.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE, help="Folder of the tables.")
def models_command(checkpoint: Path, runs: Path | None, out: Path) -> None:
    """Make models from CHECKPOINT (the testbed without), and diagnose them."""
    with TemporaryDirectory(prefix="gaze-error-rates-") as temporary:
        rows = []
        for row in suite.diagnosed(models(), Source.open(checkpoint), runs or Path(temporary), {}):
            click.echo(f"{row['name']}: {row['answer']}, in truth {row['truth']}", err=True)
            rows.append(row)
            suite.save(rows, find_testbed(checkpoint) or checkpoint.name, out)


@cli.command("power")
@click.option("--times", default=power.TIMES, show_default=True, type=click.IntRange(1), help="Simulations a row.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE, help="Folder of the tables.")
def power_command(times: int, out: Path) -> None:
    """Simulate diagnoses at published figures."""
    power.save(power.table(times), times, out)


if __name__ == "__main__":
    processes.main(cli, "python -m experiments.error_rates")
