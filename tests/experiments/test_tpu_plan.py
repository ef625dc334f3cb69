"""Programs compiled for TPUs without one: what they need, counted by the compiler, by us and by hand."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.released_shapes import SHAPES, config
from experiments.tpu.__main__ import SIZES
from experiments.tpu.costs import Cost, cost
from experiments.tpu.hlo import parse
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import make_mesh

# Of the released files, without their headers.
BYTES = {"2B": 4_255_064_064, "8B": 17_534_247_392, "32B": 66_714_780_128, "30B-A3B": 62_141_508_064}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own; the compiler takes little trouble, which takes a quarter of the time."""
    command = [sys.executable, "-m", "experiments.tpu.__main__", *arguments]
    hurry = {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0", "JAX_MEMORY_FITTING_EFFORT": "-1.0"}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | hurry, check=False)


def test_8b_fits_eight_small_chips(tmp_path: Path) -> None:
    done = run("--model", "8B", "--topology", "v5e:2x4", "--strips", "1", "--json", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2, "there should be two lines of progress and no noise"
    plans = {plan["program"]: plan for plan in json.loads((tmp_path / "plan.json").read_text())}
    assert plans.keys() == {"discovery", "steering"}
    for plan in plans.values():
        assert plan["fits"]
        assert plan["layout"] == dict(size="8B", topology="v5e:2x4", data=4, model=2, strips=1)
        assert BYTES["8B"] / 2 < plan["weights"] < plan["total"] < 16e9
        assert plan["memory"]["arguments"] > plan["weights"]
        # Every weight crosses from memory at least once; the two chips that share a layer exchange activations.
        assert plan["cost"]["memory"] > BYTES["8B"] / 2 * 0.9
        assert plan["cost"]["links"] > 0
        assert plan["strips_per_second"] == pytest.approx(4 / max(plan["seconds"].values()))
    assert plans["discovery"]["cost"]["flops"] == pytest.approx(discovery_flops() / 2, rel=0.05)
    # Fifteen times the same weights, of which the first are shared with the prompt.
    assert plans["steering"]["cost"]["memory"] > 14 * plans["steering"]["weights"] * 0.9


def discovery_flops() -> float:
    """Multiplications and additions of one strip and six questions in an 8B model, from its config.json."""
    patches, prefix, question = 1536, 404, 6 * 16
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288
    text = 36 * layer * (prefix + question) + 36 * 2 * 4096 * (prefix**2 + question * (prefix + 16))
    block = 4 * 1152**2 + 2 * 1152 * 4304
    vision = 27 * (block * patches + 2 * 1152 * patches**2)
    mergers = 4 * (patches // 4) * (4608**2 + 4608 * 4096)
    return 2.0 * (text + vision + mergers + patches * 1536 * 1152)


@pytest.mark.parametrize(("size", "mesh"), [("8B", "data=8,model=1"), ("32B", "data=8,model=1")])
def test_what_does_not_fit_is_reported(size: str, mesh: str, tmp_path: Path) -> None:
    place = tmp_path / "plan.json"
    done = run("--model", size, "--topology", "v5e:2x4", "--mesh", mesh, "--json", str(place))
    assert done.returncode == 0, done.stderr
    assert f"{size} steering does not fit v5e:2x4: the weights alone need" in done.stdout
    assert [plan["fits"] for plan in json.loads(place.read_text())] == [False, False]


def test_what_the_compiler_gives_up_on_is_reported() -> None:
    """A few rows can be sorted; so many cannot."""
    program = """
import sys
from experiments.tpu.chips import topology, without_hardware
without_hardware()
import jax, jax.numpy as jnp
from experiments.tpu.plan import MeshLayout, plan
from experiments.tpu.programs import Program, Placer
def lower(model, mesh, strips):
    rows = Placer(mesh)((strips, 8), jnp.float32)
    return jax.jit(lambda x: jnp.sort(jnp.broadcast_to(x[:, :, None], (*x.shape, 2**20)), axis=1)).lower(rows)
chip, devices = topology("v5e:2x2")
for strips in 8, 2000:
    print(plan(MeshLayout("2B", "v5e:2x2", strips, data=4), Program("sort", lower, 1), chip, devices).trouble)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fits, fails = done.stdout.splitlines()
    assert fits == "None"
    assert fails.startswith("the compiler says: Ran out of memory")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topology", "v9:2x4"], "there is no topology v9:2x4"),
        (["--topology", "v5e:2x4", "--mesh", "data=2,model=2"], "does not fit v5e:2x4, which has 8 chips"),
        (["--json", "/nowhere/plan.json"], "/nowhere is no folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], says: str) -> None:
    done = run("--model", "2B", *arguments)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_libtpu_is_asked_for() -> None:
    program = """
import sys
sys.modules["libtpu"] = None
sys.argv[1:] = ["--model", "2B", "--topology", "v5e:2x4", "--mesh", "data=1,model=1"]
from convert.cli import run
from experiments.tpu.__main__ import command
run(command, "tpu_plan")
"""
    # Importing libtpu, as JAX does, leaves its path behind in the environment.
    bare = {name: value for name, value in os.environ.items() if name != "TPU_LIBRARY_PATH"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'gaze-jax[tpu-plan]'")


@pytest.mark.parametrize("size", SIZES)
def test_shapes_are_those_of_the_released_files(size: str) -> None:
    assert set(SIZES) == set(SHAPES)
    model = nnx.eval_shape(lambda: Qwen3VL(config(size), nnx.Rngs(0), jnp.bfloat16))
    assert sum(leaf.size * 2 for leaf in jax.tree.leaves(model)) == BYTES[size]


LAYERS, ROWS, WIDTH, HIDDEN = 7, 16, 32, 64


@partial(jax.jit, static_argnames="rounds")
def layers(x: jax.Array, wide: jax.Array, narrow: jax.Array, rounds: int) -> jax.Array:
    """Some layers, over and over, until data say that it is enough."""

    def once(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        y, _ = jax.lax.scan(lambda x, pair: (jnp.tanh(x @ pair[0] @ pair[1]), None), carry[0], (wide, narrow))
        return y, carry[1] + 1

    return jax.lax.while_loop(lambda carry: (carry[1] < rounds) & ~jnp.all(carry[0] > 2), once, (x, jnp.int32(0)))[0]


def test_loops_count_as_often_as_they_run() -> None:
    """Against the analysis of the compiler, which counts them once, and against hand arithmetic."""
    mesh = make_mesh(2, 4)
    place = lambda shape, *axes: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))  # noqa: E731
    x = place((ROWS, WIDTH), "data")
    wide = place((LAYERS, WIDTH, HIDDEN), None, None, "model")
    narrow = place((LAYERS, HIDDEN, WIDTH), None, "model")
    compiled = layers.lower(x, wide, narrow, rounds=5).compile()
    products = 2 * 2 * (ROWS // 2) * WIDTH * (HIDDEN // 4)
    sums = 2 * (ROWS // 2) * WIDTH * 4 * 3 / 4  # of all layers in float32, in a ring of four
    one, five = (cost(compiled.as_text(), rounds) for rounds in (1, 5))
    naive = compiled.cost_analysis()
    assert naive is not None
    assert naive["flops"] < 1.2 * products
    # Besides the products there are activations, the counting, and the end of the loops.
    assert one.flops == pytest.approx(LAYERS * products, rel=0.05)
    assert five.flops == pytest.approx(5 * LAYERS * products, rel=0.05)
    assert one.links == pytest.approx(LAYERS * sums, rel=0.01)
    assert five.links == pytest.approx(5 * LAYERS * sums, rel=0.01)


def test_of_branches_only_the_one_taken_counts() -> None:
    """A layer that is skipped, one that does a little and one that does all, chosen by data in every round."""

    @jax.jit
    def choose(x: jax.Array, narrow: jax.Array, wide: jax.Array, work: jax.Array) -> jax.Array:
        kinds = [lambda x: x, lambda x: x + (x @ narrow)[:, :1], lambda x: x + (x @ wide)[:, :WIDTH]]
        return jax.lax.scan(lambda x, kind: (jax.lax.switch(kind, kinds, x), None), x, work)[0]

    x, narrow, wide = (jnp.zeros(shape) for shape in ((ROWS, WIDTH), (WIDTH, WIDTH), (WIDTH, 32 * WIDTH)))
    text = choose.lower(x, narrow, wide, jnp.zeros((LAYERS,), jnp.int32)).compile().as_text() or ""
    flops = [cost(text, taken={3: branch}).flops for branch in range(3)]
    product = LAYERS * 2 * ROWS * WIDTH * WIDTH
    assert flops[0] < 0.2 * product
    assert flops[1:] == pytest.approx([product, 32 * product], rel=0.1)


PROGRAM = """HloModule small, is_scheduled=true, num_partitions=8

%take (stack: bf16[9,1024,128], number: s32[], x: bf16[8,1024]) -> bf16[8,128] {
  %stack = bf16[9,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %number = s32[]{:T(128)} parameter(1)
  %x = bf16[8,1024]{1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %layer = bf16[1,1024,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%stack, %number, %zero, %zero), dynamic_slice_sizes={1,1024,128}
  %flat = bf16[1024,128]{1,0:T(8,128)(2,1)} bitcast(%layer)
  ROOT %dot = bf16[8,128]{1,0:T(8,128)(2,1)} dot(%x, %flat), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%store (cache: bf16[9,8,128], number: s32[], row: bf16[8,128]) -> bf16[9,8,128] {
  %cache = bf16[9,8,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %number = s32[]{:T(128)} parameter(1)
  %row = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %one = bf16[1,8,128]{2,1,0:T(8,128)(2,1)} bitcast(%row)
  ROOT %new = bf16[9,8,128]{2,1,0:T(8,128)(2,1)} dynamic-update-slice(%cache, %one, %number, %zero, %zero)
}

ENTRY %main (stack: bf16[9,1024,128], cache: bf16[9,8,128], number: s32[], x: bf16[8,1024]) -> bf16[9,8,128] {
  %stack = bf16[9,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %cache = bf16[9,8,128]{2,1,0:T(8,128)(2,1)} parameter(1)
  %number = s32[]{:T(128)} parameter(2)
  %x = bf16[8,1024]{1,0:T(8,128)(2,1)} parameter(3)
  %row = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%stack, %number, %x), kind=kOutput, calls=%take
  %sum = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} all-reduce(%row), replica_groups=GROUPS, to_apply=%add
  ROOT %out = bf16[9,8,128]{2,1,0:T(8,128)(2,1)} fusion(%cache, %number, %sum), kind=kLoop, calls=%store
}
"""
ADD = """
%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[]{:T(256)} parameter(0)
  %b = bf16[]{:T(256)} parameter(1)
  ROOT %c = bf16[]{:T(256)} add(%a, %b)
}
"""


@pytest.mark.parametrize(
    ("groups", "ring"),
    [
        ("[2,4]<=[8]", 4),
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("{}", 8),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([4,2]T(1,0)) {'axis_2'}", 4),
    ],
)
def test_memory_and_links_of_a_program_as_tpus_print_it(groups: str, ring: int) -> None:
    text = PROGRAM.replace("ENTRY", f"{ADD.lstrip()}\nENTRY").replace("GROUPS", groups)
    layer, row, x, number = 1024 * 128 * 2, 8 * 128 * 2, 8 * 1024 * 2, 4
    # One layer of the stack, the input, one row of the cache, and twice its number; what has S(1) is not in HBM.
    expected = Cost(2 * 8 * 1024 * 128, layer + x + row + 2 * number, 2 * row * (ring - 1) / ring)
    found = cost(text)
    assert (found.memory, found.links) == (expected.memory, expected.links)
    assert found.flops == pytest.approx(expected.flops, rel=0.01)


def test_a_part_of_a_program_is_a_program() -> None:
    program = parse(PROGRAM)
    assert program.entry == "main"
    assert parse(program.beginning_with("take")).entry == "take"
