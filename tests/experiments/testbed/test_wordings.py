import string

import numpy as np
import pytest

from experiments.testbed import questions
from experiments.testbed.scenes import draw_scenes
from gaze import prompts
from qwen3vl_jax.errors import InputError

SCENES = draw_scenes(np.random.default_rng(0))
CAPTIONS = [scene.caption for scene in SCENES]


def asked_often(ask, argument, count=400):
    rng = np.random.default_rng(1)
    return [ask(rng, SCENES, argument) for _ in range(count)]


def test_discovery_prompt_is_the_papers():
    assert prompts.fill(prompts.DISCOVERY, 2) == (
        "Look carefully at this six-panel comic strip. "
        "What is happening in the 3rd panel from the left? Answer briefly."
    )


@pytest.mark.parametrize(
    ("ask", "paper"),
    [
        (questions.panel_question, {prompts.fill(prompts.DISCOVERY, 4)}),
        (questions.this_panel_question, {prompts.STATIC}),
        (questions.strip_question, {prompts.VQA}),
    ],
)
def test_questions_about_one_panel_answer_with_its_caption(ask, paper):
    asked = asked_often(ask, np.int64(4))
    assert {answer for _, answer in asked} == {CAPTIONS[4]}
    assert 150 < sum(question in paper for question, _ in asked) < 250
    assert len({question for question, _ in asked}) >= 9


@pytest.mark.parametrize("panel", range(6))
def test_a_panel_question_names_only_its_panel(panel):
    names = [{prompts.ORDINALS[k], prompts.ORDINAL_WORDS[k], str(k + 1)} for k in range(6)]
    for question, _ in asked_often(questions.panel_question, panel):
        words = set(question.translate(str.maketrans("", "", string.punctuation)).split())
        assert [k for k in range(6) if words & names[k]] == [panel], question


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (2, 0, 1, 5, 3, 4)])
def test_numbered_narration_follows_the_order_it_asks_for(order):
    for question, answer in asked_often(questions.numbered_narration, np.array(order), 50):
        assert answer.splitlines() == [f"Panel {k + 1}: {CAPTIONS[k]}" for k in order]
        reverse = "reverse" in question or "right to left" in question
        assert reverse == (order == (5, 4, 3, 2, 1, 0))
        assert ("3, 1, 2, 6, 4, 5" in question) == (order == (2, 0, 1, 5, 3, 4))


def test_free_narration_has_no_numbers_and_does_not_tell_the_order():
    asked = asked_often(questions.free_narration, (2, 0, 1, 5, 3, 4))
    assert {answer for _, answer in asked} == {" ".join(CAPTIONS[k] for k in (2, 0, 1, 5, 3, 4))}
    assert {question for question, _ in asked} == {
        question for question, _ in asked_often(questions.free_narration, (0, 1, 2, 3, 4, 5))
    }
    assert {prompts.DYNAMIC, prompts.NOTEBOOK_NARRATION} <= {question for question, _ in asked}


def test_verbatim_probability_is_obeyed():
    rng = np.random.default_rng(2)
    assert {questions.strip_question(rng, SCENES, 0, verbatim=1.0)[0] for _ in range(50)} == {prompts.VQA}
    assert prompts.VQA not in {questions.strip_question(rng, SCENES, 0, verbatim=0.0)[0] for _ in range(50)}


def test_panels_are_told_in_words_up_to_twelve():
    assert "twelve-panel comic strip. What is happening in the 12th panel" in prompts.fill(prompts.DISCOVERY, 11, 12)
    assert "'Panel 4:', 'Panel 3:'" in prompts.fill(prompts.REVERSE_TRAJECTORY, 0, 4)
    for panel, panels in ((12, 12), (-1, 6), (0, 1), (0, 13)):
        with pytest.raises(InputError, match=r"panels? is"):
            prompts.fill(prompts.DISCOVERY, panel, panels)
