"""Answers in padded batches are those of one question alone, and the margin is that of the model's own logits."""

import jax
import numpy as np
import pytest
from PIL import Image

from gaze.hallucination.answers import BLIND, PLAIN, Arm, Room, YesNo, answer, needed, yes_no
from gaze.hallucination.arms import ArmModel, make_arm
from gaze.heads import HeadSet
from gaze.testbed import CHECKPOINT, STRIP
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate, read_prompt
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

QUESTIONS = ["Is there a kite in the image?", "Is there a dog?", "What is happening in panel 2?"]


@pytest.fixture(scope="module")
def opened() -> tuple[Qwen3VL, Processor]:
    return load(CHECKPOINT)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    whole = Image.open(STRIP).convert("RGB")
    return [whole, whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


STEERED = ["gaze-pai:amount=2", "cg:gate=random,layers=1-6,amount=3", "vcd"]


def arm_of(name: str, opened: tuple[Qwen3VL, Processor]) -> Arm:
    plain = {arm.name: arm for arm in (PLAIN, BLIND)}
    if name in plain:
        return plain[name]
    heads = HeadSet.load(CHECKPOINT / "heads.json")
    return make_arm(name, ArmModel(opened[0].config, tuple(opened[1].stop_tokens), heads))


@pytest.mark.parametrize("name", [PLAIN.name, BLIND.name, *STEERED])
def test_a_batch_gives_what_each_question_alone_gives(
    name: str, opened: tuple[Qwen3VL, Processor], pictures: list[Image.Image]
) -> None:
    model, processor = opened
    arm = arm_of(name, opened)
    tokens = yes_no(processor)
    asked = [(number, text) for number in range(2) for text in QUESTIONS]
    grid = processor([processor.chat(QUESTIONS[0])], [[pictures[0]]]).grids[0]
    patches = int(np.prod(grid))
    room = Room(3, patches, 8, needed(processor, QUESTIONS, arm, patches) + 3)
    found = answer(model, processor, arm, pictures, asked, tokens, room, 9)
    assert len(found) == len(asked)
    for (number, text), one in zip(asked, found, strict=True):
        chat = processor.chat(text, images=int(arm.image))
        prompt, images, _ = processor([chat], [[pictures[number]]] if arm.image else None)
        vision = model.encode(images) if images is not None else None
        plan = None
        if arm.plan is not None:
            assert images is not None
            plan = arm.plan(prompt, images)
            logits = np.asarray(_read(model, prompt, vision, plan, max_new=9)[0], np.float64)
        else:
            logits = np.asarray(model.logits(model(prompt, vision).hidden[0, -1]), np.float64)
        gap = np.logaddexp.reduce(logits[[*tokens.yes]]) - np.logaddexp.reduce(logits[[*tokens.no]])
        assert one.margin == pytest.approx(gap, abs=2e-4)
        stop = Sampling.make(stop=processor.stop_tokens)
        alone = generate(model, prompt, vision, plan, stop, jax.random.key(0), max_new=9)
        length = int(alone.length[0])
        assert one.tokens == np.asarray(alone.tokens)[0, :length].tolist()
        assert one.ended == (length < 9)
        assert one.steps == min(length + 1, 9)
        if "random" in name:
            assert one.open == np.asarray(alone.carry.open)[0, : one.steps].sum()
        assert (one.added > 0) == (arm.boosts and one.open > 0)


_read = jax.jit(lambda *given, max_new: read_prompt(*given, max_new).logits, static_argnames="max_new")


def test_the_picture_tells(opened: tuple[Qwen3VL, Processor], pictures: list[Image.Image]) -> None:
    """Negative control: with another picture the margin is another."""
    model, processor = opened
    patches = int(np.prod(processor([processor.chat(QUESTIONS[0])], [[pictures[0]]]).grids[0]))
    room = Room(3, patches, 8, needed(processor, QUESTIONS, PLAIN, patches) + 3)
    asked = [(number, QUESTIONS[0]) for number in range(2)]
    one, other = answer(model, processor, PLAIN, pictures, asked, yes_no(processor), room, 9)
    assert abs(one.margin - other.margin) > 1e-3


class Words:
    """A tokenizer of which all that matters is what it makes of yes and no."""

    def __init__(self, ids: dict[str, list[int]]) -> None:
        self.ids = ids

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.ids[text]}


FORMS = [before + form for before in ("", " ") for form in ("yes", "Yes", "YES", "no", "No", "NO")]


def test_whole_words_are_taken_where_both_have_them(opened: tuple[Qwen3VL, Processor]) -> None:
    ids = {form: [number] for number, form in enumerate(FORMS)}
    ids["YES"] = [90, 91]
    processor = opened[1]
    whole = Processor(processor.config, processor.settings, Words(ids))
    assert yes_no(whole) == YesNo((0, 1, 6, 7, 8), (3, 4, 5, 9, 10, 11), True)


def test_first_tokens_that_both_share_are_left_out(opened: tuple[Qwen3VL, Processor]) -> None:
    ids = {form: [50 if form[0] == " " else number, 99] for number, form in enumerate(FORMS)}
    processor = opened[1]
    assert yes_no(Processor(processor.config, processor.settings, Words(ids))) == YesNo((0, 1, 2), (3, 4, 5), False)
    same = Words({form: [7, 8] for form in FORMS})
    with pytest.raises(InputError, match="begins yes and no with the same tokens"):
        yes_no(Processor(processor.config, processor.settings, same))
