"""TPU chips, and descriptions of many of them that libtpu gives without any."""

import os
from dataclasses import dataclass
from typing import Any

from qwen3vl_jax.errors import InputError


@dataclass(frozen=True)
class Chip:
    """One chip at its best.

    Attributes:
      memory: HBM, in bytes.
      flops: bfloat16 operations per second.
      bandwidth: of HBM, in bytes per second.
      links: bytes per second sent over all its links to other chips together.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    links: float


# Google's pages cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; links are half of "bidirectional ICI bandwidth per chip", where a
# page states it. For v4 it is six links of 50 GB/s (arXiv 2304.01433, section 2).
CHIPS = {
    "TPU v4": Chip("v4", 32e9, 275e12, 1200e9, 300e9),
    "TPU v5 lite": Chip("v5e", 16e9, 197e12, 819e9, 200e9),
    "TPU v5": Chip("v5p", 95e9, 459e12, 2765e9, 600e9),
    "TPU v6 lite": Chip("v6e", 32e9, 918e12, 1638e9, 400e9),
}
"""By JAX's device kind."""


def without_hardware() -> None:
    """Has JAX use the CPU and libtpu look for no TPU; to be called before JAX is imported."""
    os.environ |= dict(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # nothing runs, so nothing needs to be locked
        TPU_ACCELERATOR_TYPE="v5litepod-8",
        TPU_WORKER_HOSTNAMES="localhost",
    )


def topology(name: str) -> tuple[Chip, list[Any]]:
    """The chips of a topology such as v5e:2x4, as devices to compile for.

    Raises InputError if libtpu is not installed or knows no such topology.
    """
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # The two cores of a v4 as one device, which is how JAX runs them; on the other chips that goes without saying.
    cores = dict(chip_config_name="megacore") if name.startswith("v4") else {}
    try:
        devices: list[Any] = topologies.get_topology_desc(platform="tpu", topology_name=name, **cores).devices
    except JaxRuntimeError as error:
        raise InputError(
            f"there is no topology {name} ({reason(error)}): give one such as v5e:2x4 or v5p:2x2x2"
        ) from error
    except RuntimeError as error:
        raise InputError("compiling for TPUs needs libtpu: pip install 'gaze-jax[tpu-plan]'") from error
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise InputError(f"{name} has {kind} chips, of which no figures are known: choose one of {', '.join(CHIPS)}")
    return CHIPS[kind], devices


def reason(error: Exception) -> str:
    """What libtpu complains of, without the kind of error before it."""
    return str(error).splitlines()[0].partition(": ")[2].rstrip(".")
