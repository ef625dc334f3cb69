"""The environment of commands that tests start."""

import os


def with_devices(count: int) -> dict[str, str]:
    """The suite's, with another number of devices than its eight."""
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
    return {**os.environ, "XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": str(count)}
