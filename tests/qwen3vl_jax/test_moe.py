"""The mixture of experts: against transformers, against every expert for every token, on meshes; its tensors and config."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jaxtyping import Array
from transformers import Qwen3VLMoeConfig

from qwen3vl_jax.config import MOE, Config, ExpertsConfig
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.grouped_matmul import TILE, grouped_matmul
from qwen3vl_jax.moe import MoE
from qwen3vl_jax.sharding import make_mesh, shardings
from qwen3vl_jax.weights import Tensor, assemble, tensors

from ..toys import EXPERTS, ROPE, TEXT, Row, Toy, batch_rows, encode, last_row, make_row, make_toy, moe_config, read

LOGITS, ATTENTION = 1e-4, 1e-5


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy(moe_config())


@pytest.fixture(scope="module")
def block(toy: Toy) -> MoE:
    """That of the first layer."""
    return jax.tree.map(lambda weight: weight[0], toy.model.model.language_model.layers.mlp)


@pytest.fixture(scope="module")
def x() -> Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 48)), jnp.float32)


def misses(toy: Toy, row: Row, program: Callable[..., Any] = read) -> tuple[float, float]:
    """Largest differences to transformers in logits and in the last token's attention."""
    images, prompt = batch_rows([row], toy.config)
    logits, output = program(toy.model, prompt, encode(toy.model, images), None, last_row(len(row.tokens)))
    with torch.no_grad():
        theirs = toy.reference(**row.reference(), output_attentions=True)
    attention = np.stack([layer[0, :, -1].numpy() for layer in theirs.attentions])
    pairs = ((logits[0], theirs.logits[0].numpy()), (output.readings.mass[:, 0, 0], attention))
    off, off_attention = (float(np.abs(np.asarray(ours) - want).max()) for ours, want in pairs)
    return off, off_attention


@pytest.mark.parametrize(
    "text",
    [
        {},
        dict(num_experts_per_tok=1, tie_word_embeddings=True),
        dict(num_experts_per_tok=6, hidden_act="gelu"),
        dict(num_experts=17, num_experts_per_tok=4, moe_intermediate_size=3),
    ],
    ids=str,
)
def test_equals_transformers(text: dict[str, Any]) -> None:
    toy = make_toy(moe_config(text, tied="tie_word_embeddings" in text))
    for seed, shown in enumerate([[(4, 6), (6, 4)], [(2, 8)]]):
        off, off_attention = misses(toy, make_row(shown, seed=seed))
        assert off < LOGITS
        assert off_attention < ATTENTION


def test_padding_changes_nothing(toy: Toy) -> None:
    rows = [make_row([(4, 6)], words=9), make_row([(2, 8)], seed=1)]

    def words(rows: list[Row]) -> Array:
        return read(toy.model, batch_rows(rows, toy.config)[1].replace(image_cell=None), None)[0]

    alone = [words([row])[0] for row in rows]
    logits = words(rows)
    for row, ours, want in zip(rows, logits, alone, strict=True):
        np.testing.assert_allclose(ours[-len(row.tokens) :], want, atol=LOGITS)


class TestMistakes:
    """Each misses by a hundred tolerances."""

    def miss(self, toy: Toy) -> float:
        fresh = jax.jit(lambda *given: read.__wrapped__(*given))
        return misses(toy, make_row([(4, 6), (6, 4)]), fresh)[0]

    def changed(self, toy: Toy, **ways: Callable[[Array], Array]) -> Toy:
        """Some tensors of all layers passed through a function, after the layer axis."""
        model = jax.tree.map(lambda leaf: leaf, toy.model)
        for name, way in ways.items():
            weight = getattr(model.model.language_model.layers.mlp.experts, name)
            weight[...] = jax.vmap(way)(weight[...])
        return toy._replace(model=model)

    def test_none(self, toy: Toy) -> None:
        assert self.miss(self.changed(toy)) < LOGITS

    def test_shares_that_do_not_sum_to_one(self, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
        def route(moe: MoE, x: Array) -> Any:
            return jax.lax.top_k(jax.nn.softmax(moe.gate(x), axis=-1), moe.per_token)

        monkeypatch.setattr(MoE, "route", route)
        assert self.miss(toy) > 100 * LOGITS

    def test_gate_and_up_swapped(self, toy: Toy) -> None:
        assert self.miss(self.changed(toy, gate_up_proj=lambda weight: weight[:, :, ::-1])) > 100 * LOGITS

    def test_experts_turned(self) -> None:
        """They are square here, so that nothing but the numbers tells."""
        toy = make_toy(moe_config(dict(moe_intermediate_size=48)))
        assert self.miss(self.changed(toy, down_proj=lambda weight: weight.swapaxes(1, 2))) > 100 * LOGITS


def everywhere(block: MoE, x: Array) -> Array:
    """Every expert for every token, those that are not chosen times 0."""
    shares, chosen = block.route(x)
    gate, up = jnp.moveaxis(jnp.einsum("...d,edtm->...etm", x, block.experts.gate_up_proj[...]), -2, 0)
    out = jnp.einsum("...em,emd->...ed", jax.nn.silu(gate) * up, block.experts.down_proj[...])
    return jnp.einsum("...ed,...k,...ke->...d", out, shares, jax.nn.one_hot(chosen, out.shape[-2]))


def gradient(function: Callable[[MoE, Array], Array]) -> Callable[[MoE, Array], Any]:
    """Of the weights and of the tokens."""
    return jax.grad(lambda block, x: jnp.sum(jnp.sin(function(block, x))), argnums=(0, 1))


def batched(function: Callable[[MoE, Array], Array]) -> Callable[[MoE, Array], Array]:
    return jax.vmap(function, in_axes=(None, 0))


WAYS: dict[str, Callable[..., Any]] = {
    "plain": lambda f: f,
    "gradient": gradient,
    "questions": batched,
    "gradient of questions": lambda f: gradient(batched(f)),
    "questions' gradients": lambda f: batched(gradient(f)),
    "questions of questions": lambda f: batched(batched(f)),
}


def shaped(way: str, x: Array) -> Array:
    """As many examples in front as the way asks for, all different."""
    scale = jnp.arange(1, 4, dtype=jnp.float32)
    for _ in range(way.count("questions")):
        x = jnp.multiply.outer(scale, x)
    return x


def assert_close(ours: Any, want: Any) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(jnp.abs(other).max())))


@pytest.mark.parametrize("way", WAYS)
def test_block_under_transformations(block: MoE, x: Array, way: str) -> None:
    given = shaped(way, x)
    ours = jax.jit(WAYS[way](MoE.__call__))(block, given)
    assert_close(ours, WAYS[way](everywhere)(block, given))


def test_models_side_by_side(block: MoE, x: Array) -> None:
    models = jax.tree.map(lambda weight: jnp.stack([weight, -weight]), block)
    for given, axes in ((jnp.stack([x, 2 * x]), (0, 0)), (x, (0, None))):
        ours, want = (jax.vmap(f, in_axes=axes)(models, given) for f in (MoE.__call__, everywhere))
        assert_close(ours, want)


@pytest.mark.parametrize("sizes", [[0, 0, 3], [1, 0, 2 * TILE], [TILE, TILE, TILE], [5 * TILE + 1, 2, 0]], ids=str)
def test_groups_of_any_size(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(sum(sizes), 4)), rng.normal(size=(3, 4, 5))
    numbers = np.repeat(np.arange(3), sizes)
    want = np.einsum("ri,rio->ro", rows, weights[numbers])
    given = jnp.asarray(rows, jnp.float32), jnp.asarray(weights, jnp.float32)
    product, pull = jax.vjp(lambda *x: grouped_matmul(*x, jnp.array(sizes, jnp.int32)), *given)
    np.testing.assert_allclose(product, want, atol=1e-5)
    outer = np.einsum("ri,ro,rg->gio", rows, want, np.eye(3)[numbers])
    np.testing.assert_allclose(pull(product)[1], outer, rtol=1e-4, atol=1e-4)


def test_rounds_as_transformers(x: Array) -> None:
    """In bfloat16 the shares are rounded, then every product; the sum is one of float32. (SiLU itself rounds otherwise.)"""
    toy = make_toy(moe_config(dict(hidden_act="relu")), torch.bfloat16)
    ours = jax.tree.map(lambda weight: weight[0], toy.model.model.language_model.layers.mlp)
    theirs = toy.reference.model.language_model.layers[0].mlp
    narrow = x.astype(jnp.bfloat16)
    with torch.no_grad():
        want = theirs(torch.tensor(np.asarray(narrow, np.float32)).bfloat16())
    got = ours(narrow)
    assert got.dtype == jnp.bfloat16
    assert (np.asarray(got, np.float32) == want.float().numpy()).mean() > 0.98


@pytest.mark.parametrize(
    ("size", "way"),
    [((2, 2), "plain"), ((2, 2), "questions"), ((2, 2), "gradient"), ((3, 1), "plain"), ((1, 3), "plain")],
    ids=str,
)
def test_block_on_a_mesh(block: MoE, x: Array, size: tuple[int, int], way: str) -> None:
    """It need divide neither the four rows of the batch nor the width of 20."""
    mesh = make_mesh(*size)
    spread = jax.device_put(block, shardings(block, mesh))
    assert_close(jax.jit(WAYS[way](MoE.__call__))(spread, shaped(way, x)), WAYS[way](everywhere)(block, shaped(way, x)))


def test_weights_stay_where_they_are(block: MoE, x: Array) -> None:
    """The only thing that travels is the sum over the parts of the width."""
    spread = jax.device_put(block, shardings(block, make_mesh(2, 2)))
    program = jax.jit(MoE.__call__).lower(spread, x).compile().as_text()
    moved = re.findall(r"= (\S+) (?:all-\w+|reduce-scatter|collective-permute)[\w-]*\(", program)
    assert [shape.split("{")[0] for shape in moved] == ["f32[2,7,48]"]


def test_model_on_a_mesh(toy: Toy) -> None:
    rows = [make_row([(4, 6)]), make_row([(4, 6)], seed=1)]
    images, prompt = batch_rows(rows, toy.config)
    taps = last_row(prompt.tokens.shape[1])
    want, output = read(toy.model, prompt, encode(toy.model, images), None, taps)
    model = jax.device_put(toy.model, shardings(toy.model, make_mesh(2, 2)))
    logits, ours = read(model, prompt, encode(model, images), None, taps)
    np.testing.assert_allclose(logits, want, atol=1e-4)
    np.testing.assert_allclose(ours.readings.mass, output.readings.mass, atol=1e-5)


class TestTensors:
    def experts(self, **text: int) -> tuple[Tensor, Tensor]:
        found = tensors(Config.from_dict(moe_config(text)))
        name = "model.language_model.layers.3.mlp.experts"
        return found[f"{name}.gate_up_proj"], found[f"{name}.down_proj"]

    def test_names_and_shapes_are_those_of_transformers(self, toy: Toy) -> None:
        state = toy.reference.state_dict()
        declared = tensors(toy.config)
        assert declared.keys() == state.keys()
        for name, tensor in declared.items():
            assert tuple(state[name].shape) in tensor.layouts
        assert declared["model.language_model.layers.0.mlp.gate.weight"].shape == (6, 48)

    def test_two_layouts(self) -> None:
        gate_up, down = self.experts()
        assert list(gate_up.layouts) == [(6, 40, 48), (6, 48, 40)]
        assert list(down.layouts) == [(6, 48, 20), (6, 20, 48)]
        assert (gate_up.flax_shape, down.flax_shape) == ((6, 48, 2, 20), (6, 20, 48))
        for tensor in (gate_up, down):
            hub = np.random.default_rng(0).normal(size=tensor.shape)
            ours = tensor.to_flax(hub)
            assert np.array_equal(ours, hub.reshape(tensor.flax_shape))
            assert np.array_equal(tensor.to_flax(hub.swapaxes(1, 2)), ours)
            assert np.array_equal(tensor.to_hf(ours), hub)

    def test_square_ones_are_in_the_first(self) -> None:
        """transformers turns a tensor unless its shape is that of the module: one that is square stays as it is."""
        for width, number in ((24, 0), (48, 1)):
            tensor = self.experts(moe_intermediate_size=width)[number]
            assert tensor.shape == (6, 48, 48)
            stored = np.random.default_rng(0).normal(size=tensor.shape)
            assert np.array_equal(tensor.to_flax(stored), stored.swapaxes(1, 2).reshape(tensor.flax_shape))
            assert np.array_equal(tensor.to_hf(tensor.to_flax(stored)), stored)

    def test_either_makes_the_same_model(self, toy: Toy) -> None:
        state = {name: value.numpy() for name, value in toy.reference.state_dict().items()}
        hub = {name: value.swapaxes(1, 2) if ".experts." in name else value for name, value in state.items()}
        models = [
            assemble(toy.config, lambda t, held=held: t.to_flax(held[t.name]), jnp.float32) for held in (state, hub)
        ]
        chex.assert_trees_all_equal(*models)


HUB_TEXT = (
    TEXT
    | EXPERTS
    | dict(
        model_type="qwen3_vl_moe_text",
        rope_theta=5_000_000,
        rope_scaling=ROPE,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )
)


class TestConfig:
    def read(self, **text: Any) -> Config:
        return Config.from_dict(moe_config(HUB_TEXT | text))

    def theirs(self, raw: dict[str, Any]) -> Any:
        given = {key: value for key, value in copy.deepcopy(raw).items() if key != "model_type"}
        return Qwen3VLMoeConfig(**given).text_config

    def test_both_dialects(self, tmp_path: Path) -> None:
        hub = self.read()
        assert hub.text.experts == ExpertsConfig(count=6, per_token=2, width=20)
        assert (hub.text.axes["expert"], hub.text.axes["mlp"]) == (6, 20)
        given = {key: value for key, value in moe_config(HUB_TEXT).items() if key != "model_type"}
        Qwen3VLMoeConfig(**given).save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert "num_local_experts" in saved["text_config"]
        assert "num_experts" not in saved["text_config"]
        assert Config.load(tmp_path) == hub

    def test_defaults_are_those_of_transformers(self) -> None:
        raw = dict(text_config={}, vision_config=dict(out_hidden_size=2048))
        ours, theirs = Config.from_dict(raw | dict(model_type=MOE)).text, self.theirs(raw)
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.num_key_value_heads == theirs.num_key_value_heads
        wanted = ExpertsConfig(theirs.num_experts, theirs.num_experts_per_tok, theirs.moe_intermediate_size)
        assert ours.experts == wanted

    @pytest.mark.parametrize(
        "text", [dict(num_experts=0), dict(mlp_only_layers=[3, 2, 1, 0]), dict(decoder_sparse_step=9)]
    )
    def test_no_layer_has_experts(self, text: dict[str, Any]) -> None:
        toy = make_toy(moe_config(text))
        assert toy.config.text.experts is None
        assert misses(toy, make_row([(4, 6)]))[0] < LOGITS

    @pytest.mark.parametrize("text", [dict(mlp_only_layers=[1]), dict(decoder_sparse_step=2)])
    def test_some_layers_have_experts(self, text: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=r"of 4 layers mixtures of experts .* layers that are all alike\.$"):
            self.read(**text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (dict(num_experts_per_tok=7), "num_experts_per_tok must be from 1 to num_experts"),
            (dict(num_experts_per_tok=0), "num_experts_per_tok is 0, but should be greater than or equal to 1"),
            (dict(num_experts=-1), "num_experts is -1, but should be greater than or equal to 0"),
            (dict(moe_intermediate_size=0), "moe_intermediate_size is 0, but should be greater than or equal to 1"),
            (dict(num_experts="many"), "num_experts is 'many', but should be a valid integer"),
            (dict(decoder_sparse_step=0), "decoder_sparse_step is 0, but should be greater than or equal to 1"),
            (dict(mlp_only_layers=3), "mlp_only_layers is 3, but should be a valid list"),
        ],
    )
    def test_impossible_values(self, text: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            self.read(**text)
