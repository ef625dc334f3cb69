"""`steer`: the four modes against masks built by hand, both biases, schedules, no compilation, errors."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gaze.pictures.regions import panel_cells, region_keys
from gaze.steering.masks import CUT, MODES, schedule, steering
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.errors import InputError

from ..conftest import HEADS, LAYERS, ask, picture

GRID, WIDTHS = (4, 12), [10, 20, 12]
HEAD_MASK = np.zeros((LAYERS, HEADS), np.float32)
HEAD_MASK[[0, 1, 2, 2], [1, 3, 0, 2]] = 1
NEW = 3
DECODED = jnp.array([[17], [23]], jnp.int32)


@pytest.fixture(scope="module")
def scene(toy):
    """Encoded picture, two prompts about it (the first left-padded), the keys of its three panels in each."""
    images, prompt = ask(toy.model.config, [picture(0, GRID)], [[5, 30], [5, 6, 7, 30]])
    regions = np.stack([region_keys(row, panel_cells(GRID, WIDTHS, 2)) for row in prompt.image_cell])
    return jax.jit(lambda model, images: model.encode(images))(toy.model, images), prompt, regions


@jax.jit
def run(model, vision, prompt, plan):
    """Logits and attention per key of the last row, for the prompt and `NEW` - 1 decoded tokens."""
    length = prompt.tokens.shape[1]
    slots = length + NEW
    keys = jnp.eye(slots)[None]
    first = Taps(jnp.array([[length - 1]], jnp.int32), keys)
    out = model(prompt, vision, model.empty_cache(len(prompt.tokens), slots), plan.at(0, slots), first)
    outputs = [out]
    for step in range(1, NEW):
        out = model.extend(DECODED, out.cache, plan.at(step, slots), Taps(jnp.zeros((1, 1), jnp.int32), keys))
        outputs.append(out)
    logits = jnp.stack([model.logits(out.hidden[:, -1]) for out in outputs])
    return logits, jnp.stack([out.readings.mass[:, :, 0] for out in outputs])


class ByHand:
    """A plan of full masks, one per step."""

    def __init__(self, masks):
        self.masks = masks

    def at(self, step, slots):
        assert self.masks[step].shape[-1] == slots
        return Edits(head_mask=self.masks[step])


jax.tree_util.register_pytree_node(ByHand, lambda plan: (plan.masks, None), lambda _, masks: ByHand(masks))


def mask_by_hand(mode, prompt, regions, targets, strength):
    """The paper's four interventions, spelled out position by position; `targets` per row."""
    length = prompt.tokens.shape[1]
    mask = np.zeros((LAYERS, len(targets), HEADS, 1, length + NEW), np.float32)
    for row, target in enumerate(targets):
        bias = np.zeros(length + NEW, np.float32)
        for key in range(length + NEW):
            decoded = key >= length
            if not decoded and not prompt.valid[row, key]:
                continue
            image = not decoded and prompt.image_cell[row, key] >= 0
            if image and regions[row, target, key]:
                bias[key] = strength if mode == "boost_suppress" else 0
            elif (
                image
                or (not decoded and mode in ("suppress_all", "max_suppress_all"))
                or (decoded and mode == "max_suppress_all")
            ):
                bias[key] = -strength
        mask[:, row, :, 0] = HEAD_MASK[:, :, None] * bias if target >= 0 else 0
    return jnp.asarray(mask)


@pytest.mark.parametrize("mode", MODES)
def test_modes_equal_masks_built_by_hand(mode, toy, scene):
    vision, prompt, regions = scene
    targets = np.stack([schedule([(0, 2), (1, 0)], 3), schedule([(1, 1), (2, 2)], 3)])
    plan = steering(HEAD_MASK, prompt, regions, targets, strength=3.0, mode=mode)
    hand = ByHand([mask_by_hand(mode, prompt, regions, row, 3.0) for row in ([2, -1], [0, 1], [0, 2])])
    (logits, mass), (want_logits, want_mass) = (
        run(toy.model, vision, prompt, plan),
        run(toy.model, vision, prompt, hand),
    )
    np.testing.assert_allclose(logits, want_logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(mass, want_mass, atol=1e-6, rtol=0)
    for step in range(NEW):
        keys = plan.at(step, prompt.tokens.shape[1] + NEW).steer.keys  # padding too, which no attention shows
        np.testing.assert_array_equal(keys, hand.masks[step][0, :, 1, 0])


def test_modes_differ(toy, scene):
    vision, prompt, regions = scene
    targets = schedule([(0, 1)])[None]
    results = [
        run(toy.model, vision, prompt, steering(HEAD_MASK, prompt, regions, targets, 3.0, mode))[1][-1]
        for mode in MODES
    ]
    assert all(np.abs(one - other).max() > 1e-3 for one, other in pairwise(results))


def test_values_compile_nothing(toy, scene, decoder_traces):
    vision, prompt, regions = scene
    base = steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None])
    run(toy.model, vision, prompt, base)
    decoder_traces(0)
    for variant in (
        steering(1 - HEAD_MASK, prompt, regions, schedule([(0, 1)])[None]),
        steering(HEAD_MASK, prompt, regions, schedule([(0, 0), (1, 2)])[None]),
        steering(HEAD_MASK, prompt, regions, schedule([(1, 2)])[None], strength=5.0),
        steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None], mode="max_suppress_all", bias="replace"),
        steering(HEAD_MASK, prompt, np.roll(regions, 1, axis=1), schedule([])[None], strength=0.0),
    ):
        run(toy.model, vision, prompt, variant)


def test_heads_that_are_cut_off_keep_words_and_see_no_picture(toy, scene):
    vision, prompt, regions = scene
    found = []
    for target in (0, 1):  # which one does not matter
        plan = steering(HEAD_MASK, prompt, regions, schedule([(0, target)])[None], mode=CUT)
        found.append(_steered(run(toy.model, vision, prompt, plan)[1]))
    np.testing.assert_array_equal(*found)
    picture = prompt.image_cell >= 0
    for row in range(2):
        assert (found[0][:, :, row][:, :, : picture.shape[1]][:, :, picture[row]] == 0).all()
    np.testing.assert_allclose(found[0].sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_suppressed_keys_get_exactly_nothing(mode, toy, scene):
    vision, prompt, regions = scene
    _, mass = run(toy.model, vision, prompt, steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None], mode=mode))
    steered = _steered(mass)
    others = (prompt.image_cell >= 0) & ~regions[:, 1]
    for row in range(2):
        assert (steered[:, :, row][:, :, : others.shape[1]][:, :, others[row]] == 0).all()
        on_target = steered[:, :, row, : others.shape[1]][:, :, regions[row, 1]]
        assert (on_target > 0).any(axis=-1).all()
        if mode == "boost_suppress":
            np.testing.assert_allclose(on_target.sum(axis=-1), 1, atol=1e-6)
            assert np.ptp(on_target, axis=-1).min() > 1e-3  # ordered: the head keeps its preferences


def test_uniform_attends_evenly_to_the_target(toy, scene):
    vision, prompt, regions = scene
    plan = steering(HEAD_MASK, prompt, regions, schedule([(0, 2)])[None], bias="replace")
    steered = _steered(run(toy.model, vision, prompt, plan)[1])
    for row in range(2):
        want = np.zeros(steered.shape[-1], np.float32)
        want[np.flatnonzero(regions[row, 2])] = 1 / regions[row, 2].sum()
        np.testing.assert_allclose(steered[:, :, row], np.broadcast_to(want, steered[:, :, row].shape), atol=1e-7)


def test_zero_strength_changes_no_bit(toy, scene):
    vision, prompt, regions = scene
    plain = run(toy.model, vision, prompt, Edits())[0]
    for bias in ("add", "replace"):
        plan = steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None], 0.0, "max_suppress_all", bias)
        np.testing.assert_array_equal(run(toy.model, vision, prompt, plan)[0], plain)


def test_decode_only_leaves_the_prompt_alone(toy, scene):
    vision, prompt, regions = scene
    plain = run(toy.model, vision, prompt, Edits())[0]
    later = run(toy.model, vision, prompt, steering(HEAD_MASK, prompt, regions, schedule([(1, 1)])[None]))[0]
    always = run(toy.model, vision, prompt, steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None]))[0]
    np.testing.assert_array_equal(later[0], plain[0])
    assert np.abs(later[1] - plain[1]).max() > 1e-3
    assert np.abs(always[0] - plain[0]).max() > 1e-3


def test_rows_have_their_own_heads_targets_and_strength(toy, scene):
    vision, prompt, regions = scene
    heads = np.stack([HEAD_MASK, 1 - HEAD_MASK], axis=1)
    targets = np.stack([schedule([(0, 0)]), schedule([(1, 2)])])
    strength = np.array([2.0, 4.0], np.float32)
    both = run(toy.model, vision, prompt, steering(heads, prompt, regions, targets, strength))[0]
    for row in range(2):
        alone = steering(heads[:, row], prompt, regions, targets[row : row + 1], float(strength[row]))
        np.testing.assert_allclose(both[:, row], run(toy.model, vision, prompt, alone)[0][:, row], atol=1e-5, rtol=1e-5)


def test_schedules():
    assert schedule([(0, 4)]).tolist() == [4, 4]
    assert schedule([(1, 4)]).tolist() == [-1, 4]
    assert schedule([(2, 3), (4, -1), (5, 0)], 7).tolist() == [-1, -1, 3, 3, -1, 0, 0]
    for changes in ([(2, 0)], [(-1, 0)], [(1, 0), (1, 1)], [(1, 0), (0, 1)]):
        with pytest.raises(InputError, match="increasing"):
            schedule(changes)


def test_the_last_target_holds_to_the_end(scene):
    _, prompt, regions = scene
    plan = steering(HEAD_MASK, prompt, regions, schedule([(1, 1)])[None])
    for step in (1, 2, 50):
        np.testing.assert_array_equal(plan.at(step, 30).steer.keys, plan.at(jnp.int32(1), 30).steer.keys)
    assert not plan.at(0, 30).steer.keys.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "boost"}, "boost steering"),
        ({"bias": "bf16"}, "bf16"),
        ({"strength": -1.0}, "strength"),
        ({"strength": np.inf}, "strength"),
        ({"targets": np.array([[3]])}, "none of the 3 regions"),
        ({"targets": np.array([[-2]])}, "none of the 3 regions"),
    ],
)
def test_impossible_steering_is_an_error(change, message, scene):
    _, prompt, regions = scene
    given = {"heads": HEAD_MASK, "prompt": prompt, "regions": regions, "targets": schedule([(0, 1)])[None]}
    with pytest.raises(InputError, match=message):
        steering(**(given | change))


def test_an_empty_target_is_an_error_and_an_empty_region_no_suppression(scene):
    _, prompt, regions = scene
    regions = regions.copy()
    regions[1, 1] = False
    with pytest.raises(InputError, match="covers no image token"):
        steering(HEAD_MASK, prompt, regions, schedule([(0, 1)])[None])
    plan = steering(HEAD_MASK, prompt, regions, schedule([(0, 0)])[None], mode="max_suppress_all")
    assert not plan.replace(targets=plan.targets + 1).at(0, 30).steer.keys[1].any()


def _steered(mass):
    """[step, steered head, row, key] of [step, layer, row, heads, key]."""
    return np.asarray(mass).transpose(1, 3, 0, 2, 4)[HEAD_MASK.astype(bool)].swapaxes(0, 1)
