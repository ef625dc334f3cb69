"""Compiles a program for a topology and says what it needs there, and how fast it can be at best."""

import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jaxtyping import PyTree

from experiments.released_shapes import config
from experiments.tpu.chips import Chip, reason
from experiments.tpu.costs import Cost, cost
from experiments.tpu.programs import TAKEN, Program, abstract_model
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.sharding import make_mesh

ROOM = 0.6
"""The share of a chip's memory that weights may fill, where the mesh is chosen here."""


@dataclass(frozen=True)
class MeshLayout:
    """A model on a mesh of `data` x `model` chips; `strips` on each part of the data axis."""

    size: str
    topology: str
    strips: int
    data: int = 1
    model: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes on one chip, as the compiler lays them out; `arguments` are weights and inputs."""

    arguments: int
    temporaries: int
    output: int
    program: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.output + self.program


@dataclass(frozen=True)
class ProgramPlan:
    """One program on one topology.

    Attributes:
      weights: bytes of them on one chip.
      trouble: why the program does not fit, None if it does; what follows is not known if the compiler gave up.
      seconds: what its operations, its memory traffic and its links would need by themselves, for all strips.
      compiling: how long that took, in seconds.
    """

    layout: MeshLayout
    program: str
    chip: Chip
    weights: int
    trouble: str | None
    memory: Memory | None = None
    cost: Cost | None = None
    seconds: dict[str, float] | None = None
    compiling: float | None = None

    @property
    def strips_per_second(self) -> float | None:
        """What no run can exceed."""
        layout = self.layout
        return None if self.seconds is None else layout.data * layout.strips / max(self.seconds.values())


def default_mesh(size: str, chip: Chip, devices: list[Any]) -> dict[str, int]:
    """No more chips on the model axis than the weights need, as the data axis costs no exchange."""
    count = len(devices)
    for model in (2**power for power in range(count.bit_length())):
        if count % model == 0 and _weights(_abstract(size, count // model, model, devices)) <= ROOM * chip.memory:
            return dict(data=count // model, model=model)
    return dict(data=1, model=count)


def plan(layout: MeshLayout, program: Program, chip: Chip, devices: list[Any]) -> ProgramPlan:
    """Compiles a program; raises InputError if the mesh does not have as many chips as the topology."""
    if layout.data * layout.model != len(devices):
        raise InputError(
            f"a mesh of data={layout.data}, model={layout.model} does not fit {layout.topology}, which has "
            f"{len(devices)} chips: their product must be that"
        )
    model = _abstract(layout.size, layout.data, layout.model, devices)
    found = ProgramPlan(layout, program.name, chip, _weights(model), trouble=None)
    if found.weights > chip.memory:
        return replace(found, trouble=f"the weights alone need {_gb(found.weights)} of {_gb(chip.memory)} a chip")
    start = time.perf_counter()
    try:
        mesh = jax.tree.leaves(model)[0].sharding.mesh
        compiled = program.lower(model, mesh, layout.strips * layout.data).compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return replace(found, trouble=f"the compiler says: {reason(error)}")
    found = replace(found, memory=_memory(compiled), compiling=time.perf_counter() - start)
    return _timed(found, cost(compiled.as_text() or "", program.passes, TAKEN))


def _timed(plan: ProgramPlan, spent: Cost) -> ProgramPlan:
    chip, memory = plan.chip, plan.memory
    assert memory is not None  # it has been compiled
    seconds = dict(
        operations=spent.flops / chip.flops, memory=spent.memory / chip.bandwidth, links=spent.links / chip.links
    )
    fits = memory.total <= chip.memory
    trouble = None if fits else f"it needs {_gb(memory.total)} of {_gb(chip.memory)} a chip"
    return replace(plan, trouble=trouble, cost=spent, seconds=seconds)


def _abstract(size: str, data: int, model: int, devices: list[Any]) -> PyTree:
    return abstract_model(config(size), make_mesh(data, model, devices))


def _weights(model: PyTree) -> int:
    leaves = jax.tree.leaves(model)
    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves)


def _memory(compiled: jax.stages.Compiled) -> Memory:
    found = compiled.memory_analysis()
    assert found is not None  # TPUs have one
    return Memory(
        found.argument_size_in_bytes,
        found.temp_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
