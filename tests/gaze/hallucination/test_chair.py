"""The original's own matches and scores, recorded; what it has not, against direct computations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gaze.hallucination.chair import Caption, at_common_length, score, sentences, true_objects
from gaze.hallucination.chair_words import ChairRules, chair_rules
from qwen3vl_jax.errors import InputError

RECORDED = json.loads((Path(__file__).parent / "chair_recorded.json").read_text())


@pytest.fixture(scope="module")
def rules() -> ChairRules:
    return chair_rules()


def found(rules: ChairRules, caption: str) -> list[list[str]]:
    return [[mention.word, mention.object] for mention in rules.mentions(caption)]


def differing(rules: ChairRules) -> list[str]:
    return [caption for caption, mentions in RECORDED["captions"] if found(rules, caption) != mentions]


def test_mentions_are_those_of_the_original(rules: ChairRules) -> None:
    assert len(RECORDED["captions"]) == 380
    assert differing(rules) == []


@pytest.mark.parametrize(
    "other",
    [
        {"double_words": {}},
        {"singular": {}},
        {"double_words": lambda table: {**table, "bow tie": "bow tie"}},
        {"singular": lambda table: {**table, "bus": "bus"}},
        {"singular": lambda table: {**table, "ties": "tie"}},
        {"synonyms": lambda groups: [[*group, "cheesecake"] if group[0] == "cake" else group for group in groups]},
    ],
)
def test_other_rules_match_otherwise(rules: ChairRules, other: dict[str, Any]) -> None:
    """Negative control: one rule more, less or other, and the recorded matches differ."""
    changed = {name: value(getattr(rules, name)) if callable(value) else value for name, value in other.items()}
    assert differing(replace(rules, **changed)) != []


@pytest.mark.parametrize("number", range(len(RECORDED["groups"])))
def test_truth_and_scores_are_those_of_the_original(rules: ChairRules, number: int) -> None:
    group = RECORDED["groups"][number]
    texts = [caption for caption, _ in RECORDED["captions"]]
    truth = {
        str(place): true_objects(rules, one["instances"], [texts[which] for which in one["references"]])
        for place, one in enumerate(group["pictures"])
    }
    assert [sorted(truth[str(place)]) for place in range(len(truth))] == group["truth"]
    captions = [Caption(str(place), texts[one["caption"]]) for place, one in enumerate(group["pictures"])]
    wrong = [[one for one in found(rules, caption.text) if one[1] not in truth[caption.image]] for caption in captions]
    assert wrong == group["hallucinated"]
    scores = score(rules, captions, truth)
    assert scores.mention is not None
    assert scores.sentence.value == pytest.approx(group["CHAIRs"], abs=1e-12)
    assert scores.mention.value == pytest.approx(group["CHAIRi"], abs=1e-12)
    instances = {str(place): frozenset(one["instances"]) for place, one in enumerate(group["pictures"])}
    fewer = score(rules, captions, instances).mention
    # Negative control: without the reference captions more would be hallucinated.
    assert fewer is not None
    assert fewer.value > scores.mention.value or truth == instances


def test_the_rules_are_whole(rules: ChairRules) -> None:
    words = [word for group in rules.synonyms for word in group]
    assert (len(rules.categories), len({*words}), len(words)) == (80, 400, 400)
    assert not {*rules.unmatched} & {*words}
    assert "BSD" in rules.licence


def test_every_number_by_hand(rules: ChairRules) -> None:
    truth = {"a": frozenset({"dog", "cat"}), "b": frozenset({"kite"})}
    captions = [
        Caption("a", "A dog and a dog and a dog. A boat."),
        Caption("b", "Nothing is seen here at all", ended=False),
    ]
    scores = score(rules, captions, truth)
    assert (scores.captions, scores.sentence.value) == (2, 0.5)
    assert scores.mention is not None
    assert scores.object is not None
    assert scores.recall is not None
    assert scores.repeated is not None
    assert (scores.mention.value, scores.object.value) == (1 / 4, 1 / 2)
    assert scores.recall.value == pytest.approx(1 / 3)
    assert (scores.objects.value, scores.words.value, scores.ended.value) == (1.0, (10 + 6) / 2, 0.5)
    assert scores.repeated.value == pytest.approx(2 / (7 + 3))  # "a dog and a", "dog and a dog" once more each
    assert scores.mention.strips == 1


def test_what_is_a_share_of_nothing_is_none(rules: ChairRules) -> None:
    scores = score(rules, [Caption("a", "No.")], {"a": frozenset()})
    assert (scores.mention, scores.object, scores.recall, scores.repeated) == (None, None, None, None)
    assert scores.sentence.value == 0


def test_a_loop_lowers_mentions_and_not_objects(rules: ChairRules) -> None:
    truth = {"a": frozenset({"dog"})}
    short, loop = (score(rules, [Caption("a", text)], truth) for text in ("A dog, a boat.", "A dog, a dog, a boat."))
    assert short.mention is not None
    assert loop.mention is not None
    assert loop.mention.value < short.mention.value
    assert short.object is not None
    assert loop.object is not None
    assert loop.object.value == short.object.value


def test_sentences_are_complete() -> None:
    assert sentences('A dog. "A cat!" Two (2.5) owls? A cut off') == ["A dog.", '"A cat!"', "Two (2.5) owls?"]
    assert sentences("no end") == []
    assert sentences("") == []


def test_arms_are_cut_to_the_sentences_that_all_have() -> None:
    arms = {
        "long": [Caption("a", "One. Two. Three."), Caption("b", "One. Two"), Caption("c", "One.")],
        "short": [Caption("b", "Uno. Due."), Caption("a", "Uno. Due."), Caption("c", "cut off")],
    }
    cut, lost = at_common_length(arms)
    assert lost == 1
    assert [(one.image, one.text) for one in cut["long"]] == [("a", "One. Two."), ("b", "One.")]
    assert [(one.image, one.text) for one in cut["short"]] == [("b", "Uno."), ("a", "Uno. Due.")]
    with pytest.raises(InputError, match="same pictures"):
        at_common_length({"x": arms["long"], "y": arms["short"][:2]})


def test_what_cannot_be_scored_is_named(rules: ChairRules) -> None:
    with pytest.raises(InputError, match="no caption"):
        score(rules, [], {})
    with pytest.raises(InputError, match=r"'b\.jpg'"):
        score(rules, [Caption("b.jpg", "A dog.")], {"a": frozenset()})
    with pytest.raises(InputError, match="no category 'unicorn'"):
        true_objects(rules, ["unicorn"], [])
