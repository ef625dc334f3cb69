"""What `--model`, `--dtype` and `--heads` mean, the same for every command; and which weights a model has."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import click
import jax
from jax.sharding import Mesh
from pydantic import BaseModel

from experiments.run.cache import digest
from experiments.testbed.testbeds import TESTBEDS
from gaze.heads import HeadSet
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import read_json
from qwen3vl_jax.files.write import write_json
from qwen3vl_jax.load import load, model_revision, resolve, weights_digest
from qwen3vl_jax.load.checkpoint import SIDE_FILES
from qwen3vl_jax.load.source import MissingCheckpoint
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

LARGE = 2**30
"""Bytes of a checkpoint from which on its files are read again only if one of them has been written since."""


class ModelFacts(BaseModel, frozen=True, extra="forbid"):
    """What is known of a model without opening it.

    Attributes:
      weights: digest of the weights on disk and of the files beside them.
      stamp: of a large checkpoint, which state of its files that was.
      revision: which weights these are in memory, as `qwen3vl_jax.load.model_revision`.
    """

    weights: str
    stamp: str | None
    revision: str
    layers: int
    heads: int


def open_model(name: str | Path, dtype: str | None, mesh: Mesh | None = None) -> tuple[Qwen3VL, Processor]:
    """A testbed, a folder or a hub name; `dtype` as for `qwen3vl_jax.load.load`."""
    return load(source(name), dtype, mesh)


def source(name: str | Path) -> str | Path:
    """Where a model is: the folder of a testbed, else the name as it is."""
    return TESTBEDS[str(name)].checkpoint if name in TESTBEDS else name


def computed_dtype(dtype: str | None) -> str | None:
    """What `--dtype` comes to on this machine, as `qwen3vl_jax.load.load` has it; None for as stored."""
    return dtype or ("float32" if jax.default_backend() == "cpu" else None)


def model_facts(path: Path, name: str | Path, open_one: Callable[[], Qwen3VL]) -> ModelFacts:
    """What the file `path` knows of a checkpoint if that still is as it was; else the model is opened and it is written.

    A checkpoint that is gone is taken to be the one that was there: its answers can still be summed up.
    """
    known = _read_facts(path)
    try:
        folder = resolve(source(name))
    except MissingCheckpoint:
        if known is None:
            raise
        return known
    stamp = _stamp(folder)
    kept = stamp if _size(folder) >= LARGE else None
    if known is not None and kept is not None and known.stamp == kept:
        return known
    weights = _weights(folder, stamp)
    if known is not None and known.weights == weights and known.stamp == kept:
        return known
    if known is not None and known.weights != weights:
        click.echo(f"{name} is not what it was when {path.parent} was made: what depends on it is made again", err=True)
    model = open_one()
    text = model.config.text
    found = ModelFacts(
        weights=weights,
        stamp=kept,
        revision=model_revision(model),
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
    )
    write_json(path, found.model_dump())
    return found


def load_heads(path: str | Path, top: int | None, shape: tuple[int, int], revision: str, option: str) -> HeadSet:
    """The heads of a file for a model of `shape` (layers, heads per layer); only the first `top` if given.

    Args:
      option: of the command line, that gives `top`.

    Raises InputError for heads that were found in other weights, that the model has not, and for a ranking of most heads
    without `top`, as to steer them all would be to break the model.
    """
    heads = HeadSet.load(path)
    if heads.revision and heads.revision != revision:
        raise InputError(
            f"{path} has heads of {heads.model or 'a model'} with the weights {heads.revision}, but this model's are "
            f"{revision}: give heads that were found in it, or their list alone if you want to try others'"
        )
    count = shape[0] * shape[1]
    if top is None and 2 * len(heads) > count:
        raise InputError(f"{path} ranks {len(heads)} of {count} heads: say with {option} how many of them to use")
    chosen = heads if top is None else heads.top(top)
    chosen.to_mask(*shape)
    return chosen


def _read_facts(path: Path) -> ModelFacts | None:
    if not path.exists():
        return None
    try:
        return read_json(path, "the facts of a model", ModelFacts)
    except InputError as error:
        click.echo(f"{error}; it is made again", err=True)
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stamp(folder: Path) -> str:
    """Changes with every file that is written in the folder."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return digest(
        [(path.relative_to(folder), one.st_size, one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for path, one in files]
    )


@lru_cache(maxsize=16)
def _weights(folder: Path, stamp: str) -> str:
    """Digest of all that a model's answers depend on; `stamp` is when, so that one process reads it once."""
    beside = {name: (folder / name).read_bytes() for name in ("config.json", *SIDE_FILES) if (folder / name).is_file()}
    return digest(weights_digest(folder), beside)
