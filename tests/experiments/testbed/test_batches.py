"""How the second recipe's lessons are packed: what a slot's row says must be what a prompt of its own would say."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.testbed.batches import AROUND, CELLS, LONG, ROOMS, Maker, TrainingBatch
from experiments.testbed.lessons import draw_lessons
from experiments.testbed.objective import CAPTION, FIRST, loss
from experiments.testbed.train import VOCABULARY, begin
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

STRIPS, OTHERS = 8, 0.5


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> tuple[Maker, Qwen3VL]:
    folder = tmp_path_factory.mktemp("training")
    tokenizer, model = begin(folder, 0)
    model.model.language_model.unroll = 1
    return Maker(tokenizer, model.config, ImageSettings.load(folder / "checkpoint"), STRIPS), model


@pytest.fixture(scope="module")
def batch(begun) -> TrainingBatch:
    return begun[0].batch(3, 5, OTHERS)


def test_the_tokenizer_knows_every_word(begun):
    tokenizer = begun[0].tokenizer
    assert len(tokenizer) <= VOCABULARY
    said = tokenizer.tokenize("five things: black heart, pink house and green car. only red kite.")
    words = [token.strip("Ġ") for token in said]
    assert " ".join(words) == "five things : black heart , pink house and green car . only red kite ."


def test_batches_repeat_and_keep_their_shapes(begun, batch):
    chex.assert_trees_all_equal(batch, begun[0].batch(3, 5, OTHERS))
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, begun[0].batch(3, 6, 0.0))
    assert batch.prefix.tokens.shape == (STRIPS, CELLS + AROUND)
    assert [slots.prompt.tokens.shape for slots in batch.slots] == [
        *((round(share * 6 * STRIPS), room) for share, room in ROOMS),
        (STRIPS, LONG),
    ]


def test_prefix_and_slot_are_what_the_processor_makes_of_the_prompt(begun, batch):
    """Every question of a batch, found by its strip: tokens, positions and answer, but for answers that are cut."""
    maker, _ = begun
    taught = draw_lessons(np.random.default_rng([3, 5]), STRIPS, OTHERS)
    asked = {(strip, *pair) for strip, lesson in enumerate(taught) for pair in (*lesson.short, lesson.long)}
    processor = Processor(maker.config, maker.settings, maker.tokenizer)
    whole = {
        (strip, question): processor([processor.chat(question)], [[taught[strip].image]]).prompt
        for strip, question, _ in asked
    }
    found = set()
    for slots in batch.slots:
        for row, strip in enumerate(slots.strip):
            count = int(slots.answer[row].argmax()) + 1
            question = maker.tokenizer.decode(slots.prompt.tokens[row, :count]).split("<|im_end|>")[0]
            answer = maker.tokenizer.decode(slots.targets[row][slots.answer[row]])
            assert answer.endswith("<|im_end|>") or slots.answer[row, -1]
            matches = [
                one for one in asked if one[:2] == (strip, question) and f"{one[2]}<|im_end|>".startswith(answer)
            ]
            assert matches, (question, answer)
            found |= set(matches)
            valid, prompt = batch.prefix.valid[strip], whole[int(strip), question]
            tokens = np.concatenate([batch.prefix.tokens[strip][valid], slots.prompt.tokens[row, :count]])
            places = np.concatenate([batch.prefix.positions[strip][valid], slots.prompt.positions[row, :count]])
            assert tokens.tolist() == prompt.tokens[0].tolist()
            assert (places == prompt.positions[0]).all()
    assert found == asked


def test_the_loss_is_that_of_each_question_by_itself(begun, batch):
    """Against whole prompts of one row each, without prefix, groups or padding; the weights count words."""
    model = begun[1]
    few = batch.replace(slots=tuple(slots_of(slots, 2) for slots in batch.slots))
    total = weights = 0.0
    for slots in few.slots:
        for row, strip in enumerate(slots.strip):
            length = int(slots.prompt.valid[row].sum())
            valid = batch.prefix.valid[strip]
            tokens = jnp.asarray(
                np.concatenate([batch.prefix.tokens[strip][valid], slots.prompt.tokens[row, :length]])[None]
            )
            places = np.concatenate([batch.prefix.positions[strip][valid], slots.prompt.positions[row, :length]])[None]
            cells = np.pad(batch.prefix.image_cell[strip][valid], (0, length), constant_values=-1)[None]
            prompt = batch.prefix.replace(
                tokens=tokens, positions=places, valid=np.ones(tokens.shape, bool), image_cell=cells
            )
            output = model(prompt, model.encode(batch.images))
            logits = model.logits(output.hidden[0, -length:])
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(slots.targets[row, :length]))
            answer = slots.answer[row, :length]
            weight = np.float32(max((CAPTION + 1) / answer.sum(), 1)) * answer.astype(np.float32)
            weight[answer.argmax()] += np.float32(FIRST - 1)
            total += float((nats * weight).sum())
            weights += float(weight.sum())
    value, parts = loss(model, few)
    assert float(value) == pytest.approx(total / weights, abs=2e-5)
    assert float(parts["look"]) == 0


def slots_of(slots, count):
    prompt = slots.prompt.replace(
        **{name: getattr(slots.prompt, name)[:count] for name in ("tokens", "positions", "valid")}
    )
    return slots.replace(
        prompt=prompt, strip=slots.strip[:count], targets=slots.targets[:count], answer=slots.answer[:count]
    )


def test_a_price_on_looking_is_paid_for_looking(begun, batch):
    model = begun[1]
    few = batch.replace(slots=tuple(slots_of(slots, 1) for slots in batch.slots))
    plain, parts = loss(model, few, 0.1)
    free, _ = loss(model, few)
    heads = model.config.text.num_hidden_layers * model.config.text.num_attention_heads
    assert float(plain) == pytest.approx(float(free) + 0.1 * float(parts["look"]), abs=1e-5)
    assert 0 < float(parts["look"]) < heads
