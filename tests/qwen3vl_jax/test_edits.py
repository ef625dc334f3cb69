"""Edits and taps against hooks in transformers, against each other and against sums by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import struct
from jaxtyping import Array, Float

from qwen3vl_jax.edits import Amplify, Edits, Steer, Taps
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.sampling import Sampling

from ..toys import IMAGE, Row, Toy, batch_rows, encode, follow, last_row, make_row, make_toy, raw_config, read

LAYERS, HEADS, EMBED, NEW = 4, 4, 48, 20
LOGITS = 1e-4


@struct.dataclass
class Changing:
    """A plan with a mask and a residual edit of its own for every step; the last ones hold to the end."""

    masks: Float[Array, "step layer heads slot"]
    residual: Float[Array, "step layer embed"]

    def at(self, step: Any, slots: int) -> Edits:
        assert self.masks.shape[-1] == slots
        now = jnp.atleast_1d(step)[0]
        mask = self.masks[jnp.minimum(now, self.masks.shape[0] - 1)]
        residual = self.residual[jnp.minimum(now, self.residual.shape[0] - 1)]
        return Edits(mask[:, None, :, None], None, residual[:, None, None])


@contextmanager
def hooked(reference: Any, masks: np.ndarray | None = None, residual: np.ndarray | None = None) -> Iterator[None]:
    """The same edits by hooks: `masks` [step, layer, heads, query or 1, slot], `residual` [step, layer, query or 1, embed]."""
    handles = []
    for number, layer in enumerate(reference.model.language_model.layers):
        if masks is not None:
            hook = _mask_hook([torch.tensor(mask[number]) for mask in masks])
            handles.append(layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True))
        if residual is not None:
            handles.append(layer.register_forward_hook(_residual_hook([torch.tensor(x[number]) for x in residual])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mask_hook(steps: list[torch.Tensor]) -> Callable[..., tuple[tuple, dict[str, Any]]]:
    passes = iter([*steps, *[steps[-1]] * NEW])

    def add(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        mask = kwargs["attention_mask"]
        extra = next(passes)[None, ..., : mask.shape[-1]].to(mask.dtype)
        return args, kwargs | {"attention_mask": mask + extra}

    return add


def _residual_hook(steps: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    passes = iter([*steps, *[steps[-1]] * NEW])
    return lambda module, args, output: output + next(passes)[None]


@pytest.fixture(scope="module")
def scene(toy: Toy, row: Row) -> tuple:
    """Our prompt of the row and its encoded pictures."""
    images, prompt = batch_rows([row], toy.config)
    return prompt, encode(toy.model, images)


@pytest.fixture(scope="module")
def pair(toy: Toy, row: Row) -> tuple:
    """Two rows in one batch: one picture, left-padded; then two pictures. Also the rows themselves."""
    rows = [make_row([(4, 6)], seed=5), row]
    images, prompt = batch_rows(rows, toy.config)
    return rows, prompt, encode(toy.model, images)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def steer(heads: np.ndarray, keys: np.ndarray, uniform: bool = False) -> Edits:
    """Edits that steer [layer, heads] on the keys [key]."""
    return Edits(steer=Steer(jnp.asarray(heads[:, None]), jnp.asarray(keys[None]), jnp.asarray([uniform])))


class TestNothing:
    """Edits of nothing change no bit."""

    @pytest.mark.parametrize(
        "build",
        [
            lambda length: Edits(),
            lambda length: Edits(head_mask=jnp.zeros((1, 1, 1, 1, 1))),
            lambda length: Edits(head_mask=jnp.zeros((LAYERS, 1, HEADS, length, length))),
            lambda length: steer(np.ones((LAYERS, HEADS), np.float32), np.zeros(length, np.float32)),
            lambda length: steer(np.zeros((LAYERS, HEADS), np.float32), np.full(length, 1e4, np.float32), uniform=True),
            lambda length: Edits(residual=jnp.zeros((LAYERS, 1, length, EMBED))),
            lambda length: Edits(
                amplify=Amplify(jnp.zeros((1, 1, HEADS)), jnp.ones((1, length)), jnp.ones((1,), bool))
            ),
        ],
        ids=["none", "one zero", "zero mask", "zero strength", "no heads", "zero residual", "zero amount"],
    )
    def test_changes_no_bit(self, build: Callable[[int], Edits], toy: Toy, scene: tuple) -> None:
        prompt, vision = scene
        plain, _ = read(toy.model, prompt, vision)
        logits, _ = read(toy.model, prompt, vision, build(prompt.tokens.shape[1]))
        np.testing.assert_array_equal(logits, plain)


class TestMasks:
    def test_query_by_key_equals_hooks(self, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        length = len(row.tokens)
        mask = 3 * noise(LAYERS, HEADS, length, length)
        logits, _ = read(toy.model, prompt, vision, Edits(head_mask=jnp.asarray(mask[:, None])))
        with hooked(toy.reference, mask[None]), torch.no_grad():
            want = toy.reference(**row.reference()).logits[0].numpy()
        np.testing.assert_allclose(logits[0], want, atol=LOGITS, rtol=0)
        plain, _ = read(toy.model, prompt, vision)
        assert np.abs(plain - logits).max() > 1000 * LOGITS

    @pytest.mark.parametrize("case", ["static", "scheduled", "decode only", "with residual"])
    def test_generation_equals_hooks(self, case: str, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        masks = 3 * noise(4, LAYERS, HEADS, len(row.tokens) + NEW, seed=1)
        residual = np.zeros((4, LAYERS, EMBED), np.float32)
        if case == "static":
            masks[1:] = masks[0]
        elif case == "decode only":
            masks[0] = 0
        elif case == "with residual":
            residual = noise(4, LAYERS, EMBED, seed=2)
        plan = Changing(jnp.asarray(masks), jnp.asarray(residual))
        tokens, logits = self.by_hooks(toy, row, masks, residual)
        ours = generate(toy.model, prompt, vision, plan, Sampling.make(), jax.random.key(0), max_new=NEW)
        np.testing.assert_array_equal(ours.tokens[0], tokens)
        followed = follow(toy.model, prompt, vision, jnp.asarray(tokens[None]), plan)[0]
        np.testing.assert_allclose(followed[:-1], logits, atol=LOGITS, rtol=0)
        unedited, _ = self.by_hooks(toy, row, 0 * masks, 0 * residual)
        assert (tokens != unedited).any()

    def test_edits_are_their_own_plan(self, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        masks = 3 * noise(1, LAYERS, HEADS, len(row.tokens) + NEW, seed=1)
        tokens, _ = self.by_hooks(toy, row, masks, np.zeros((1, LAYERS, EMBED), np.float32))
        plan = Edits(head_mask=jnp.asarray(masks[0][:, None, :, None]))
        ours = generate(toy.model, prompt, vision, plan, Sampling.make(), jax.random.key(0), max_new=NEW)
        np.testing.assert_array_equal(ours.tokens[0], tokens)

    def by_hooks(self, toy: Toy, row: Row, masks: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Greedy tokens [step] and their logits [step, vocab]."""
        settings = dict(do_sample=False, max_new_tokens=NEW, eos_token_id=None, pad_token_id=0)
        with hooked(toy.reference, masks[:, :, :, None], residual[:, :, None]), torch.no_grad():
            output = toy.reference.generate(
                **row.reference(), **settings, return_dict_in_generate=True, output_logits=True
            )
        logits = np.stack([step[0].numpy() for step in output.logits])
        return output.sequences[0, len(row.tokens) :].numpy().astype(np.int32), logits

    def test_rank_one_equals_the_mask_it_stands_for(self, toy: Toy, scene: tuple) -> None:
        prompt, vision = scene
        heads = (noise(LAYERS, HEADS) > 0).astype(np.float32)
        keys = 3 * noise(prompt.tokens.shape[1], seed=1)
        mask = heads[:, None, :, None, None] * keys
        logits, _ = read(toy.model, prompt, vision, steer(heads, keys))
        want, _ = read(toy.model, prompt, vision, Edits(head_mask=jnp.asarray(mask)))
        np.testing.assert_allclose(logits, want, atol=1e-5, rtol=0)

    def test_rows_have_their_own_edits(self, toy: Toy, pair: tuple) -> None:
        rows, prompt, vision = pair
        length = prompt.tokens.shape[1]
        mask = 3 * noise(LAYERS, 2, HEADS, 1, length)
        logits, _ = read(toy.model, prompt, vision, Edits(head_mask=jnp.asarray(mask)))
        for number, row in enumerate(rows):
            pad = length - len(row.tokens)
            with hooked(toy.reference, mask[None, :, number, :, :, pad:]), torch.no_grad():
                want = toy.reference(**row.reference()).logits[0].numpy()
            np.testing.assert_allclose(logits[number, pad:], want, atol=LOGITS, rtol=0)

    def test_maps_over_head_sets(self, toy: Toy, scene: tuple) -> None:
        prompt, vision = scene
        heads = jnp.asarray((noise(3, LAYERS, 1, HEADS) > 0).astype(np.float32))
        keys = jnp.asarray(3 * noise(1, prompt.tokens.shape[1], seed=1))

        def logits(heads: Array) -> Array:
            return read(toy.model, prompt, vision, Edits(steer=Steer(heads, keys, jnp.asarray([False]))))[0]

        combined = jax.jit(jax.vmap(logits))(heads)
        for one, alone in zip(combined, heads, strict=True):
            np.testing.assert_allclose(one, logits(alone), atol=5e-5, rtol=0)


class TestStrength:
    """What a steered head does at 10,000: nothing outside the target, and inside it its own order, or none."""

    def test_a_masked_region_gets_exactly_nothing(self, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        region = row.tokens == IMAGE
        heads = (noise(LAYERS, HEADS) > 0).astype(np.float32)
        edits = steer(heads, np.where(region, -1e4, 0).astype(np.float32))
        _, output = read(toy.model, prompt, vision, edits, last_row(prompt.tokens.shape[1]))
        on_region = np.asarray(output.readings.mass[:, 0, 0])[:, :, region]
        assert (on_region[heads == 1] == 0).all()
        assert (on_region[heads == 0] > 0).all()

    @pytest.mark.parametrize("uniform", [False, True])
    def test_a_boosted_region_gets_everything(self, uniform: bool, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        region = np.flatnonzero(row.tokens == IMAGE)[:6]
        heads = (noise(LAYERS, HEADS) > 0).astype(np.float32)
        keys = np.full(len(row.tokens), -1e4, np.float32)
        keys[region] = 1e4
        _, output = read(toy.model, prompt, vision, steer(heads, keys, uniform), last_row(prompt.tokens.shape[1]))
        steered = np.asarray(output.readings.mass[:, 0, 0])[heads == 1]
        assert (np.delete(steered, region, axis=-1) == 0).all()
        np.testing.assert_allclose(steered[:, region].sum(axis=-1), 1, atol=1e-6)
        assert (np.ptp(steered[:, region], axis=-1) > 1e-3).all() != uniform

    def test_uniform_is_what_bfloat16_does_in_transformers(self, row: Row) -> None:
        toy = make_toy(raw_config(), torch.bfloat16)
        images, prompt = batch_rows([row], toy.config)
        where = np.flatnonzero(row.tokens == IMAGE)
        keys = np.zeros(len(row.tokens), np.float32)
        keys[where], keys[where[:7]] = -1e4, 1e4
        heads = (noise(LAYERS, HEADS) > 0).astype(np.float32)
        vision = encode(toy.model, images)
        _, output = read(toy.model, prompt, vision, steer(heads, keys, uniform=True), last_row(prompt.tokens.shape[1]))
        with hooked(toy.reference, (heads[:, :, None, None] * keys)[None]), torch.no_grad():
            attentions = toy.reference(**row.reference(), output_attentions=True).attentions
        want = np.stack([layer[0, :, -1].float().numpy() for layer in attentions])
        np.testing.assert_array_equal(output.readings.mass[:, 0, 0][heads == 1], want[heads == 1])


class TestResidual:
    def test_equals_adding_to_the_output_of_each_layer(self, toy: Toy, row: Row, scene: tuple) -> None:
        prompt, vision = scene
        added = noise(LAYERS, len(row.tokens), EMBED)
        logits, _ = read(toy.model, prompt, vision, Edits(residual=jnp.asarray(added[:, None])))
        with hooked(toy.reference, residual=added[None]), torch.no_grad():
            want = toy.reference(**row.reference()).logits[0].numpy()
        np.testing.assert_allclose(logits[0], want, atol=LOGITS, rtol=0)
        plain, _ = read(toy.model, prompt, vision)
        assert np.abs(plain - logits).max() > 1000 * LOGITS


class TestTaps:
    def test_residual_is_the_stream_behind_each_layer(self, toy: Toy, pair: tuple) -> None:
        rows, prompt, vision = pair
        length = prompt.tokens.shape[1]
        some = np.stack([np.arange(length - 20, length), np.arange(length - 19, length + 1) % length]).astype(np.int32)
        taps = Taps(jnp.asarray(some), jnp.ones((1, 1, length)), residual=True)
        _, output = read(toy.model, prompt, vision, None, taps)
        for number, row in enumerate(rows):
            want = self.behind_layers(toy, row)
            where = some[number] - (length - len(row.tokens))
            seen = where >= 0
            assert (row.tokens[where[seen]] == IMAGE).any()  # where DeepStack features join
            got = output.readings.residual[:, number][:, seen]
            np.testing.assert_allclose(got, want[:, where[seen]], atol=LOGITS, rtol=0)

    def behind_layers(self, toy: Toy, row: Row) -> np.ndarray:
        """What enters the next layer or the final norm; `hidden_states` of transformers lack the DeepStack features."""
        language = toy.reference.model.language_model
        entering: list[np.ndarray] = []
        hook = lambda module, args: entering.append(args[0][0].numpy())  # noqa: E731
        handles = [module.register_forward_pre_hook(hook) for module in (*language.layers[1:], language.norm)]
        with torch.no_grad():
            output = toy.reference(**row.reference(), output_hidden_states=True)
        for handle in handles:
            handle.remove()
        text = row.tokens != IMAGE
        for ours, theirs in zip(entering[:-1], output.hidden_states[1:-1], strict=True):
            np.testing.assert_array_equal(ours[text], theirs[0].numpy()[text])
        return np.stack(entering)

    def test_edits_show_in_the_stream(self, toy: Toy, scene: tuple) -> None:
        prompt, vision = scene
        taps = last_row(prompt.tokens.shape[1]).replace(residual=True)
        _, plain = read(toy.model, prompt, vision, None, taps)
        added = jnp.asarray(noise(1, 1, 1, EMBED)) * jnp.eye(LAYERS, dtype=jnp.float32)[-1][:, None, None, None]
        _, edited = read(toy.model, prompt, vision, Edits(residual=added), taps)
        np.testing.assert_array_equal(edited.readings.residual[:-1], plain.readings.residual[:-1])
        want = plain.readings.residual[-1, 0, 0] + added[-1, 0, 0]
        np.testing.assert_allclose(edited.readings.residual[-1, 0, 0], want, atol=1e-5, rtol=0)

    def test_mass_equals_the_attention_of_transformers(self, toy: Toy, pair: tuple) -> None:
        rows, prompt, vision = pair
        length = prompt.tokens.shape[1]
        some = [length - 1, length - 8, length - 3]
        taps = Taps(jnp.asarray([some], jnp.int32), jnp.eye(length, dtype=jnp.float32)[None])
        _, output = read(toy.model, prompt, vision, None, taps)
        for number, row in enumerate(rows):
            pad = length - len(row.tokens)
            with torch.no_grad():
                attentions = toy.reference(**row.reference(), output_attentions=True).attentions
            want = np.stack([layer[0].numpy() for layer in attentions])[:, :, np.array(some) - pad]
            mass = np.asarray(output.readings.mass[:, number]).transpose(0, 2, 1, 3)
            np.testing.assert_allclose(mass[..., pad:], want, atol=1e-5, rtol=0)
            assert (mass[..., :pad] == 0).all()

    def test_groups_sum_their_keys(self, toy: Toy, pair: tuple) -> None:
        _, prompt, vision = pair
        length = prompt.tokens.shape[1]
        which = np.random.default_rng(0).integers(0, 3, (2, length))
        groups = (which[:, None] == np.arange(3)[:, None]).astype(np.float32)
        taps = last_row(prompt.tokens.shape[1])
        _, single = read(toy.model, prompt, vision, None, taps)
        _, grouped = read(toy.model, prompt, vision, None, taps.replace(groups=jnp.asarray(groups)))
        want = np.einsum("lbrhs,bgs->lbrhg", single.readings.mass, groups)
        np.testing.assert_allclose(grouped.readings.mass, want, atol=1e-6, rtol=0)
        np.testing.assert_allclose(grouped.readings.mass.sum(axis=-1), 1, atol=1e-5, rtol=0)

    def test_value_mass_weighs_by_the_norm_of_the_values(self, toy: Toy, pair: tuple) -> None:
        _, prompt, vision = pair
        _, output = read(toy.model, prompt, vision, None, last_row(prompt.tokens.shape[1]).replace(weigh_values=True))
        norms = np.sqrt((np.asarray(output.cache.values) ** 2).sum(axis=-1)).swapaxes(2, 3)  # [layer, batch, slot, kv]
        of_head = norms[..., [0, 0, 1, 1]].transpose(0, 1, 3, 2)[:, :, None]
        want = np.asarray(output.readings.mass) * of_head
        np.testing.assert_allclose(output.readings.value_mass, want, rtol=1e-5, atol=1e-6)

    def test_reading_changes_nothing(self, toy: Toy, scene: tuple) -> None:
        # But for rounding: XLA fuses what is read as well in another way.
        prompt, vision = scene
        taps = last_row(prompt.tokens.shape[1]).replace(residual=True, weigh_values=True)
        np.testing.assert_allclose(
            read(toy.model, prompt, vision, None, taps)[0], read(toy.model, prompt, vision)[0], atol=1e-5, rtol=0
        )
