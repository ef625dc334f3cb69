"""Flags of XLA that right results depend on; set before a backend starts, by whoever imports the package.

On CPUs, XLA's `__ynn_fusion` may read memory that nothing wrote where a product with zeros made inside a program joins a
softmax: in some compilations the result is NaN. Without the fusion it never happened, and long prompts are read faster.
"""

import os
import sys
import warnings
from importlib.metadata import version

YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type"
KNOWN_TO = (0, 13)
"""Versions of jaxlib below this know the flag; XLA ends the process over one that it does not know."""


def disable_ynn_fusion() -> None:
    """Turns the fusion off for backends that start from now on; warns if one was started with it.

    A value that the user has given himself is left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN_FUSION in flags or tuple(map(int, version("jaxlib").split(".")[:2])) >= KNOWN_TO:
        return
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        warnings.warn(
            "JAX was started before qwen3vl_jax was imported, with a fusion of XLA for CPUs that can give NaN: import "
            f"qwen3vl_jax first, or set XLA_FLAGS={YNN_FUSION}=",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} {YNN_FUSION}=".strip()
