"""What comes out does not depend on the mesh, and what goes between devices is small: never weights, never S x S."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from gaze.discovery.scores import panel_attention
from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import fetch, local_rows, make_mesh, mesh_of, sharding, shardings, split_axis, spread
from qwen3vl_jax.weights import Tensor, assemble, tensors

from ..toys import batch_rows, make_row, make_toy, raw_config

STRIPS, QUESTIONS, GROUPS, NEW = 8, 2, 3, 10
SHORT = dict(depth=2, deepstack_visual_indexes=[0])

# Heads of the text model, key/value heads, heads of the vision tower; and the meshes (data, model) to try.
EVEN = (8, 4, 8), [(4, 2), (8, 1), (1, 8)]  # on eight the key/value heads stay whole
ODD = (6, 3, 4), [(2, 2)]  # the key/value heads stay whole on two


def make_model(heads: int, kv: int, vision_heads: int) -> Qwen3VL:
    text = dict(num_attention_heads=heads, num_key_value_heads=kv, num_hidden_layers=3)
    return make_toy(raw_config(text=text, vision=SHORT | dict(num_heads=vision_heads), tied=False)).model


def make_inputs(model: Qwen3VL) -> tuple:
    """Strips of two sizes with two questions each: images, prefixes, questions, groups of keys."""
    rows = [make_row([((4, 6), (4, 4))[seed % 2]], seed=seed) for seed in range(STRIPS)]
    images, prefix = batch_rows(rows, model.config)
    words = np.random.default_rng(0).integers(1, 240, (STRIPS * QUESTIONS, 3)).astype(np.int32)
    start = np.repeat(prefix.positions.max(axis=(1, 2)) + 1, QUESTIONS).astype(np.int32)
    positions = start[:, None, None] + np.arange(3, dtype=np.int32)[None, :, None]
    questions = Prompt(words, np.broadcast_to(positions, (*words.shape, 3)), np.ones(words.shape, bool))
    return (
        images.replace(groups=STRIPS),
        prefix,
        questions,
        np.random.default_rng(1).random((STRIPS, GROUPS, prefix.tokens.shape[1])) < 0.5,
    )


def run(model: Qwen3VL, images: Images, prefix: Prompt, questions: Prompt, groups: jax.Array, plan: Edits) -> tuple:
    """Scores, and greedy tokens under the plan."""
    mass = panel_attention(model, images, prefix, questions, groups)
    return mass, generate(
        model, prefix, model.encode(images), plan, Sampling.make(), jax.random.key(0), max_new=NEW
    ).tokens


def steer(model: Qwen3VL, slots: int, strength: float) -> Edits:
    """Half of the heads, towards a third of the keys, which are others in every row."""
    layers, heads = model.config.text.num_hidden_layers, model.config.text.num_attention_heads
    some = np.random.default_rng(2).random((layers, STRIPS, heads)) < 0.5
    where = np.random.default_rng(3).random((STRIPS, slots)) < 1 / 3
    keys = np.where(where, strength, -strength).astype(np.float32)
    return Edits(steer=Steer(jnp.asarray(some.astype(np.float32)), jnp.asarray(keys), jnp.zeros((1,), bool)))


@pytest.mark.parametrize(("heads", "meshes"), [EVEN, ODD], ids=["even", "odd"])
def test_meshes_give_the_same_and_move_little(heads: tuple[int, int, int], meshes: list[tuple[int, int]]) -> None:
    model = make_model(*heads)
    inputs = make_inputs(model)
    plans = [steer(model, inputs[1].tokens.shape[1] + NEW, strength) for strength in (0.0, 4.0)]

    tree = jax.tree.structure((model, *inputs, plans[0]))
    # Of leaves, as `lower` builds the arguments' pytrees of things that are no arrays.
    jitted = jax.jit(lambda leaves: run(*jax.tree.unflatten(tree, leaves)))
    (_, plain), (mass, tokens) = (fetch(jitted(jax.tree.leaves((model, inputs, plan)))) for plan in plans)
    assert not np.array_equal(tokens, plain)  # the plan does something
    for sizes in meshes:
        mesh = make_mesh(*sizes)
        moved = jax.device_put(model, shardings(model, mesh))
        leaves = jax.tree.leaves((moved, spread(inputs, mesh, STRIPS), plans[1]))
        compiled = jitted.lower(leaves).compile()
        got = fetch(compiled(leaves))
        np.testing.assert_allclose(got[0], mass, rtol=0, atol=1e-5, err_msg=str(sizes))
        np.testing.assert_array_equal(got[1], tokens, err_msg=str(sizes))
        if heads == EVEN[0]:
            check_traffic(compiled.as_text(), model, inputs, *sizes)


def check_traffic(hlo: str, model: Qwen3VL, inputs: tuple, data: int, model_axis: int) -> None:
    """Sums over the model axis of a device's own activations, and a few numbers: no weights, nothing of other strips."""
    # Sampling at a temperature sorts the whole vocabulary; not what is asked for here.
    found = [entry for entry in collectives(hlo) if "cond/branch_1" not in entry[2]]
    tokens = max(inputs[1].tokens.size, inputs[0].valid.size) // data
    for kind, shape, line in found:
        summed = kind == "all-reduce" and model_axis > 1
        most = tokens * model.config.text.hidden_size if summed else STRIPS * max(model_axis, 2)
        assert np.prod(shape) <= most, line


def collectives(hlo: str) -> list[tuple[str, tuple[int, ...], str]]:
    """What each operation between devices gives: its kind, a shape and the line."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    lines = re.findall(rf"^.*? = (.*?) ({kinds})(?:-start)?\((.*)$", hlo, re.MULTILINE)
    return [
        (kind, tuple(map(int, filter(None, dims.split(",")))), f"{result} {kind} {rest}")
        for result, kind, rest in lines
        for dims in re.findall(r"\w+\[([\d,]*)\]", result)
    ]


@pytest.fixture(scope="module")
def declared() -> dict[str, Tensor]:
    """A model with the axes of the released 8B model, but two layers."""
    text = dict(hidden_size=4096, intermediate_size=12288, num_attention_heads=32, num_key_value_heads=8)
    text |= dict(head_dim=128, vocab_size=151_936, num_hidden_layers=2)
    vision = dict(hidden_size=1152, intermediate_size=4304, num_heads=16, out_hidden_size=4096, patch_size=16)
    rope = dict(mrope_section=[24, 20, 20])
    return tensors(Config.from_dict(raw_config(text=text, rope=rope, vision=SHORT | vision, tied=False)))


@pytest.mark.parametrize(
    ("name", "width", "want"),
    [
        ("model.language_model.embed_tokens.weight", 8, P("model", None)),
        ("lm_head.weight", 8, P(None, "model")),
        ("model.language_model.layers.1.self_attn.q_proj.weight", 8, P(None, "model")),
        ("model.language_model.layers.1.self_attn.k_proj.weight", 8, P(None, "model")),
        ("model.language_model.layers.1.self_attn.k_proj.weight", 16, P(None, None)),
        ("model.language_model.layers.1.self_attn.o_proj.weight", 32, P("model", None)),
        ("model.language_model.layers.1.self_attn.q_norm.weight", 8, P(None)),
        ("model.language_model.layers.1.mlp.up_proj.weight", 8, P(None, "model")),
        ("model.language_model.layers.1.mlp.down_proj.weight", 8, P("model", None)),
        ("model.visual.blocks.1.attn.qkv.weight", 16, P(None, "model")),
        ("model.visual.blocks.1.attn.qkv.weight", 32, P(None, None)),
        ("model.visual.blocks.1.attn.qkv.bias", 8, P("model")),
        ("model.visual.blocks.1.mlp.linear_fc1.bias", 8, P("model")),
        ("model.visual.merger.linear_fc1.weight", 8, P(None, "model")),
        ("model.visual.merger.linear_fc2.weight", 8, P("model", None)),
        ("model.visual.patch_embed.proj.weight", 8, P(None, None)),
    ],
)
def test_declarations_say_how_tensors_lie(declared: dict[str, Tensor], name: str, width: int, want: P) -> None:
    tensor = declared[name]
    mesh = jax.sharding.AbstractMesh((2, width), ("data", "model"))
    assert sharding(tensor.pattern, tensor.sizes, mesh).spec == want
    if "model" in want:
        assert split_axis(tensor.pattern) == want.index("model")


def test_no_tensor_is_split_twice_and_no_stack_by_its_layers() -> None:
    model = nnx.eval_shape(lambda: Qwen3VL(Config.from_dict(raw_config()), nnx.Rngs(0)))
    specs = [leaf.spec for leaf in jax.tree.leaves(shardings(model, make_mesh(4, 2)))]
    assert all(tuple(spec).count("model") <= 1 for spec in specs)
    assert sum("model" in spec for spec in specs) > len(specs) / 3
    stacked = jax.tree.leaves(shardings(model.model.language_model.layers, make_mesh(4, 2)))
    assert all(leaf.spec[0] is None for leaf in stacked)
    assert jax.tree.structure(shardings(model, make_mesh(4, 2))) == jax.tree.structure(model)
    state = nnx.state(model)
    assert jax.tree.leaves(shardings(state, make_mesh(4, 2))) == jax.tree.leaves(shardings(model, make_mesh(4, 2)))


def test_assembling_reads_every_part_once() -> None:
    """Also where several devices hold the same part; and of a tensor that is split never the whole."""
    config = Config.from_dict(raw_config(vision=SHORT))
    rng = np.random.default_rng(0)
    stored = {name: rng.normal(size=t.flax_shape).astype(np.float32) for name, t in tensors(config).items()}
    asked: dict[str, list[int]] = {name: [] for name in stored}

    def read(tensor: Tensor, index: tuple[slice, ...] | None = None) -> np.ndarray:
        part = stored[tensor.name] if index is None else stored[tensor.name][index]
        asked[tensor.name].append(part.size)
        return part

    mesh = make_mesh(4, 2)
    model = assemble(config, read, jnp.float32, mesh)
    for name, tensor in tensors(config).items():
        split = "model" in sharding(tensor.pattern, tensor.sizes, mesh).spec
        size = stored[name].size
        assert asked[name] == ([size // 2] * 2 if split else [size]), name
    chex.assert_trees_all_equal(fetch(model), fetch(assemble(config, read, jnp.float32)))
    for leaf, want in zip(jax.tree.leaves(model), jax.tree.leaves(shardings(model, mesh)), strict=True):
        assert leaf.sharding.is_equivalent_to(want, leaf.ndim)


def test_meshes_that_do_not_fit_are_refused() -> None:
    assert make_mesh(4, 2).shape == {"data": 4, "model": 2}
    assert make_mesh(2, 1).size == 2  # a process by itself may leave devices unused
    for sizes in [(16, 1), (3, 3), (0, 1), (-1, -8)]:
        with pytest.raises(InputError, match="there are 8; give sizes whose product is 8"):
            make_mesh(*sizes)


def test_rows_go_out_and_come_back() -> None:
    rows = np.arange(24, dtype=np.int32).reshape(8, 3)
    twice = np.arange(16, dtype=np.float32)
    assert local_rows(None, 8) == local_rows(make_mesh(4, 2), 8) == slice(0, 8)
    for mesh in (None, make_mesh(4, 2)):
        there = spread({"rows": rows, "twice": twice}, mesh, 8)
        assert all(isinstance(leaf, jax.Array) for leaf in there.values())
        back = fetch(there | {"numpy": rows})
        np.testing.assert_array_equal(back["rows"], rows)
        np.testing.assert_array_equal(back["twice"], twice)
        np.testing.assert_array_equal(back["numpy"], rows)
    assert there["rows"].sharding.spec == P("data")
    assert {shard.data.shape for shard in there["twice"].addressable_shards} == {(4,)}


def test_a_model_on_one_device_has_no_mesh() -> None:
    linear = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    assert mesh_of(linear) is None
    assert mesh_of(jax.device_put(linear, jax.NamedSharding(make_mesh(1, 8), P()))) == make_mesh(1, 8)
