"""Every arm against PyTorch: PAI, CG-VLM in both modes and VCD give the tokens and logits of code that knows nothing of ours."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gaze.hallucination.arms import make_arm, parse_arm
from gaze.hallucination.forced import added_mass
from gaze.hallucination.passes import count_passes
from gaze.steering.boosts import Boost
from gaze.steering.guided import Guided
from gaze.steering.versions import diffused, question_keys, uniform_noise, without, without_image
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.vision import Vision

from ...toys import Row, batch_rows
from . import official
from .conftest import ENDS, HEADS, LAYERS, Scene, image_places

STEPS = 5


def plan_of(scene: Scene, name: str) -> Any:
    arm = make_arm(name, scene.known)
    assert arm.plan is not None
    return arm.plan(scene.prompt, scene.images)


class Steps(NamedTuple):
    """Greedy tokens and logits [batch, step], and what the gate has measured and done."""

    tokens: np.ndarray
    logits: np.ndarray
    values: np.ndarray
    open: np.ndarray


def ours(scene: Scene, plan: Any) -> Steps:
    return Steps(*jax.device_get(_ours(scene.toy.model, scene.prompt, scene.vision, plan)))


@jax.jit
def _ours(model: Any, prompt: Prompt, vision: Vision, plan: Any) -> tuple[Any, ...]:
    plan = plan if isinstance(plan, Guided) else Guided(plan)
    first = plan.read_prompt(model, prompt, vision, STEPS)
    first = first._replace(cache=first.cache.fork(1, STEPS))

    def scores(read: Any) -> Any:
        return read.logits if read.allowed is None else jnp.where(read.allowed, read.logits, -jnp.inf)

    def step(read: Any, number: Any) -> tuple[Any, Any]:
        token = jnp.argmax(scores(read), axis=-1, keepdims=True).astype(jnp.int32)
        read = plan.read_token(model, token, read.cache, jnp.full((len(token),), number), read.carry)
        return read, scores(read)

    last, logits = jax.lax.scan(step, first, jnp.arange(1, STEPS))
    logits = jnp.concatenate([scores(first)[None], logits]).swapaxes(0, 1)
    return jnp.argmax(logits, axis=-1), logits, last.carry.values, last.carry.open


def asked_places(row: Row) -> list[int]:
    """After the picture and its end marker, up to the token that ends the turn."""
    return [*range(image_places(row)[-1] + 2, row.tokens.tolist().index(ENDS))]


def shown(row: Row, pixels: np.ndarray) -> Row:
    return row._replace(pictures=[(pixels[: len(row.pictures[0][0])], row.pictures[0][1])])


def reference(scene: Scene, number: int, name: str) -> official.Answer:
    """The same arm in PyTorch."""
    row, model = scene.rows[number], scene.toy.reference
    given = parse_arm(name)
    version = partial(official.Version, model)
    image, asked = image_places(row), asked_places(row)
    keys = [place + (given.mode == "paper_code") for place in image]
    layers = {"upper": range(2, LAYERS), "middle": range(round(5 / 32 * LAYERS), round(19 / 32 * LAYERS))}
    raised = None
    if given.boost != "none":
        chosen = layers.get(given.layers, range(1, 3))
        raised = official.Raise(chosen, keys, given.amount, given.boost == "mean")
    method = official.Method(version(row.reference()), raised)
    if given.gate == "interaction" and given.mode == "clean":
        method.gate = [version(row.reference(), hidden) for hidden in ([], image, asked, image + asked)]
    if given.gate == "interaction" and given.mode == "paper_code":
        noise = np.asarray(uniform_noise(scene.images, given.seed, scene.toy.config.vision).patches)[number]
        bare = row._replace(tokens=np.delete(row.tokens, asked))
        some = (row, shown(row, noise), bare, shown(bare, noise))
        method.gate = [version(one.reference()) for one in some]
    method.threshold = given.threshold
    if given.contrast == "text":
        text = Row(np.delete(row.tokens, [image[0] - 1, *image, image[-1] + 1]), [])
        method.other = version(text.reference())
    if given.contrast == "noise":
        noisy = np.asarray(diffused(scene.images, given.noise, given.seed, scene.toy.config.vision).patches)[number]
        method.other = version(shown(row, noisy).reference())
    method.weight = given.weight
    return method.run(STEPS)


METHODS = [
    "pai:amount=0.5",
    "pai:amount=2,layers=1-3",
    "pai-logits:weight=2",
    "pai-both:amount=0.5,weight=1.5",
    "cg:amount=2,threshold={}",
    "cg:amount=2,layers=1-3,threshold={}",
    "cg:amount=2,layers=1-3,mode=paper_code,threshold={}",
    "cg-static:amount=2",
    "vcd",
    "vcd:weight=3,noise=300",
]


def between(scene: Scene, name: str) -> str:
    """An arm with a threshold between what its sensor measures before the first tokens of the two answers."""
    if "{}" not in name:
        return name
    return name.format(float(ours(scene, plan_of(scene, name.format(0))).values[:, 0].mean()))


@pytest.mark.parametrize("pattern", METHODS)
def test_an_arm_is_what_pytorch_makes_of_it(scene: Scene, pattern: str) -> None:
    name = between(scene, pattern)
    plan = plan_of(scene, name)
    found = ours(scene, plan)
    left_alone = ours(scene, Guided())
    for number in range(len(scene.rows)):
        wanted = reference(scene, number, name)
        logits = torch.stack(wanted.logits).numpy()
        assert found.tokens[number].tolist() == wanted.tokens
        mine = found.logits[number]
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(logits))
        # Log-softmax and logits differ by a constant in every row.
        mine, logits = (np.where(np.isfinite(x), x - x.max(axis=-1, keepdims=True), 0) for x in (mine, logits))
        np.testing.assert_allclose(mine, logits, atol=5e-4)
        if wanted.variances:
            assert found.open[number].tolist() == wanted.opened
            np.testing.assert_allclose(found.values[number], wanted.variances, rtol=2e-3)
    # Negative control: the arm does something, a hundred times what is tolerated.
    change = np.abs(found.logits - left_alone.logits)
    assert np.nanmax(np.where(np.isfinite(change), change, 0)) > 5e-2
    assert np.isfinite(left_alone.logits).all()


def test_the_gate_opens_and_shuts(scene: Scene) -> None:
    opened = ours(scene, plan_of(scene, between(scene, METHODS[5]))).open
    assert opened[0, 0] != opened[1, 0]
    never, always = (ours(scene, plan_of(scene, METHODS[5].format(limit))) for limit in (1e9, -1.0))
    static = ours(scene, plan_of(scene, "cg-static:amount=2,layers=1-3"))
    np.testing.assert_allclose(never.logits, ours(scene, Guided()).logits, atol=1e-4)
    np.testing.assert_allclose(always.logits, static.logits, atol=1e-4)


def test_the_loop_of_generation_carries_what_a_plan_has_seen(
    scene: Scene, decoder_traces: Callable[[int], None]
) -> None:
    name = between(scene, METHODS[5])
    run = partial(generate, scene.toy.model, scene.prompt, scene.vision, max_new=STEPS)
    found, wanted = run(plan_of(scene, name), Sampling.make(), 0), ours(scene, plan_of(scene, name))
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(found.carry.open, wanted.open)
    decoder_traces(0)  # a threshold and an amount are data
    other = run(plan_of(scene, METHODS[5].format(-1.0).replace("amount=2", "amount=3")), Sampling.make(), 0)
    assert other.carry.open.all()


def test_a_boost_alone_needs_no_plan_that_reads(scene: Scene) -> None:
    plan = plan_of(scene, METHODS[1])
    assert not isinstance(plan, Guided)
    found = generate(scene.toy.model, scene.prompt, scene.vision, plan, Sampling.make(), 0, max_new=STEPS)
    np.testing.assert_array_equal(found.tokens, ours(scene, plan).tokens)


@pytest.mark.parametrize(
    ("name", "prompt", "token"),
    [
        ("pai", 1, 1),
        ("gaze", 1, 1),
        ("pai-logits", 2, 2),
        ("vcd", 2, 2),
        ("cg", 5, 5),
        ("cg:mode=paper_code", 5, 5),
        ("cg:gate=divergence", 3, 3),
        ("cg:gate=grounding", 1, 1),
        ("cg:gate=random,contrast=text,weight=2", 2, 2),
    ],
)
def test_passes_are_counted_in_the_program(scene: Scene, name: str, prompt: float, token: float) -> None:
    assert count_passes(scene.toy.model, scene.prompt, scene.images, plan_of(scene, name)) == (prompt, token)


SENSORS = {
    "entropy": "cg:gate=entropy,amount=2,layers=1-3,threshold=0.5",
    "grounding": "cg:gate=grounding,amount=2,layers=1-3,threshold=0.6",
    "mass": "cg:gate=mass,amount=2,layers=1-3,threshold=0.4",
    "divergence": "cg:gate=divergence,amount=2,layers=1-3,threshold=0.3",
}


@pytest.mark.parametrize("measure", SENSORS)
def test_a_sensor_says_what_pytorch_shows(scene: Scene, measure: str) -> None:
    """What it measures before each step, from whole passes of transformers' model over all that was written, left alone."""
    name = SENSORS[measure]
    found = ours(scene, plan_of(scene, f"{name},amount=0"))
    for number, row in enumerate(scene.rows):
        wanted = [float("nan")] * (measure != "divergence")
        version = partial(official.Version, scene.toy.reference)
        for step in range(STEPS - len(wanted)):
            written = row.more(found.tokens[number, :step])
            logits = version(written.reference()).read()
            chance = torch.softmax(logits, dim=-1)
            unsure = float(-(chance * chance.log()).sum() / np.log(len(chance)))
            if measure == "divergence":
                blind = torch.softmax(version(written.reference(), image_places(row)).read(), dim=-1)
                wanted.append(float((chance * (chance / blind).log()).sum()))
            elif measure == "mass":
                wanted.append(official.mass(scene.toy.reference, image_places(row), range(1, 3)))
            elif measure == "entropy":
                wanted.append(unsure)
            else:
                with torch.no_grad():
                    rows = torch.softmax(scene.toy.reference(**row.reference()).logits[0, image_places(row)], dim=-1)
                wanted.append(0.75 * unsure + 0.25 * (1 - float(rows.max(dim=0).values[logits.argmax()])))
        np.testing.assert_allclose(found.values[number], wanted, atol=2e-4, rtol=2e-3)
        limit, value = parse_arm(name).threshold, found.values[number]
        np.testing.assert_array_equal(found.open[number], value < limit if measure == "mass" else value > limit)
    assert np.isfinite(found.values[:, 1:]).all()


def test_the_random_gate_does_not_depend_on_the_rows_beside_it(scene: Scene) -> None:
    whole = plan_of(scene, "cg:gate=random").gate.sensor.values
    arm = make_arm("cg:gate=random", scene.known)
    for number in range(2):
        images, prompt = batch_rows([scene.rows[number]], scene.toy.config)
        assert arm.plan is not None
        np.testing.assert_array_equal(arm.plan(prompt, images).gate.sensor.values[0], whole[number])
    assert (whole[0] != whole[1]).all()
    assert abs((whole < 0.3).mean() - 0.3) < 0.02


def test_left_out_tokens_leave_positions_as_if_they_had_never_been_there(scene: Scene) -> None:
    asked = question_keys(scene.prompt, (ENDS,))
    for name, bare, of in (
        ("question", without(scene.prompt, asked), asked_places),
        (
            "picture",
            without_image(scene.prompt).prompt,
            lambda row: [p for p in range(len(row.tokens)) if around(row, p)],
        ),
    ):
        rows = [Row(np.delete(row.tokens, of(row)), row.pictures if name == "question" else []) for row in scene.rows]
        _, wanted = batch_rows(rows, scene.toy.config, scene.prompt.tokens.shape[1])
        np.testing.assert_array_equal(bare.tokens, wanted.tokens)
        np.testing.assert_array_equal(bare.positions, wanted.positions)
        np.testing.assert_array_equal(bare.valid, wanted.valid)
    assert (asked.sum(axis=1) == [len(asked_places(row)) for row in scene.rows]).all()
    with pytest.raises(InputError, match=r"no token of \[3\] follows the picture"):
        question_keys(scene.prompt, (3,))


def around(row: Row, place: int) -> bool:
    image = image_places(row)
    return image[0] - 1 <= place <= image[-1] + 1


def test_noise_is_that_of_the_released_code(scene: Scene) -> None:
    vision = scene.toy.config.vision
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000)) * (0.5e-2 - 1e-5) + 1e-5
    kept = float(torch.cumprod(1 - betas, dim=0)[500])
    plain, noisy = (np.asarray(some.patches) for some in (scene.images, diffused(scene.images, 500, 0, vision)))
    noise = (noisy - kept**0.5 * plain) / (1 - kept) ** 0.5
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    frames = noise.reshape(*noise.shape[:2], vision.in_channels, vision.temporal_patch_size, -1)
    np.testing.assert_allclose(frames[:, :, :, 0], frames[:, :, :, 1], atol=1e-4)
    uniform = np.asarray(uniform_noise(scene.images, 0, vision).patches)
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() <= 1
    one = diffused(jax.tree.map(lambda leaf: leaf[1:], scene.images), 500, 0, vision)
    np.testing.assert_array_equal(one.patches[0], noisy[1])


@jax.jit
def _by_step(model: Any, prompt: Prompt, vision: Vision, boost: Boost, factors: Any, tokens: Any) -> Any:
    """Mean attention of the upper two layers on the boosted keys, in the passes of generation."""
    slots = boost.keys.shape[1] + STEPS
    taps = Taps([[-1]], jnp.pad(boost.keys, ((0, 0), (0, STEPS)))[:, None])
    output = model(prompt, vision, model.empty_cache(2, slots), boost.scaled(factors[:, 0], slots), taps)
    found = [output.readings.mass]
    for step in range(1, STEPS):
        token = tokens[:, step - 1 : step]
        output = model.extend(token, output.cache, boost.scaled(factors[:, step], slots), taps)
        found.append(output.readings.mass)
    return jnp.stack([mass[1:, :, 0, :, 0].mean(axis=(0, 2)) for mass in found], axis=1)


def test_added_mass_is_that_of_the_steps_themselves(scene: Scene) -> None:
    """In place of the forced passes: those of generation, with taps, each head by itself."""
    boost = plan_of(scene, METHODS[1])
    said = ours(scene, boost).tokens
    tokens = jnp.asarray(said, jnp.int32)
    factors = jnp.asarray(np.random.default_rng(0).integers(0, 2, said.shape), jnp.float32)
    added = jax.jit(added_mass)(scene.toy.model, scene.prompt, scene.vision, boost, factors, tokens)
    masses = [
        _by_step(scene.toy.model, scene.prompt, scene.vision, boost, some, tokens) for some in (factors, 0 * factors)
    ]
    np.testing.assert_allclose(added, masses[0] - masses[1], atol=2e-5)
    assert (np.asarray(added)[np.asarray(factors) > 0] > 1e-3).all()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("opera", "there is no arm 'opera': choose one of pai"),
        ("pai:alpha=1", "has no setting 'alpha'"),
        ("pai:amount=much", "bad amount"),
        ("pai:amount=nan", "finite number"),
        ("pai:layers=2", "give all, upper, middle or A-B"),
        ("vcd:noise=1000", "noise from 0 to 999"),
        ("cg:gate=always", "bad gate"),
    ],
)
def test_arms_that_are_none_are_named(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parse_arm(text)


def test_an_arm_needs_heads_and_layers_that_the_model_has(scene: Scene) -> None:
    with pytest.raises(InputError, match="gaze heads of this model are not known"):
        make_arm("gaze", scene.known.__class__(scene.toy.config, (ENDS,)))
    with pytest.raises(InputError, match="layers 2-9 are none of a model with 3"):
        make_arm("pai:layers=2-9", scene.known)
    drawn = make_arm("gaze:heads=random", scene.known)
    chosen = np.asarray(drawn.plan(scene.prompt, scene.images).heads)[0]  # type: ignore[misc, union-attr]
    assert not {*zip(*np.nonzero(chosen), strict=True)} & {*HEADS.heads}
    np.testing.assert_array_equal((chosen != 0).sum(axis=1), [0, 1, 1])
