"""Every benchmark on a toy: it runs to its JSON, and it refuses to time two sides that disagree."""

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.bench import compile as compiling
from experiments.bench import convert, decode, discovery, prefill, scaling, steering
from experiments.bench.checkpoint import MEDIUM
from experiments.bench.reference import Answer
from experiments.bench.report import BenchmarkReport, Figure, publish
from experiments.bench.sides import Measurement, Side
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.weights import tensors

SIZE = (384, 64)
TOY: dict[str, Any] = copy.deepcopy(MEDIUM)
TOY["text_config"] |= dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
TOY["text_config"] |= dict(num_key_value_heads=2, head_dim=16, vocab_size=672)
TOY["text_config"]["rope_scaling"]["mrope_section"] = [4, 2, 2]
TOY["vision_config"] |= dict(depth=2, hidden_size=16, intermediate_size=32, num_heads=2, out_hidden_size=32)
TOY["vision_config"] |= dict(deepstack_visual_indexes=[0], num_position_embeddings=36)

MEASURES: dict[str, Callable[[Path], BenchmarkReport]] = {
    "discovery": lambda place: discovery.measure(TOY, 1, 1, SIZE),
    "steering": lambda place: steering.measure(TOY, 1, 1, SIZE),
    "prefill": lambda place: prefill.measure(TOY, 1, [], SIZE),
    "decode": lambda place: decode.measure(TOY, 2, SIZE),
    "compile": lambda place: compiling.measure(TOY, TOY, 1, SIZE),
    "convert": lambda place: convert.measure({"toy": TOY}, 1, place, 2**12),
    "scaling": lambda place: scaling.measure(TOY, TOY, [(1, 1), (2, 2)], SIZE),
}


HURRY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture(autouse=True)
def _cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled with little care; PyTorch on one thread, as threads that wait for each other cost a toy far more than its work."""
    monkeypatch.setenv("XLA_FLAGS", HURRY)
    monkeypatch.setitem(scaling.ENVIRONMENT, "XLA_FLAGS", f"{HURRY} {scaling.ENVIRONMENT['XLA_FLAGS']}")
    monkeypatch.setattr(decode, "ROWS", (2,))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("name", MEASURES)
def test_a_benchmark_runs_to_its_json(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = MEASURES[name](tmp_path)
    assert not list(tmp_path.iterdir()), "what it wrote should be gone"
    publish(report, tmp_path / "report.json")
    assert report.figures[0].says.split()[0] in capsys.readouterr().out
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["benchmark"] == name
    assert set(written["goals"]) <= set(written)
    assert written["machine"]["versions"]["jax"]
    found = [written[figure.name] for figure in report.figures] + list(written["medians"].values())
    assert all(math.isfinite(number) for number in found)
    assert any(isinstance(one, list | dict) and one for one in written["raw"].values())


def test_sides_that_disagree_are_not_timed() -> None:
    mass = np.random.default_rng(0).random((1, 6, 2, 4, 6))
    discovery.check(mass, mass + 5e-5)
    for other in (mass + 5e-4, mass * np.nan):
        with pytest.raises(RuntimeError, match="disagree"):
            discovery.check(mass, other)


def test_answers_that_differ_are_no_benchmark_unless_two_tokens_were_as_likely() -> None:
    answers = [Answer([1, 2, 3], [1.0, 1.0, 1.0]), Answer([4, 5, 6], [1.0, 1e-3, 1.0])]
    assert steering.agreement(answers, [[1, 2, 3], [4, 5, 6]]) == [True, True]
    assert steering.agreement(answers, [[1, 2, 3], [4, 9, 7]]) == [True, False]
    for others in ([[1, 2, 4], [4, 5, 6]], [[1, 2], [4, 5, 6]]):
        with pytest.raises(RuntimeError, match="the two sides say"):
            steering.agreement(answers, others)


def test_steering_changes_answers_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two sides are compared under a mask that matters: with another one on one of them they disagree."""
    unsteered = steering.masks(steering.Kind("", [np.zeros((3, 4), np.float32)] * 3, "all"))
    kinds = steering.kinds(3, 4)
    monkeypatch.setattr(steering, "kinds", lambda layers, heads: {"all_heads": kinds["all_heads"]})
    monkeypatch.setattr(steering, "masks", lambda kind: unsteered)
    with pytest.raises(RuntimeError, match="the two sides say"):
        steering.measure(TOY, 1, 1, SIZE)


def test_operations_of_a_prefill_are_those_of_its_weights() -> None:
    """Each weight of a matrix is used once per row of its tower, beside attention; embeddings are only looked up."""
    config = Config.from_dict(TOY)
    patches, length = 96, 50
    sizes = {name: math.prod(tensor.shape) for name, tensor in tensors(config).items() if len(tensor.shape) > 1}
    text = sum(size for name, size in sizes.items() if ".language_model.layers." in name)
    merged = sum(size for name, size in sizes.items() if "merger" in name)
    vision = sum(size for name, size in sizes.items() if ".visual.blocks." in name or "patch_embed" in name)
    found = prefill.flops(config, patches, length)
    seen = sum(range(1, length + 1))
    assert found["text"] == 2 * length * text + 2 * 32 * 672 + 3 * 4 * seen * 64
    assert found["vision"] == 2 * patches * vision + 2 * patches / 4 * merged + 2 * 4 * patches**2 * 16
    assert found["prefill"] == found["text"] + found["vision"]


def test_growth_is_the_power_of_the_number_of_patches() -> None:
    runs = [Measurement((count, 0), 1.0, 1.0, 500, 500 + count**2, 0) for count in (10, 20, 40)]
    for figure in prefill.growth(runs):
        assert figure.value == pytest.approx(2)
        assert not figure.met


def begin(kind: str) -> Callable[[int], int]:
    if kind == "bad":
        raise InputError("a sentence")

    def work(count: int) -> int:
        if kind == "lost":
            os._exit(3)
        return sum(bytearray(count))

    return work


def test_a_side_tells_memory_and_time_of_its_own() -> None:
    with Side(begin, "good") as side:
        small, large = side(1), side(200_000_000)
    assert small.value == 0
    assert large.peak - large.before > 190_000_000 > 10_000_000 > small.peak - small.before
    assert large.anonymous > 150_000_000
    assert large.seconds >= 0.01


def test_a_side_that_fails_is_told() -> None:
    with Side(begin, "bad") as side, pytest.raises(InputError, match="a sentence"):
        side(1)
    with Side(begin, "lost") as side, pytest.raises(RuntimeError, match="ended with status 3"):
        side(1)


def test_goals() -> None:
    assert Figure("ratio", 6.0, "", least=6).met
    assert not Figure("ratio", 5.9, "", least=6).met
    assert Figure("ratio", 1.0, "", most=1.03).met
    assert not Figure("ratio", math.nan, "", most=1.03).met


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["discovery", "--json", "/nowhere/a.json"], "/nowhere is no folder"),
        (["convert", "--where", "/nowhere"], "/nowhere is no folder"),
        (["prefill", "--runs", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", f"experiments.bench.{arguments[0]}", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
