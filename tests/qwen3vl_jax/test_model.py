"""The model against transformers: logits and attention over a grid of shapes, bfloat16, and mistakes that must show."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jaxtyping import Array
from transformers.activations import ACT2FN
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

from qwen3vl_jax import rope
from qwen3vl_jax.edits import Edits
from qwen3vl_jax.layers import ACTIVATIONS
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision
from qwen3vl_jax.weights import disassemble, tensors

from ..toys import ROPE, Row, Toy, batch_rows, encode, last_row, make_row, make_toy, raw_config, read

LOGITS, ATTENTION = 1e-4, 1e-5
A, B, C = (4, 6), (6, 4), (2, 8)
GRIDS = [[], [A], [C, B], [B, A, C]]
WIDTHS = {
    "q wider than hidden": (dict(head_dim=16), {}),
    "q as wide as hidden": (dict(head_dim=12), dict(mrope_section=[2, 2, 2])),
}


def run(model: Qwen3VL, rows: Sequence[Row]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits [token, vocab] and last-token attention [layer, heads, token] of every row, from one padded batch."""
    images, prompt = batch_rows(rows, model.config)
    length = prompt.tokens.shape[1]
    vision = None if images is None else encode(model, images)
    logits, output = read(model, prompt, vision, None, last_row(length))
    mass = np.asarray(output.readings.mass[:, :, 0])
    pads = [length - len(row.tokens) for row in rows]
    assert not any(mass[:, i, :, :pad].any() for i, pad in enumerate(pads)), "padding is attended to"
    return [(np.asarray(logits[i, pad:]), mass[:, i, :, pad:]) for i, pad in enumerate(pads)]


def expect(toy: Toy, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """The same of one row from transformers."""
    with torch.no_grad():
        output = toy.reference(**row.reference(), output_attentions=True)
    attention = np.stack([layer[0, :, -1].float().numpy() for layer in output.attentions])
    return output.logits[0].float().numpy(), attention


def check(toy: Toy, rows: Sequence[Row]) -> None:
    for row, (logits, attention) in zip(rows, run(toy.model, rows), strict=True):
        want_logits, want_attention = expect(toy, row)
        np.testing.assert_allclose(logits, want_logits, atol=LOGITS, rtol=0)
        np.testing.assert_allclose(attention, want_attention, atol=ATTENTION, rtol=0)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kv", [4, 2, 1])
def test_equals_transformers(kv: int, width: str, tied: bool) -> None:
    text, section = WIDTHS[width]
    toy = make_toy(raw_config(text | dict(num_key_value_heads=kv), section, tied=tied))
    check(toy, [make_row(grids, seed=seed) for seed, grids in enumerate(GRIDS)])


def test_single_rows_without_padding(toy: Toy, row: Row) -> None:
    check(toy, [row])
    check(toy, [make_row([], words=9)])  # no picture at all, so no vision tokens either


def test_long_prompt(toy: Toy) -> None:
    row = make_row([(16, 16), (2, 40), (20, 10)], words=200)
    assert len(row.tokens) > 500
    check(toy, [row])


ODD = {
    "more layers than taps, taps out of order, odd sections, biases": raw_config(
        dict(num_hidden_layers=5, attention_bias=True),
        dict(mrope_section=[1, 4, 3]),
        dict(deepstack_visual_indexes=[2, 0]),
    ),
    "no taps, wide vision heads, other theta, eps and activations": raw_config(
        dict(rms_norm_eps=1e-2, hidden_act="gelu"),
        dict(mrope_section=[6, 1, 1], rope_theta=100.0),
        dict(
            hidden_size=48,
            deepstack_visual_indexes=[],
            hidden_act="silu",
            rope_parameters=dict(rope_type="axial", rope_theta=50.0),
        ),
    ),
    "more taps than layers, one after the last block and one beyond it": raw_config(
        dict(num_hidden_layers=2),
        dict(mrope_section=[0, 4, 4]),
        dict(deepstack_visual_indexes=[3, 9, 0, 1], num_position_embeddings=4, patch_size=16),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes(name: str) -> None:
    toy = make_toy(ODD[name])
    pixels = toy.config.vision.patch_size**2 * 6
    check(toy, [make_row([B, A, C], pixels=pixels), make_row([A], seed=1, pixels=pixels)])


def test_tensors_are_those_of_transformers(toy: Toy) -> None:
    state = toy.reference.state_dict()
    assert set(state) - set(tensors(toy.config)) == {"lm_head.weight"}
    for name, array in disassemble(toy.model).items():
        np.testing.assert_array_equal(array, state[name].numpy(), err_msg=name)


def far_down(reference: Any) -> None:
    for merger in (reference.model.visual.merger, *reference.model.visual.deepstack_merger_list):
        merger.linear_fc1.weight.mul_(0.1)
        merger.linear_fc1.bias.fill_(-2.5)
        merger.linear_fc2.weight.mul_(30)
    reference.model.language_model.norm.weight.mul_(0.25)


@pytest.fixture(scope="module")
def loud() -> Toy:
    """A toy whose mergers work where the two forms of GELU differ by some percent; elsewhere they are near enough.

    There torch rounds coarsely too, so smaller logits keep the correct model well within its tolerance.
    """
    return make_toy(raw_config(), adjust=far_down)


class TestMistakes:
    """Each known way to get this model wrong misses by a hundred tolerances, so the tests above would see it."""

    def miss(
        self, toy: Toy, row: Row, vision: Vision, positions: np.ndarray | None = None, fresh: bool = False
    ) -> float:
        _, prompt = batch_rows([row], toy.config)
        if positions is not None:
            prompt = prompt.replace(positions=positions)
        program = jax.jit(lambda *given: read.__wrapped__(*given)) if fresh else read
        logits, _ = program(toy.model, prompt, vision)
        return float(np.abs(np.asarray(logits[0]) - expect(toy, row)[0]).max())

    def test_none(self, loud: Toy, row: Row) -> None:
        images, _ = batch_rows([row], loud.config)
        assert self.miss(loud, row, encode(loud.model, images)) < LOGITS

    def test_no_deepstack(self, loud: Toy, row: Row) -> None:
        vision = encode(loud.model, batch_rows([row], loud.config)[0])
        assert self.miss(loud, row, vision.replace(deepstack=jnp.zeros_like(vision.deepstack))) > 100 * LOGITS
        swapped = vision.replace(deepstack=vision.deepstack[::-1])
        assert self.miss(loud, row, swapped) > 100 * LOGITS

    def test_tanh_in_the_mergers(self, loud: Toy, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        images, _ = batch_rows([row], loud.config)
        exact = jax.nn.gelu
        monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
        vision = jax.jit(lambda model, images: model.encode(images))(loud.model, images)
        assert self.miss(loud, row, vision) > 100 * LOGITS

    def test_sections_instead_of_interleaving(self, loud: Toy, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        vision = encode(loud.model, batch_rows([row], loud.config)[0])
        chunks = np.repeat(np.arange(3), ROPE["mrope_section"])
        assert sorted(chunks) == sorted(rope.frequency_axes(loud.config.text))
        monkeypatch.setattr(rope, "frequency_axes", lambda config: chunks)
        assert self.miss(loud, row, vision, fresh=True) > 100 * LOGITS

    def test_rows_for_columns(self, loud: Toy, row: Row) -> None:
        images, prompt = batch_rows([row], loud.config)
        vision = encode(loud.model, images)
        assert self.miss(loud, row, vision, prompt.positions[..., [0, 2, 1]]) > 100 * LOGITS
        turned = images.replace(row_col=images.row_col[..., ::-1])
        assert self.miss(loud, row, encode(loud.model, turned)) > 100 * LOGITS
        side = round(loud.config.vision.num_position_embeddings**0.5)
        turned = images.replace(pos_index=images.pos_index % side * side + images.pos_index // side)
        assert self.miss(loud, row, encode(loud.model, turned)) > 100 * LOGITS


def equations(jaxpr: jax.extend.core.Jaxpr) -> list[jax.extend.core.JaxprEqn]:
    """All equations, those of inner programs too."""
    found = []
    for equation in jaxpr.eqns:
        found += [
            equation,
            *(inside for inner in jax.extend.core.jaxprs_in_params(equation.params) for inside in equations(inner)),
        ]
    return found


def test_layers_are_one_scanned_block(row: Row) -> None:
    sizes = []
    for layers in (3, 7):
        shape = make_toy(raw_config(dict(num_hidden_layers=layers))).model
        images, prompt = batch_rows([row], shape.config)

        def prefill(model, images=images, prompt=prompt):
            edits = Edits(residual=jnp.zeros((1, 1, 1, 48)))
            return read(model, prompt, model.encode(images), edits, last_row(prompt.tokens.shape[1]))

        program = equations(jax.make_jaxpr(prefill)(shape).jaxpr)
        assert layers in [equation.params["length"] for equation in program if equation.primitive.name == "scan"]
        sizes.append(len(program))
    assert sizes[0] == sizes[1] > 100


@pytest.fixture(scope="module")
def small() -> Toy:
    return make_toy(raw_config(), torch.bfloat16)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [make_row(grids, words=12, seed=seed) for seed, grids in enumerate(GRIDS)]


class TestBfloat16:
    """Rounding differs from torch's here and there, so distributions are compared, not bits."""

    def test_stays_bfloat16(self, small: Toy, rows: list[Row]) -> None:
        images, prompt = batch_rows(rows, small.config)
        vision = encode(small.model, images)
        taps = last_row(prompt.tokens.shape[1]).replace(residual=True)
        logits, output = read(small.model, prompt, vision, None, taps)
        cache, residual = output.cache, output.readings.residual
        arrays = jax.tree.leaves((small.model, vision, logits, output.hidden, cache.keys, cache.values, residual))
        assert {array.dtype for array in arrays} == {jnp.dtype(jnp.bfloat16)}
        assert output.readings.mass.dtype == jnp.float32

    def test_close_to_transformers(self, small: Toy, rows: list[Row]) -> None:
        divergences, agree = [], []
        for row, (logits, _) in zip(rows, run(small.model, rows), strict=True):
            ours, theirs = (jax.nn.log_softmax(jnp.asarray(x, jnp.float32)) for x in (logits, expect(small, row)[0]))
            divergences.append(jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1))
            agree.append(jnp.argmax(ours, axis=-1) == jnp.argmax(theirs, axis=-1))
        assert np.concatenate(divergences).mean() < 1e-2
        assert np.concatenate(agree).mean() > 0.9

    def test_a_little_attention_is_lost(self, small: Toy, rows: list[Row]) -> None:
        for row, (_, attention) in zip(rows, run(small.model, rows), strict=True):
            np.testing.assert_allclose(attention, expect(small, row)[1], atol=0.05, rtol=0)

    def test_rounds_where_transformers_rounds(self, small: Toy) -> None:
        """The norm before its scale, the rotation after every product; rounding elsewhere changes a quarter of all elements."""
        rng = np.random.default_rng(0)
        x, cos, sin = (rng.normal(size=(1, 64, *rest)).astype(np.float32) for rest in ((4, 16), (16,), (16,)))
        norm = small.model.model.language_model.layers.self_attn.q_norm
        first = jax.tree.map(lambda weight: weight[0], norm)
        theirs = small.reference.model.language_model.layers[0].self_attn.q_norm
        narrow = [torch.tensor(array).bfloat16() for array in (x, cos, sin)]
        with torch.no_grad():
            self.nearly_all_equal(first(jnp.asarray(x, jnp.bfloat16)), theirs(narrow[0]))
            rotated, _ = apply_rotary_pos_emb(narrow[0], narrow[0], *narrow[1:], unsqueeze_dim=2)
        given = [jnp.asarray(array, jnp.bfloat16) for array in (x, cos, sin)]
        self.nearly_all_equal(rope.rotate(*given), rotated)

    def nearly_all_equal(self, ours: Array, theirs: torch.Tensor) -> None:
        assert ours.dtype == jnp.bfloat16
        assert (np.asarray(ours, np.float32) == theirs.float().numpy()).mean() > 0.995


def test_activations_cover_transformers_names() -> None:
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    for name, function in ACTIVATIONS.items():
        np.testing.assert_allclose(function(jnp.asarray(x)), ACT2FN[name](torch.tensor(x)), atol=1e-6, rtol=1e-6)
