"""Checkpoints go straight into any mesh: through this package, through Orbax alone, and by several processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax.traverse_util import flatten_dict, unflatten_dict

from convert.convert import to_orbax
from convert.orbax_writer import CHUNK_BYTES, LazyArray, write_orbax
from qwen3vl_jax.load import load_model
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.sharding import fetch, make_mesh, mesh_of, sharding, shardings
from qwen3vl_jax.weights import tensors

PROCESS = """
import sys
import jax
import numpy as np

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))

from qwen3vl_jax.load import load_model
from qwen3vl_jax.sharding import fetch, local_rows, make_mesh, shardings, spread

first = 4 * int(sys.argv[2])
whole = np.arange(16, dtype=np.int32)
for sizes, rows in (((4, 2), slice(first, first + 4)), ((1, 8), slice(0, 8))):
    mesh = make_mesh(*sizes)
    assert local_rows(mesh, 8) == rows, local_rows(mesh, 8)
    np.testing.assert_array_equal(fetch(spread(whole[2 * rows.start : 2 * rows.stop], mesh, 8)), whole)

alone, model = load_model(sys.argv[3]), load_model(sys.argv[3], None, mesh)
for one, other, lies in zip(*map(jax.tree.leaves, (model, alone, shardings(model, mesh))), strict=True):
    assert one.sharding.is_equivalent_to(lies, one.ndim)
    for shard in one.addressable_shards:
        np.testing.assert_array_equal(shard.data, other[shard.index])
"""


@pytest.fixture(scope="module")
def orbax(shared_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "orbax"
    to_orbax(shared_toy, folder)
    return folder


@pytest.mark.parametrize("sizes", [(2, 2), (1, 8)])
def test_both_formats_load_onto_meshes(sizes: tuple[int, int], shared_toy: Path, orbax: Path) -> None:
    mesh = make_mesh(*sizes)
    want = load_model(shared_toy)
    for folder in (shared_toy, orbax):
        model = load_model(folder, None, mesh)
        assert mesh_of(model) == mesh
        for leaf, lies in zip(jax.tree.leaves(model), jax.tree.leaves(shardings(model, mesh)), strict=True):
            assert leaf.sharding.is_equivalent_to(lies, leaf.ndim)
        chex.assert_trees_all_equal(fetch(model), fetch(want))


def test_dtypes_on_meshes(orbax: Path) -> None:
    model = load_model(orbax, jnp.bfloat16, make_mesh(1, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.bfloat16)}


def test_orbax_alone_restores_onto_meshes(orbax: Path) -> None:
    """The ordinary way: abstract arrays that say where they shall lie."""
    mesh = make_mesh(2, 2)
    opened = open_checkpoint(orbax)
    declared = tensors(opened.config)
    abstract = {
        name: jax.ShapeDtypeStruct(t.flax_shape, opened.dtypes[name], sharding=sharding(t.pattern, t.sizes, mesh))
        for name, t in declared.items()
    }
    tree = unflatten_dict(abstract, sep=".")
    with ocp.StandardCheckpointer() as checkpointer:
        restored = flatten_dict(checkpointer.restore(orbax / "params", tree), sep=".")
    assert restored.keys() == abstract.keys()
    for name, array in restored.items():
        assert array.sharding == abstract[name].sharding
        np.testing.assert_array_equal(array, opened.read(declared[name]), err_msg=name)
    assert any(not array.is_fully_replicated for array in restored.values())


@pytest.mark.parametrize("axis", [0, 1])
def test_a_part_is_read_alone(axis: int, tmp_path: Path) -> None:
    """A device of a model axis of 8 reads an eighth of what is stored, whichever axis is split."""
    shape = (1024, 2048) if axis else (2048, 1024)
    array = np.random.default_rng(0).random(shape, np.float32)  # 8 MiB that do not compress
    write_orbax(tmp_path, {"weight": LazyArray(shape, array.dtype, lambda: array, axis)})
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/params/"}, "path": "weight/"}
    opened = tensorstore.open({"driver": "auto", "kvstore": store}, open=True).result()
    for place in (0, 7):
        part = [slice(None)] * 2
        part[axis] = slice(place * 256, (place + 1) * 256)
        before = bytes_read()
        np.testing.assert_array_equal(opened[tuple(part)].read().result(), array[tuple(part)])
        assert array.nbytes / 8 * 0.8 < bytes_read() - before < array.nbytes / 8 * 1.1


def bytes_read() -> int:
    """By tensorstore, from files."""
    found = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(int(value["value"]) for metric in found for value in metric["values"])


@pytest.mark.parametrize(
    ("shape", "axis", "chunk"),
    [
        ((4096, 4096), 1, [4096, 128]),  # of 32 devices each finds a chunk of its own
        ((4096, 1024), 1, [4096, 128]),  # no smaller than a megabyte
        ((128, 2048, 2, 768), 3, [128, 1024, 2, 24]),  # nor larger than sixteen
        ((4096,), None, [4096]),
        ((36864, 4096), None, [2304, 2048]),
        ((7919, 4096), 0, [3960, 2048]),
    ],
)
def test_chunks(shape: tuple[int, ...], axis: int | None, chunk: list[int]) -> None:
    leaf = LazyArray(shape, np.dtype(np.float16), lambda: np.zeros(()), axis)
    assert leaf.chunk == chunk
    assert np.prod(chunk) * 2 <= CHUNK_BYTES


def test_two_processes_hold_one_model(orbax: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    start: Callable[[int], subprocess.Popen[str]] = lambda number: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", PROCESS, str(port), str(number), str(orbax)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    processes = [start(0), start(1)]
    try:
        said = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
