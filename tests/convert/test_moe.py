"""Checkpoints with a mixture of experts: both layouts in, the hub's out, the check, and what it says of ties."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLMoeForConditionalGeneration

from convert import verify as verify_module
from convert.convert import convert
from convert.router_ties import comparable
from convert.verify import ATTENTION, LOGITS, ParityReport, verify
from convert.verify_prompts import Case, PromptSpec
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import load_model
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.moe import MoE
from qwen3vl_jax.weights import Tensor, disassemble

from ..toys import make_toy, moe_config

MIXED = Case("mixed", (PromptSpec(((2, 3),), 24), PromptSpec(((2, 2), (2, 5)), 5)))
Weights = dict[str, torch.Tensor]


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def put(folder: Path, held: Weights) -> Path:
    save_file(
        {name: tensor.contiguous() for name, tensor in held.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def turned(held: Weights) -> Weights:
    return {name: tensor.transpose(1, 2) if ".experts." in name else tensor for name, tensor in held.items()}


def assert_same_bits(first: Weights, second: Weights) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.contiguous().view(torch.uint8), second[name].contiguous().view(torch.uint8)), name


def saved(folder: Path, dtype: torch.dtype = torch.float32, **text: int) -> Path:
    """As transformers 5 writes it: experts [expert, out, in], `num_local_experts`."""
    make_toy(moe_config(text), dtype).reference.save_pretrained(folder)
    assert "num_local_experts" in json.loads((folder / "config.json").read_text())["text_config"]
    return folder


def as_on_the_hub(folder: Path) -> Path:
    """Turns it into what the hub holds: experts [expert, in, out], the older config."""
    raw = json.loads((folder / "config.json").read_text())
    text = raw["text_config"]
    text["num_experts"] = text.pop("num_local_experts")
    rope = text.pop("rope_parameters")
    text |= dict(rope_theta=rope.pop("rope_theta"), rope_scaling=rope, norm_topk_prob=True)
    raw["vision_config"]["model_type"] = "qwen3_vl_moe"
    raw["vision_config"].pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(raw))
    return put(folder, turned(weights(folder)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("moe") / "saved")


@pytest.fixture
def toy(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "toy"))


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    jax.clear_caches()
    yield monkeypatch
    jax.clear_caches()


def there_and_back(src: Path, folder: Path) -> Path:
    convert(src, folder / "orbax")
    convert(folder / "orbax", folder / "hf")
    return folder / "hf"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trips(tmp_path: Path, dtype: torch.dtype) -> None:
    """The hub's files come back bit for bit; what transformers saved comes back as the hub holds it."""
    first = saved(tmp_path / "saved", dtype)
    want = weights(first)
    assert want["model.language_model.layers.0.mlp.experts.gate_up_proj"].shape == (6, 40, 48)
    (tmp_path / "one").mkdir()
    assert_same_bits(turned(want), weights(there_and_back(first, tmp_path / "one")))
    model = Qwen3VLMoeForConditionalGeneration.from_pretrained(tmp_path / "one" / "hf")
    assert_same_bits(want, model.state_dict())
    hub = as_on_the_hub(first)
    (tmp_path / "two").mkdir()
    assert_same_bits(weights(hub), weights(there_and_back(hub, tmp_path / "two")))
    model, info = Qwen3VLMoeForConditionalGeneration.from_pretrained(tmp_path / "two" / "hf", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_bits(want, model.state_dict())
    for folder in (tmp_path / "one" / "hf", tmp_path / "two" / "orbax"):
        for name, array in disassemble(load_model(folder, str(dtype).removeprefix("torch."))).items():
            assert array.tobytes() == weights(hub)[name].contiguous().view(torch.uint8).numpy().tobytes(), name


def test_square_tensors_are_read_and_written_as_transformers_does(tmp_path: Path) -> None:
    toy = saved(tmp_path / "toy", moe_intermediate_size=24)
    want = Qwen3VLMoeForConditionalGeneration.from_pretrained(toy).state_dict()
    back = Qwen3VLMoeForConditionalGeneration.from_pretrained(there_and_back(toy, tmp_path)).state_dict()
    assert_same_bits(want, back)
    # Files of the hub's kind are then read wrongly by both, in the same way.
    assert verify(put(toy, turned(weights(toy))), [MIXED]).passed


def assert_agrees(report: ParityReport) -> None:
    assert report.passed, str(report)
    assert all(run.hidden == 0 for run in report.runs), str(report)
    assert all(run.agree == run.steps or run.near_tie for run in report.runs), str(report)


@pytest.mark.parametrize("layout", [lambda folder: folder, as_on_the_hub])
def test_both_layouts_pass(toy: Path, layout: Callable[[Path], Path]) -> None:
    src = layout(toy)
    assert_agrees(verify(src, [MIXED]))
    convert(src, toy.parent / "orbax")
    assert_agrees(verify(toy.parent / "orbax", [MIXED]))


def without_normalising(monkeypatch: pytest.MonkeyPatch) -> None:
    def route(moe: MoE, x: jax.Array) -> Any:
        return jax.lax.top_k(jax.nn.softmax(moe.gate(x), axis=-1), moe.per_token)

    monkeypatch.setattr(MoE, "route", route)


def with_gate_and_up_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    to_flax = Tensor.to_flax

    def swapped(tensor: Tensor, array: np.ndarray) -> np.ndarray:
        made = to_flax(tensor, array)
        return made[:, :, ::-1] if tensor.name.endswith("gate_up_proj") else made

    monkeypatch.setattr(Tensor, "to_flax", swapped)


def with_square_experts_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    to_flax = Tensor.to_flax

    def wrong(tensor: Tensor, array: np.ndarray) -> np.ndarray:
        return to_flax(tensor, array.swapaxes(1, 2) if tensor.name.endswith("gate_up_proj") else array)

    monkeypatch.setattr(Tensor, "to_flax", wrong)


@pytest.mark.parametrize("damage", [without_normalising, with_gate_and_up_swapped, with_square_experts_turned])
def test_a_wrong_model_fails_by_far(
    tmp_path: Path, damaged: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    toy = saved(tmp_path / "toy", moe_intermediate_size=24)
    damage(damaged)
    report = verify(toy, [MIXED])
    assert not any(run.passed for run in report.runs)
    assert min(run.logits for run in report.runs) > 100 * LOGITS
    assert min(run.attention for run in report.runs) > 100 * ATTENTION
    assert all(run.hidden == 0 for run in report.runs)


def with_twins(folder: Path, apart: float) -> Path:
    """Experts 0 and 1 get nearly the same rows of their router in the third layer, but stay as different as they were."""
    held = weights(folder)
    rows = held["model.language_model.layers.2.mlp.gate.weight"]
    rows[1] = rows[0] * (1 + apart)
    return put(folder, held)


def test_a_tie_in_a_router_is_no_mistake(toy: Path) -> None:
    """Of equal experts torch and JAX take different ones."""
    report = verify(with_twins(toy, 0.0), [MIXED])
    assert report.passed, str(report)
    assert any(run.hidden for run in report.runs)
    assert all(run.logits < LOGITS for run in report.runs)
    assert "tokens not compared, after a tie of two experts" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["runs"][0]["hidden"] == report.runs[0].hidden


def test_a_tie_excuses_no_mistake(toy: Path, damaged: pytest.MonkeyPatch) -> None:
    without_normalising(damaged)
    assert not any(run.passed for run in verify(with_twins(toy, 0.0), [MIXED]).runs)


def test_what_can_be_compared() -> None:
    off = np.array([[0, 0, 0, 0], [0, 2, 0, 2], [0, 2, 2, 0], [np.nan, 0, 0, 0]])
    margin = np.array([[0.0, 9, 9, 9, 9], [9, 0.5, 9, 9, 9], [0.5, 9, 0.5, 9, 9], [9, 9, 9, 9, 0]])
    assert comparable(off, margin, 1.0).tolist() == [4, 1, 4, 4]


def test_the_reference_computes_as_written(shared: Path) -> None:
    """Its default multiplies all experts of a kind at once and rounds differently."""
    reference = verify_module._reference(shared)
    assert type(reference) is Qwen3VLMoeForConditionalGeneration
    assert reference.config._experts_implementation == reference.config._attn_implementation == "eager"


def test_single_experts_are_refused(toy: Path) -> None:
    held = weights(toy)
    name = "model.language_model.layers.0.mlp.experts"
    both = held.pop(f"{name}.gate_up_proj")
    held |= {f"{name}.{number}.gate_proj.weight": both[number, :20].clone() for number in range(6)}
    with pytest.raises(InputError, match=r"holds each expert by itself \(\S+experts\.0\.gate_proj\.weight, \.\.\.\)"):
        open_checkpoint(put(toy, held))


def test_misshapen_experts_are_named(toy: Path) -> None:
    held = weights(toy)
    name = "model.language_model.layers.1.mlp.experts.down_proj"
    held[name] = held[name][:, :-1].clone()
    with pytest.raises(InputError, match=rf"{name} \(\[6, 47, 20\], not \[6, 20, 48\]\)"):
        open_checkpoint(put(toy, held))
