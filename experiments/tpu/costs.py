"""What one chip does in a compiled program: operations, bytes to and from its memory, bytes to other chips.

XLA's own analysis counts the body of a loop once. Here a body is counted as often as the loop runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jax
from jaxlib import _hlo, _jax  # type: ignore[attr-defined]  # a part of a program is analysed under no public name

from experiments.tpu.hlo import Instruction, parse
from experiments.tpu.traffic import Number, over_links, through_memory


@dataclass(frozen=True)
class Cost:
    """Of one chip.

    Attributes:
      flops: floating-point operations.
      memory: bytes between HBM and the chip's fast memory.
      links: bytes sent to other chips.
    """

    flops: Number = 0
    memory: Number = 0
    links: Number = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.memory + other.memory, self.links + other.links)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.flops * times, self.memory * times, self.links * times)


def cost(text: str, open_ended: int = 1, taken: Mapping[int, int] | None = None) -> Cost:
    """The cost of a program, from the text of its compiled form.

    Args:
      open_ended: how often loops run whose end depends on data.
      taken: of so many branches, the number of the one that is taken.
    """
    program = parse(text)

    @cache
    def once(name: str) -> Number:
        module = _hlo.hlo_module_from_text(program.beginning_with(name))
        analysis = _jax.hlo_module_cost_analysis(jax.devices("cpu")[0].client, module)
        return float(analysis["flops"]) if "flops" in analysis else 0.0

    @cache
    def beyond(name: str) -> Cost:
        """All memory and links; of the operations those that XLA's analysis of the computation leaves out."""
        total = Cost()
        for one in program.computations[name].values():
            inside = [beyond(called) for called in one.called]
            if one.opcode == "while":
                rounds = program.trips(one, open_ended)
                total += inside[0] * rounds + Cost(flops=once(one.called[0]) * (rounds - 1))
            elif one.opcode == "fusion":
                total += Cost(flops=inside[0].flops, links=inside[0].links)
            elif one.opcode == "conditional":
                branch = (taken or {}).get(len(inside), 0)
                # XLA's analysis takes the dearest.
                total += inside[branch] + Cost(flops=once(one.called[branch]) - max(map(once, one.called)))
            elif inside:
                total += inside[0]
            total += Cost(_kernel(one), through_memory(one, name, program), over_links(one, program))
        return total

    return Cost(flops=once(program.entry)) + beyond(program.entry)


def _kernel(one: Instruction) -> Number:
    """Operations of a kernel that is no HLO, as its author states them; the product of rows with experts is one."""
    return float(stated[1]) if (stated := re.search(r'"cost_estimate":\{"flops":"(\d+)"', one.rest)) else 0.0
