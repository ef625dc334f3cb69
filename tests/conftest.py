"""Strict settings for the whole suite: shapes checked at run time, no silent promotion, eight virtual devices."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

# Most of the suite is compiling, of programs that run once or twice: with this they are compiled five times as fast. Flags
# that are given win: `.ci/run` has a part of the suite compiled as users have it.
LESS_CARE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):  # later ones do not know the flag, and end where they are given one
    LESS_CARE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{LESS_CARE} {os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one process has compiled, the others of this run read: workers, and commands that tests start.
CACHE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="gaze-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# JAX writes its entries piece by piece: what another process is still writing cannot be read, and is compiled instead.
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning")

import chex  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

MAPS = 30_000
PACKAGES = ["qwen3vl_jax", "gaze", "convert", "experiments"]
install_import_hook(PACKAGES, "beartype.beartype")
import qwen3vl_jax  # noqa: E402, F401 - sets the flags of XLA before any backend starts
from qwen3vl_jax.text import Decoder  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs() -> Iterator[None]:
    """Every compiled program takes some memory maps, of which Linux grants a process 65,530: without a free one, XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > MAPS:
        jax.clear_caches()


@pytest.fixture
def decoder_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`decoder_traces(n)`: from here on, whatever is compiled may contain the decoder n times in all."""

    def limit(most: int) -> None:
        monkeypatch.setattr(Decoder, "__call__", chex.assert_max_traces(plain, most))

    plain = Decoder.__call__
    chex.clear_trace_counter()
    yield limit
    chex.clear_trace_counter()


def pytest_configure() -> None:
    assert len(jax.devices()) == 8, "the suite needs eight virtual devices: is another XLA_FLAGS in the way?"


def pytest_unconfigure() -> None:
    if CACHE is not None:
        shutil.rmtree(CACHE, ignore_errors=True)
