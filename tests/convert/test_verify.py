"""Parity with transformers over the grid of shapes, and proof that the check notices what it should."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from convert.convert import to_orbax
from convert.verify import ATTENTION, LOGITS, Comparison, ParityReport, _first_difference, verify
from convert.verify_prompts import CASES, Case, PromptSpec
from gaze.testbed import CHECKPOINT
from qwen3vl_jax import attention, rope, vision

NewToy = Callable[..., Path]

# One, two and three images of different sizes, a video, and left padding, in a single program.
MIXED = Case(
    "mixed",
    (PromptSpec(((2, 3),), 24), PromptSpec(((2, 2), (3, 2, 2), (2, 5)), 5), PromptSpec(((2, 3), (4, 2), (3, 3)), 7)),
)
VIDEO = Case("video", (PromptSpec(((4, 2, 3),), 9),))


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For breaking the model; nothing that is compiled before or meanwhile is used."""
    jax.clear_caches()
    yield monkeypatch
    jax.clear_caches()


def assert_agrees(report: ParityReport) -> None:
    assert report.passed, str(report)
    assert {run.masked for run in report.runs} == {False, True}
    assert all(run.agree == run.steps == 20 or run.near_tie for run in report.runs), str(report)


@pytest.mark.parametrize("kv", [4, 2, 1])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", [12, 16])
def test_grid(new_toy: NewToy, kv: int, tied: bool, head: int) -> None:
    """Query width is 4 heads x 12 = the hidden size, or 4 x 16."""
    rope = dict(mrope_section=[2, 2, 2]) if head == 12 else None
    toy = new_toy(text=dict(num_key_value_heads=kv, head_dim=head), rope=rope, tied=tied)
    assert_agrees(verify(toy, [MIXED]))


@pytest.mark.parametrize(
    "odd",
    [
        dict(vision=dict(deepstack_visual_indexes=[0, 2])),
        dict(vision=dict(deepstack_visual_indexes=[])),
        dict(text=dict(num_hidden_layers=5), rope=dict(mrope_section=[2, 3, 3])),
        dict(text=dict(attention_bias=True), rope=dict(rope_theta=10000)),
        dict(
            vision=dict(patch_size=14, num_heads=4, num_position_embeddings=49, depth=3), text=dict(hidden_act="gelu")
        ),
    ],
    ids=str,
)
def test_odd_shapes(new_toy: NewToy, odd: dict[str, Any]) -> None:
    assert_agrees(verify(new_toy(**odd), [MIXED]))


def test_built_in_prompts_on_a_converted_checkpoint(new_toy: NewToy, tmp_path: Path) -> None:
    to_orbax(new_toy(tied=False), tmp_path / "orbax")
    report = verify(tmp_path / "orbax")
    assert_agrees(report)
    assert [run.prompt for run in report.runs[::2]] == [case.name for case in CASES]
    assert str(report).endswith("PASS (tolerance: logits 1e-04, attention 1e-05)")


def test_the_shipped_checkpoint() -> None:
    assert verify(CHECKPOINT).passed


def without_deepstack(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = vision.VisionTower.__call__

    def zeroed(self: vision.VisionTower, images: Any) -> vision.Vision:
        made = encode(self, images)
        return made.replace(deepstack=jnp.zeros_like(made.deepstack))

    monkeypatch.setattr(vision.VisionTower, "__call__", zeroed)


def with_tanh_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = jax.nn.gelu
    monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))


def with_chunked_rope(monkeypatch: pytest.MonkeyPatch) -> None:
    chunked = lambda config: np.repeat(np.arange(3, dtype=np.int32), config.mrope_section)  # noqa: E731
    monkeypatch.setattr(rope, "frequency_axes", chunked)


def with_image_rows_and_columns_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = rope.vision_angles
    monkeypatch.setattr(rope, "vision_angles", lambda row_col, config: angles(row_col[..., ::-1], config))


@pytest.fixture(scope="module")
def telling_toy(shared_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy whose mergers work around -2.2, where the two GELUs differ by a percent, and louder to make up for it."""
    toy = Path(shutil.copytree(shared_toy, tmp_path_factory.mktemp("telling") / "toy"))
    stored = load_file(toy / "model.safetensors")
    for name in (name for name in stored if "merger" in name):
        if "fc1.bias" in name:
            stored[name] = stored[name] * 0.2 - 2.2
        stored[name] *= 0.1 if "fc1.weight" in name else 20 if "fc2.weight" in name else 1
    save_file(stored, toy / "model.safetensors", metadata={"format": "pt"})
    return toy


def test_a_right_model_passes_where_a_wrong_one_shall_not(telling_toy: Path) -> None:
    assert_agrees(verify(telling_toy, [MIXED]))


@pytest.mark.parametrize(
    "damage", [without_deepstack, with_tanh_gelu, with_chunked_rope, with_image_rows_and_columns_swapped]
)
def test_a_wrong_model_fails_by_far(
    telling_toy: Path, damaged: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    damage(damaged)
    report = verify(telling_toy, [MIXED])
    assert not report.passed
    assert not any(run.passed for run in report.runs)
    assert min(run.logits for run in report.runs) > 100 * LOGITS
    assert min(run.attention for run in report.runs) > 100 * ATTENTION
    assert str(report).count("  FAIL") == len(report.runs)


def with_slices_of_time_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    embed = vision.PatchEmbed.__call__

    def swapped(self: vision.PatchEmbed, patches: Any) -> Any:
        pixels = patches.reshape(*patches.shape[:2], 3, 2, -1)
        return embed(self, pixels[:, :, :, ::-1].reshape(patches.shape))

    monkeypatch.setattr(vision.PatchEmbed, "__call__", swapped)


def with_frames_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = vision.VisionAttention.__call__

    def merged(self: vision.VisionAttention, x: Any, angles: Any, valid: Any) -> Any:
        flat = lambda array: array.reshape(1, -1, *array.shape[2:])  # noqa: E731
        return attend(self, *jax.tree.map(flat, (x, angles, valid))).reshape(x.shape)

    monkeypatch.setattr(vision.VisionAttention, "__call__", merged)


@pytest.mark.parametrize("damage", [with_slices_of_time_swapped, with_frames_that_see_each_other])
def test_mistakes_that_only_videos_show(
    telling_toy: Path, damaged: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    damage(damaged)
    image, _, *video = verify(telling_toy, [CASES[0], VIDEO]).runs
    assert image.passed
    assert min(run.logits for run in video) > 100 * LOGITS


def test_a_mask_on_the_wrong_heads_fails_by_far(telling_toy: Path, damaged: pytest.MonkeyPatch) -> None:
    edit = attention._edit
    damaged.setattr(attention, "_edit", lambda scores, *rest: edit(scores[:, ::-1], *rest)[:, ::-1])
    plain, masked = verify(telling_toy, [MIXED]).runs
    assert plain.passed
    assert not masked.passed
    assert masked.logits > 100 * LOGITS
    assert masked.attention > 100 * ATTENTION


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_fail(number: float) -> None:
    assert Comparison("", False, 0.0, 0.0, layer=0, head=0, agree=20, steps=20, tie=None).passed
    assert not Comparison("", False, number, 0.0, layer=0, head=0, agree=20, steps=20, tie=None).passed
    assert not Comparison("", False, 0.0, number, layer=0, head=0, agree=20, steps=20, tie=None).passed
    assert not Comparison("", False, 0.0, 0.0, layer=0, head=0, agree=3, steps=20, tie=number).passed


def test_first_difference_of_greedy_tokens() -> None:
    ours = np.array([[1, 2, 3, 4], [1, 2, 3, 4]], np.int32)
    theirs = np.array([[1, 2, 9, 9], [1, 9, 9, 9]])
    gaps = np.array([[5, 5, 0.25, 0.1], [5, 0.5, 5, 5]])
    assert _first_difference(ours, ours.astype(np.int64), gaps) == (4, None)
    assert _first_difference(ours, theirs, gaps) == (1, 0.5)
    assert _first_difference(ours[:1], theirs[:1], gaps[:1]) == (2, 0.25)
