"""Experiment 2: probes ask what they say, shares are what was planted, and the chapter tells just that, without a model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from experiments.paper import e2_layers
from experiments.paper.layer_steering import reverse_narration
from experiments.paper.layer_steering.letter_probes import (
    Prober,
    backward,
    first,
    forward,
    other_orders,
    probes,
    questions,
)
from experiments.paper.layer_steering.letter_task import (
    Read,
    all_digests,
    by_place,
    collect_orders,
    direction,
    effects,
    order_file,
)
from experiments.paper.layer_steering.panel_labels import LETTERS
from experiments.paper.layer_steering.reverse_narration import (
    bands,
    paper_band,
    split_sentences,
    summary,
    tellings,
    trials,
)
from experiments.run.models import ModelFacts
from experiments.run.records import Records
from experiments.run.run import Run
from experiments.run.settings import presets
from experiments.testbed.sparse.strips import draw_strips
from experiments.testbed.wordings import LETTERS as WORDINGS
from gaze.heads import HeadSet
from gaze.prompts import LETTER
from gaze.testbed import SPARSE
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

LAYERS, EMBED, BEST = 6, 8, 4
ALL = (forward(3), backward(3), (1, 0, 2))


@pytest.fixture(scope="module")
def strips():
    return draw_strips(3, "layers", 5)


@pytest.fixture(scope="module")
def prober(strips):
    """A small model with random weights that reads like the testbed."""
    raw = json.loads((SPARSE / "config.json").read_text())
    raw["text_config"] |= {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    raw["text_config"]["num_key_value_heads"] = 1
    raw["vision_config"] |= {"hidden_size": 32, "intermediate_size": 32, "depth": 2, "num_heads": 2}
    raw["vision_config"] |= {"out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    model = Qwen3VL(Config.from_dict(raw), nnx.Rngs(0))
    return Prober.make(model, Processor.load(SPARSE), [questions(order) for order in ALL], strips)


def test_questions_name_the_order_they_count_in():
    assert questions((0, 1, 2))[2] == "What is the letter on the 3rd panel? Answer with one letter."
    assert questions((2, 1, 0))[0].startswith("Read the comic in reverse, what is the letter on the 1st panel?")
    assert questions((1, 0, 2))[1].startswith(
        "Read the panels in the order 2, 1, 3, what is the letter on the 2nd panel?"
    )


def test_probes_wear_the_letters_that_are_expected(strips):
    some = probes(strips, 4, seed=0)
    assert [len(strip) for strip in some.strips] == [4] * 5
    assert all(len(set(row)) == 4 for row in some.letters.tolist())
    np.testing.assert_array_equal(some.expected(backward(4)), some.letters[:, ::-1])
    np.testing.assert_array_equal(some.expected((2, 0, 1, 3))[:, 0], some.letters[:, 2])
    plain = np.asarray(first(strips[0], 4).image)
    changed = np.abs(np.asarray(some.strips[0].image, np.int32) - plain).max(axis=(0, 2)) > 0
    width = strips[0].widths[0]
    assert [changed[n * width : (n + 1) * width].any() for n in range(4)] == [True] * 4
    assert not np.array_equal(some.letters, probes(strips, 4, seed=1).letters)


def test_other_orders_are_neither_of_the_usual_ones():
    orders = other_orders(6, 40, seed=0)
    assert len({*orders}) == 40
    assert not {forward(6), backward(6)} & {*orders}
    assert all(sorted(order) == [*range(6)] for order in orders)
    assert orders == other_orders(6, 40, seed=0)
    assert len(other_orders(3, 99, seed=0)) == 4


def test_asking_in_batches_changes_nothing(strips, prober, monkeypatch):
    some, asked = probes(strips, 3, 0).strips, questions(backward(3))
    stream, said = prober.observe(some, asked)
    monkeypatch.setattr("experiments.paper.layer_steering.letter_probes.ROWS", 6)
    batched, again = prober.observe(some, asked)
    assert stream.shape == (5, 3, 2, 32)
    np.testing.assert_allclose(stream, batched, atol=1e-4)
    np.testing.assert_allclose(said.scores, again.scores, atol=1e-4)


def test_pushes_by_place_reach_their_own_question(strips, prober):
    some, asked = probes(strips, 3, 0).strips[:2], questions(forward(3))
    _, alone = prober.observe(some, asked)
    vectors = np.random.default_rng(0).normal(size=(2, 2, 3, 32)).astype(np.float32) * 3
    vectors[:, :, 1] = 0
    pushed = prober.push(some, asked, vectors, np.eye(2, dtype=np.float32))
    assert [one.scores.shape for one in pushed] == [(2, 2, 3, len(LETTERS))] * 2
    for one in pushed:
        moved = np.abs(one.scores - alone.scores).max(axis=(0, 1, 3))
        assert moved[1] < 1e-5
        assert moved[[0, 2]].min() > 0.01
    single = prober.push(some, asked, vectors[1:, :, :1], np.eye(2, dtype=np.float32))[0]
    np.testing.assert_allclose(single.scores[:, :, 0], pushed[1].scores[:, :, 0], atol=1e-5)


def test_letters_that_are_several_tokens_are_refused(strips, prober):
    with pytest.raises(InputError, match="no single token for Ω"):
        Prober.make(prober.model, prober.processor, [questions(forward(3))], strips, "AΩ")


def make_read(seed, right, expected, shift):
    """Reads whose stream carries `shift` [place, layer, embed] on noise."""
    rng = np.random.default_rng(seed)
    stream = (rng.normal(size=(*right.shape, LAYERS, EMBED)) * 0.01 + shift).astype(np.float32)
    return Read(stream, expected, np.zeros((*right.shape, len(LETTERS)), np.float32), expected, right)


def test_directions_come_from_right_pairs_only():
    expected = np.tile(np.arange(3), (40, 1))
    right = np.ones((40, 3), bool)
    right[::2, 2] = False
    normal = make_read(0, right, expected, 0.0)
    planted = np.arange(3)[:, None, None] + np.ones((3, LAYERS, EMBED))
    reverse = make_read(1, np.ones((40, 3), bool), expected[:, ::-1], planted)
    reverse.stream[::2, 2] = 100  # answered wrongly without the prefix: must not count
    reverse.stream[:, 1] = 100  # the middle panel, whose letter is the same both ways
    np.testing.assert_allclose(direction(reverse, normal), np.full((LAYERS, EMBED), 5 / 3), atol=0.02)
    places = by_place(reverse, normal)
    np.testing.assert_allclose(places[:, 0], 1, atol=0.02)
    np.testing.assert_allclose(places[:, 2], 3, atol=0.02)
    assert (places[:, 1] == 0).all()
    assert (direction(make_read(2, right & False, expected, 1.0), normal) == 0).all()


def make_arrays(panels, pushes, strips=10, others=("discovery", "selection")):
    """Answers as `Letters.collect` saves them.

    All plain and reversed questions are right but those about strip 0. A push flips the share of strips that `pushes`
    has for it after `BEST`; after the other layers the answer stays, but in the last one it is no letter at all.
    """
    rng = np.random.default_rng(panels)
    letters = np.arange(100, 100 + len(LETTERS), dtype=np.int32)
    expected = np.stack([rng.permutation(len(LETTERS))[:panels] for _ in range(strips)])
    expected = np.stack([expected, expected[:, ::-1], np.roll(expected, 1, axis=1)])
    arrays = {"letters": letters, "direction": np.ones((LAYERS, EMBED), np.float32)}
    arrays |= {"silhouette": np.linspace(0, 0.5, LAYERS), "points": rng.normal(size=(LAYERS, 2 * strips * panels, 2))}
    arrays |= {"place silhouettes": np.eye(panels, LAYERS, 2), "first points": rng.normal(size=(LAYERS, 2 * strips, 2))}
    token = letters[expected]
    token[:, 0] = 7
    scores = 4.0 * np.eye(len(LETTERS), dtype=np.float32)[expected]
    for purpose in ("evaluation", *others):
        arrays |= {f"{purpose}: token": token, f"{purpose}: expected": expected, f"{purpose}: scores": scores}
    for name, share in pushes.items():
        here, there = (1, 0) if "back" in name else (0, 1)
        said, moved = np.tile(token[here], (LAYERS, 1, 1)), np.tile(scores[here], (LAYERS, 1, 1, 1))
        flipped = 1 + round(share * (strips - 1))
        said[BEST, 1:flipped] = token[there, 1:flipped]
        moved[BEST, 1:flipped] = scores[there, 1:flipped]
        said[-1] = 9
        arrays |= {f"pushed {name}: token": said, f"pushed {name}: scores": moved}
    return arrays


def test_effects_are_what_was_planted():
    arrays = make_arrays(6, {"reverse": 2 / 3, "back": 1 / 3, "one": 0, "two": 1})
    rows = effects(arrays, ["reverse"])
    assert [row["answers"] for row in rows] == [9 * 6] * LAYERS
    assert [row["flip"] for row in rows] == pytest.approx([0, 0, 0, 0, 2 / 3, 0])
    assert [row["stay"] for row in rows] == pytest.approx([1, 1, 1, 1, 1 / 3, 0])
    assert [row["neither"] for row in rows] == pytest.approx([0, 0, 0, 0, 0, 1])
    assert [row["difference"] for row in rows] == pytest.approx([-4, -4, -4, -4, 4 / 3, -4])
    low, high = rows[BEST]["interval"]
    assert 0.2 < low < 2 / 3 < high <= 1
    assert effects(arrays, ["back"], (1, 0))[BEST]["flip"] == pytest.approx(1 / 3)
    assert effects(arrays, ["one", "two"])[BEST]["flip"] == pytest.approx(0.5)
    assert effects(make_arrays(3, {"reverse": 1}), ["reverse"])[0]["answers"] == 9 * 2  # without the middle panel
    arrays["evaluation: token"][1] = 0
    assert effects(arrays, ["reverse"]) == []


def test_bands_have_the_depth_of_the_papers():
    assert paper_band(36) == tuple(range(20, 29))
    assert paper_band(6) == (3, 4)
    assert paper_band(1) == (0,)
    assert {(0,), (5,), (1, 2, 3), (0, 1, 2, 3, 4, 5)} <= {*bands(6)}
    assert all(band == tuple(range(band[0], band[-1] + 1)) and band[-1] < 36 for band in bands(36))
    assert len(bands(36)) < 40


def test_orders_of_telling():
    told = [[0, 1, 2, 3], [3, 2, 1, 0], [3, None, 3, 0], [None], [3, 1, 0]]
    found = summary(told, [4] * 5, np.arange(5))
    assert found["defined"] == 3
    assert found["correlation"] == pytest.approx(-1 / 3)
    assert found["zero_filled"] == pytest.approx(-1 / 5)
    assert found["last_first"] == pytest.approx(3 / 5)
    assert found["first_first"] == found["forwards"] == found["backwards"] == pytest.approx(1 / 5)
    assert found["sentences"] == pytest.approx(16 / 5)
    assert found["lost"] == pytest.approx(2 / 16)
    assert split_sentences("A cat. A dog!\n\nPanel 3: a fox") == ["A cat.", "A dog!", "Panel 3: a fox"]


@pytest.fixture
def run(tmp_path):
    """A run whose model has spoken: everything is saved, as if `collect` had run, and there is no model to be opened."""
    run = Run(tmp_path / "run", replace(presets("testbed-sparse"), discovery=10, selection=6, evaluation=10, draws=3))
    run.__dict__["_facts"] = ModelFacts(weights="", stamp=None, revision="planted", layers=LAYERS, heads=4)
    HeadSet(((4, 1), (2, 0), (4, 3)), (0.3, 0.2, 0.1), "gaze", "testbed-sparse").save(run.folder / "heads.json")
    pushes = {"reverse": 2 / 3, "other": 1 / 9, "places": 1, "back reverse": 1 / 3, "back places": 1}
    pushes |= {"selection reverse": 1, "selection places": 1 / 9}
    pushes |= {f"random{kind} {draw}": draw / 9 for draw in range(3) for kind in ("", " places")}
    for panels in e2_layers.counts(run):
        known = {"known": 1 / 3} if panels < 6 else {}
        run.saved(run.place("e2_layers") / f"letters-{panels}.npz", lambda: make_arrays(panels, pushes | known))  # noqa: B023
    for number, order in enumerate(other_orders(6, e2_layers.ORDERS, run.settings.seed)):
        arrays = make_arrays(6, {"order": number % 2, "places": 1})
        arrays["evaluation: token"][1, 1:6] = 0
        run.saved(order_file(run.place("e2_layers") / "orders", order), lambda: arrays, all_digests(run), order)  # noqa: B023
    for number in range(len(WORDINGS.paraphrases)):
        arrays = make_arrays(6, {"reverse": 1 / 3, "places": 1})
        arrays |= {name: array[:2] for name, array in arrays.items() if name.startswith("evaluation")}
        run.saved(run.place("e2_layers") / "wordings" / f"{number}.npz", lambda: arrays)  # noqa: B023
    tell(
        run,
        "e2_layers/bands",
        "selection",
        trials(LAYERS, reverse_narration.DIRECTIONS),
        {"letters 2-3-4": -1, "narration 5": -1},
    )
    told = {"reverse": -1, "letters, best band": -1, "narration, paper band": -1, "letters, back": 1}
    tell(run, "e2_layers", "evaluation", tellings(run, "e2_layers"), told)
    return run


def tell(run, place, purpose, conditions, backwards_told):
    """Narrations from left to right, or from right to left for conditions with -1."""
    records = Records(run.place(place) / "answers.jsonl")
    for one in conditions:
        way = backwards_told.get(one.name, 1)
        texts = {strip.name: " ".join(strip.captions[::way]) for strip in reverse_narration.strips(run, purpose)}
        rows = [{"strip": name, "condition": one.name, "text": text} for name, text in texts.items()]
        records.add({one.name: rows})


def test_sums_up_what_was_saved(run):
    found = json.loads(json.dumps(e2_layers.sum_up(run)))
    six = found["panels"]["6"]
    assert found["chosen"] == {"reverse": BEST, "places": BEST}
    assert found["revision"] == "planted"
    assert six["asked"]["normal"]["value"] == pytest.approx(0.9)
    assert (six["pairs"], six["possible"], six["discovery_pairs"]) == (54, 60, 54)
    assert six["reverse"][BEST]["flip"] == pytest.approx(2 / 3)
    assert six["random"][BEST]["flip"] == pytest.approx(1 / 9)
    assert [draw[BEST] for draw in six["random draws"]] == pytest.approx([0, 1 / 9, 2 / 9])
    assert six["difference_alone"] == pytest.approx(-4)
    assert [row["answers"] for row in found["panels"]["3"]["per_panel"]["places"]] == [9, 9]
    assert six["back reverse"][BEST]["flip"] == pytest.approx(1 / 3)
    assert found["panels"]["3"]["known"][BEST]["flip"] == pytest.approx(1 / 3)
    assert [row["flip"] for row in found["orders"]] == pytest.approx([0, 1 / 2] * 6, abs=0.51)
    assert {row["answers"] for row in found["orders"]} == {24}
    assert [row["asked"]["value"] for row in found["orders"]] == pytest.approx([0.4] * 12)
    told = found["narration"]
    assert told["bands"] == {"letters": [2, 3, 4], "first letter": [0], "narration": [5], "paper": [3, 4]}
    assert told["conditions"]["normal"]["correlation"] == pytest.approx(1)
    assert told["conditions"]["letters, best band"]["backwards"] == 1
    assert told["conditions"]["letters, back"]["forwards"] == 1


def test_the_chapter_tells_the_numbers(run):
    chapter = e2_layers.chapter(run, e2_layers.sum_up(run))
    text = " ".join(chapter.findings)
    assert "flips 66.7%" in text
    assert "the gaze heads lie in layers 2, 4." in text
    assert "3 random draws of the same length flip 11.1% on average, 0.0% to 22.2%" in text
    assert "of 4 panels 66.7% by one direction, 33.3% by that of six panels, 100.0% by those per place" in text
    assert "+1.00 and 0.0% left alone, -1.00 and 100.0% when asked to read in reverse" in text
    names = ["effect", "panels", "separation", "separation_first", "orders", "narration"]
    assert [plot.name for plot in chapter.plots] == names
    assert not any("does not come out" in caveat for caveat in chapter.caveats)
    for table in chapter.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_a_model_that_cannot_read_in_reverse_has_nothing_to_flip(run):
    for panels in e2_layers.counts(run):
        path = run.place("e2_layers") / f"letters-{panels}.npz"
        arrays = dict(np.load(path))
        for purpose in ("evaluation", "discovery", "selection"):
            arrays[f"{purpose}: token"][1] = 0
        np.savez(path, **arrays)
    results = e2_layers.sum_up(run)
    assert {*results["chosen"].values()} <= {*paper_band(LAYERS)}
    assert results["panels"]["6"]["reverse"] == []
    chapter = e2_layers.chapter(run, results)
    assert any("nothing to flip" in caveat for caveat in chapter.caveats)
    assert {one.here for one in chapter.compared if "flipped" in one.what} == {"no pairs"}


def test_orders_that_are_saved_are_not_asked_again(run, monkeypatch):
    monkeypatch.setattr("experiments.run.run.open_model", None)
    collect_orders(run, 6, e2_layers.ORDERS, run.place("e2_layers") / "orders")


def test_the_prompts_have_the_papers_words():
    assert LETTER in WORDINGS.paper
    assert questions(backward(6))[0].startswith("Read the comic in reverse,")
