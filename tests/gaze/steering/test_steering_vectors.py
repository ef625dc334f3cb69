"""`directions`: a push is what a hand-made edit does, here and in transformers; planted directions are found and flip answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from gaze.discovery.scores import split
from gaze.steering.steering_vectors import (
    begin,
    difference,
    letter_tokens,
    narrate,
    observe,
    push,
    random_like,
    separation,
    sweep,
)
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.sampling import Sampling

from ..conftest import IMAGE, LAYERS, ask, picture

QUESTIONS = [[5, 6, 7, 30], [5, 6, 8, 9, 31], [5, 6, 32]]
CANDIDATES = jnp.array([3, 9, 77], jnp.int32)
ROOM = 5
EMBED = 48


@pytest.fixture(scope="module")
def asked(toy):
    """Images, whole prompts, and the same prompts begun: three questions about each of two pictures."""
    images, prompt = ask(toy.model.config, [picture(0, (4, 12)), picture(1, (6, 8))], QUESTIONS)
    return images, prompt, begin(toy.model, images, *split(prompt, 2))


@pytest.fixture(scope="module")
def vector():
    return (3 * np.random.default_rng(1).normal(size=(LAYERS, EMBED))).astype(np.float32)


@jax.jit
def whole(model, images, prompt, edits=None):
    """Logits and stream of the last token, from one pass over everything."""
    length = prompt.tokens.shape[1]
    taps = Taps(jnp.full((1, 1), length - 1, jnp.int32), jnp.zeros((1, 1, length), jnp.float32), residual=True)
    output = model(prompt, model.encode(images), edits=edits, taps=taps)
    return model.logits(output.hidden[:, -1]), output.readings.residual[:, :, 0]


def one_layer(layer):
    return jnp.asarray(np.eye(LAYERS, dtype=np.float32)[[layer]])


def swept(toy, begun, vector, bands, alpha=1.0):
    return sweep(toy.model, begun, jnp.asarray(vector[:, None]), bands, jnp.float32(alpha), CANDIDATES)


def test_observes_the_stream_and_reply_of_one_pass(toy, asked):
    images, prompt, begun = asked
    stream, reply = observe(toy.model, begun, CANDIDATES)
    logits, residual = whole(toy.model, images, prompt)
    np.testing.assert_allclose(np.asarray(stream), np.asarray(residual).swapaxes(0, 1), atol=2e-4)
    np.testing.assert_allclose(reply.scores, np.asarray(logits)[:, np.asarray(CANDIDATES)], atol=2e-4)
    np.testing.assert_array_equal(reply.token, np.asarray(logits).argmax(axis=1))


def test_no_amount_changes_nothing(toy, asked, vector):
    _, _, begun = asked
    _, alone = observe(toy.model, begun, CANDIDATES)
    reply = swept(toy, begun, vector, jnp.eye(LAYERS, dtype=jnp.float32), alpha=0.0)
    for layer in range(LAYERS):
        np.testing.assert_array_equal(reply.scores[layer], alone.scores)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_push_behind_a_layer_is_the_hand_made_edit(toy, asked, vector, layer):
    images, prompt, begun = asked
    residual = np.zeros((LAYERS, 1, prompt.tokens.shape[1], EMBED), np.float32)
    residual[layer, 0, -1] = vector[layer]
    logits, _ = whole(toy.model, images, prompt, Edits(residual=jnp.asarray(residual)))
    alone, _ = whole(toy.model, images, prompt)
    reply = swept(toy, begun, vector, one_layer(layer))
    wanted = np.asarray(logits)[:, np.asarray(CANDIDATES)]
    np.testing.assert_allclose(reply.scores[0], wanted, atol=3e-4)
    assert np.abs(wanted - np.asarray(alone)[:, np.asarray(CANDIDATES)]).max() > 0.1


@pytest.mark.parametrize("layer", [0, 2])
def test_transformers_agrees(toy, asked, vector, layer):
    _, prompt, begun = asked
    reply = swept(toy, begun, vector, one_layer(layer))
    pixels = picture(0, (4, 12))[0]
    for row in range(len(QUESTIONS)):
        logits = pushed_reference(toy.reference, prompt, row, pixels, {layer: vector[layer]}, [])
        np.testing.assert_allclose(reply.scores[0, row], logits[np.asarray(CANDIDATES)], atol=1e-3)


@pytest.mark.parametrize(("at_prompt", "at_decoded"), [(True, True), (False, True), (True, False)])
def test_narration_is_pushed_at_the_rows_asked_for(toy, asked, vector, at_prompt, at_decoded):
    _, prompt, begun = asked
    layers, alpha = [0, 2], 0.5
    plan = push(vector, layers, alpha, at_prompt, at_decoded)
    told = narrate(toy.model, begun, plan, jnp.array([], jnp.int32), max_new=ROOM)
    row, pixels = 1, picture(0, (4, 12))[0]
    added = {layer: alpha * vector[layer] for layer in layers}
    said: list[int] = []
    for _ in range(ROOM):
        logits = pushed_reference(toy.reference, prompt, row, pixels, added, said, at_prompt, at_decoded)
        said.append(int(logits.argmax()))
    assert np.asarray(told.tokens)[row].tolist() == said


def test_narration_left_alone_is_generation(toy, asked, vector):
    images, prompt, begun = asked
    stop = jnp.array([int(observe(toy.model, begun, CANDIDATES)[1].token[0])], jnp.int32)
    told = narrate(toy.model, begun, push(vector, []), stop, max_new=ROOM)
    vision = toy.model.encode(jax.tree.map(jnp.asarray, images))
    usual = generate(
        toy.model, prompt, vision, None, Sampling.make().replace(stop=stop), jax.random.key(0), max_new=ROOM
    )
    np.testing.assert_array_equal(told.tokens, usual.tokens)
    np.testing.assert_array_equal(told.length, usual.length)
    assert int(told.length[0]) == 0


def test_layers_amounts_and_directions_compile_nothing_new(toy, asked, vector, decoder_traces):
    _, _, begun = asked
    swept(toy, begun, vector, one_layer(0))
    decoder_traces(0)
    swept(toy, begun, -vector, one_layer(2), alpha=0.3)


def test_a_planted_direction_is_found_and_flips_every_answer(toy):
    """Layers that add nothing leave the last token's embedding in the stream: it is all that kinds of prompts differ in."""
    model = without_layers(toy.model)
    pictures = [picture(seed, (4, 8)) for seed in range(3)]
    streams, tokens, begun = [], [], []
    for last in (30, 31):
        images, prompt = ask(model.config, pictures, [[5, word, last] for word in (6, 7)])
        begun.append(begin(model, images, *split(prompt, 3)))
        stream, reply = observe(model, begun[-1], CANDIDATES)
        streams.append(np.asarray(stream))
        tokens.append(np.asarray(reply.token))
    assert (tokens[0] != tokens[1]).all()
    found = difference(streams[1], streams[0])
    table = np.asarray(model.model.language_model.embed_tokens.weight[...])
    np.testing.assert_allclose(found, np.tile(table[31] - table[30], (LAYERS, 1)), atol=1e-6)
    arguments = jnp.asarray(found[:, None]), jnp.eye(LAYERS, dtype=jnp.float32)
    there = sweep(model, begun[0], *arguments, jnp.float32(1), CANDIDATES)
    back = sweep(model, begun[1], *arguments, jnp.float32(-1), CANDIDATES)
    assert (np.asarray(there.token) == tokens[1]).all()
    assert (np.asarray(back.token) == tokens[0]).all()


def test_random_directions_have_the_length_and_not_the_way(vector):
    drawn = random_like(vector, 20, seed=3)
    length = np.linalg.norm(vector, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=-1), np.tile(length, (20, 1)), rtol=1e-5)
    cosine = np.einsum("dle,le->dl", drawn, vector) / length**2
    assert np.abs(cosine).max() < 0.6
    assert np.abs(cosine.mean()) < 0.1
    np.testing.assert_array_equal(drawn, random_like(vector, 20, seed=3))
    assert not np.array_equal(drawn, random_like(vector, 20, seed=4))


def test_separation_tells_the_layer_in_which_two_kinds_lie_apart():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30, 2, 8))
    second[:, 1, 3] += 25
    points, silhouette = separation(first, second)
    assert points.shape == (2, 60, 2)
    assert silhouette[1] > 0.8
    assert silhouette[0] < 0.2


def test_letters_are_tokens_of_their_own():
    codes = {"A": [5], "B": [9], "Ä": [200, 201], "a": [5]}
    tokenizer = lambda text, add_special_tokens: {"input_ids": codes[text]}  # noqa: E731
    assert letter_tokens(tokenizer, "AB").tolist() == [5, 9]
    with pytest.raises(InputError, match="no single token for Ä"):
        letter_tokens(tokenizer, "AÄ")
    with pytest.raises(InputError, match="each of the letters"):
        letter_tokens(tokenizer, "Aa")


def test_impossible_wishes(vector):
    with pytest.raises(InputError, match="layers 0 to 2"):
        push(vector, [3])
    with pytest.raises(InputError, match="at least one pair"):
        difference(vector[None][:0], vector[None][:0])


def without_layers(model):
    """The same model with every layer adding nothing to the stream."""
    bare = nnx.clone(model)
    layers = bare.model.language_model.layers
    for linear in (layers.self_attn.o_proj, layers.mlp.down_proj):
        linear.weight[...] = jnp.zeros_like(linear.weight[...])
    return bare


def pushed_reference(reference, prompt, row, pixels, added, said, at_prompt=True, at_decoded=True):
    """Next-token logits by transformers, vectors added with hooks to the last prompt token and to what was said since."""
    tokens = np.concatenate([prompt.tokens[row][prompt.valid[row]], np.array(said, np.int32)])
    last = len(tokens) - len(said) - 1

    def hook(vector):
        def add(module, inputs, output):
            changed = output.clone()
            if at_prompt:
                changed[:, last] += torch.tensor(vector)
            if at_decoded:
                changed[:, last + 1 :] += torch.tensor(vector)
            return changed

        return add

    layers = reference.model.language_model.layers
    handles = [layers[layer].register_forward_hook(hook(vector)) for layer, vector in added.items()]
    ids = torch.tensor(tokens).long()[None]
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.tensor(pixels),
        "image_grid_thw": torch.tensor([[1, 4, 12]]),
    }
    with torch.no_grad():
        logits = reference(**given).logits[0, -1].numpy()
    for handle in handles:
        handle.remove()
    return logits
