"""Strict settings for the whole suite: shapes checked at run time, no silent promotion, eight virtual devices."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

PACKAGES = ["qwen3vl_jax", "gaze", "convert", "experiments"]
install_import_hook(PACKAGES, "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure() -> None:
    assert len(jax.devices()) == 8, "the suite needs eight virtual devices: is another XLA_FLAGS in the way?"
