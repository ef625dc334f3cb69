"""Strict settings for the whole suite: shapes checked at run time, no silent promotion, eight virtual devices."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one process has compiled, the others of this run read: workers, and commands that tests start.
CACHE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="gaze-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

MAPS = 15_000
PACKAGES = ["qwen3vl_jax", "gaze", "convert", "experiments"]
install_import_hook(PACKAGES, "beartype.beartype")
import qwen3vl_jax  # noqa: E402, F401 - sets the flags of XLA before any backend starts

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs() -> Iterator[None]:
    """Every compiled program takes some memory maps, of which Linux grants a process 65,530: without a free one, XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > MAPS:
        jax.clear_caches()


def pytest_configure() -> None:
    assert len(jax.devices()) == 8, "the suite needs eight virtual devices: is another XLA_FLAGS in the way?"


def pytest_unconfigure() -> None:
    if CACHE is not None:
        shutil.rmtree(CACHE, ignore_errors=True)
