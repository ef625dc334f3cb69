"""The official script's own verdicts and numbers, recorded; what it has not, against direct computations."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gaze.hallucination.pope import at_yes_ratio, auroc, equal_recall, official, score, strict
from qwen3vl_jax.errors import InputError

RECORDED = json.loads((Path(__file__).parent / "pope_recorded.json").read_text())


def plain_words(text: str) -> bool:
    """The official rule without its faults."""
    return not {"no", "not"} & {*text.lower().replace(",", " ").split()}


def test_the_official_parser_says_what_the_official_script_said() -> None:
    assert [text for text, yes in RECORDED["answers"] if official(text) is not yes] == []
    # Negative control: a rule that mends its faults parses other answers otherwise.
    assert len([text for text, yes in RECORDED["answers"] if plain_words(text) is not yes]) > 20


@pytest.mark.parametrize("number", range(len(RECORDED["groups"])))
def test_scores_are_those_of_the_official_script(number: int) -> None:
    group = RECORDED["groups"][number]
    said = [official(RECORDED["answers"][place][0]) for place in group["answers"]]
    found = score(np.array(group["labels"]), said, np.arange(len(said)))
    wanted = group["metrics"]
    if wanted is None:  # the script divides by zero
        assert None in (found.precision, found.recall, found.f1)
        return
    counts = found.true_yes, found.false_yes, found.true_no, found.false_no
    assert counts == tuple(wanted[name] for name in ("TP", "FP", "TN", "FN"))
    for name, value in (("acc", found.accuracy), ("yes_ratio", found.yes_ratio), ("f1", found.f1)):
        assert value is not None
        assert value.value == pytest.approx(wanted[name], abs=1e-12)
    assert found.precision is not None
    assert found.recall is not None
    assert found.precision.value == pytest.approx(wanted["precision"], abs=1e-12)
    assert found.recall.value == pytest.approx(wanted["recall"], abs=1e-12)
    assert found.unparsed == 0


def test_zero_divisions_are_recorded() -> None:
    assert sum(group["metrics"] is None for group in RECORDED["groups"]) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", True),
        ("yes.", True),
        ("  **Yes**, there is one.", True),
        ("NO", False),
        ("No, there is no dog. Yes, there is a cat.", False),
        ("no\nyes", False),
        ("", None),
        ("...", None),
        ("There is a dog.", None),
        ("Yes and no.", None),
        ("Not really", None),
        ("Nope", None),
        ("yesterday", None),
        ("not", None),
    ],
)
def test_the_strict_parser_wants_the_word_first(text: str, says: bool | None) -> None:
    assert strict(text) is says


def test_an_unparsable_answer_is_wrong_whatever_the_truth() -> None:
    found = score(np.array([True, False, True, False]), [True, False, None, None], np.arange(4))
    assert (found.accuracy.value, found.unparsed) == (0.5, 2)
    assert found.recall is not None
    assert found.precision is not None
    assert (found.recall.value, found.precision.value, found.yes_ratio.value) == (0.5, 1.0, 0.25)


def test_what_is_undefined_is_none() -> None:
    never = score(np.array([True, False]), [False, False], np.arange(2), np.zeros(2))
    assert (never.precision, never.f1) == (None, None)
    assert never.recall is not None
    assert never.recall.value == 0
    one_sided = score(np.array([False, False]), [True, False], np.arange(2), np.zeros(2))
    assert (one_sided.recall, one_sided.f1, one_sided.auroc) == (None, None, None)


def by_pairs(label: np.ndarray, margin: np.ndarray) -> float:
    gaps = margin[label][:, None] - margin[~label][None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


@pytest.mark.parametrize("seed", range(3))
def test_auroc_counts_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.random(60) < 0.4
    margin = np.round(rng.normal(size=60) + label, 1)  # with ties
    found = auroc(label, margin, rng.integers(0, 7, 60))
    assert found is not None
    assert found.value == pytest.approx(by_pairs(label, margin), abs=1e-12)
    assert found.low < found.value < found.high


def test_the_interval_of_auroc_covers() -> None:
    """Of 40 pictures with three questions of either kind each, which share a part of their margins."""
    rng, gap, hits = np.random.default_rng(0), 1.0, 0
    truth = float(stats.norm.cdf(gap / np.sqrt(2 * 2.0)))  # the variance of a margin is 2
    image, label = np.repeat(np.arange(40), 6), np.tile([True, False], 120)
    for _ in range(200):
        margin = rng.normal(size=40)[image] + rng.normal(size=240) + gap * label
        found = auroc(label, margin, image)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert hits >= 186  # 93 %


def test_no_interval_is_a_point() -> None:
    label = np.tile([True, False], 30)
    scores = score(label, [*label.tolist()], np.repeat(np.arange(10), 6), label.astype(float))
    for one in (scores.auroc, scores.f1, scores.precision, scores.recall):
        assert one is not None
        assert (one.value, one.high) == (1.0, 1.0)
        assert one.low < 0.95


def test_recall_must_be_equal_over_splits() -> None:
    label = np.array([True, True, False, False])
    same = [score(label, [True, False, second, False], np.arange(4)) for second in (True, False)]
    other = score(label, [True, True, True, False], np.arange(4))
    fewer = score(np.array([True, True, True, True, False]), [True, False, True, False, False], np.arange(5))
    one, two, more, less = (found.recall for found in (*same, other, fewer))
    assert equal_recall([one, two]) is True
    assert equal_recall([one, more]) is False
    assert equal_recall([one, less]) is False  # the same value, of other questions
    assert equal_recall([one]) is None


@pytest.mark.parametrize(
    ("label", "said", "margin", "fault"),
    [
        ([], [], None, "no question"),
        ([True, False], [True], None, "said has shape"),
        ([True, False], [True, False], [0.0, float("nan")], "margin"),
    ],
)
def test_what_does_not_fit_is_refused(
    label: list[bool], said: list[bool], margin: list[float] | None, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        score(np.array(label, bool), said, np.arange(len(label)), None if margin is None else np.array(margin))


def test_a_mere_shift_says_yes_where_the_margin_is_greatest() -> None:
    label, margin = np.array([True, False, True, False]), np.array([-1.0, -2.0, 3.0, 0.0])
    assert [at_yes_ratio(label, margin, yes) for yes in range(5)] == [0.5, 0.75, 0.5, 0.75, 0.5]
