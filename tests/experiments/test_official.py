"""The library against the paper's protocol done independently (`official.py`), on the shipped checkpoint, in float32 unless said.

Every identity comes with a control: a slight change that has to break it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.discovery.scores import gaze_score, rank
from gaze.heads import Head, HeadSet
from gaze.prompts import DISCOVERY, DYNAMIC, STATIC, VQA, fill
from gaze.steering import engine as asking
from gaze.steering.engine import Request
from gaze.steering.masks import MODES, QUERY_POSITIONS, schedule, steering
from gaze.steering.schedules import CONVENTIONS, targets
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

from .official import Answer, Mask, Official, counted, scheduled

PANELS = 6
STRIPS = draw_strips(1, "protocol", 3)
QUESTIONS = [fill(DISCOVERY, panel) for panel in range(PANELS)]
ORDERS = ((3, 0, 5, 1, 2, 4), (1, 2, 3, 4, 5, 0), (5, 4, 3, 2, 1, 0))
SEGMENTS = (7, 5)
"""Tokens per panel: as many as a caption has, where the paper takes 50, and fewer, so that targets change within one."""
SAID, TARGETS = (20, 30), (2, 4, 0)
"""Tokens of an answer that both are made to read, and the panels to look at in the pass over the prompt and over each."""
SOFT, HARD, PAPER = 10.0, 100.0, 10_000.0
"""Strengths: HARD already leaves nothing on suppressed keys, exp(-100) being 0 in float32."""
STEP = 2.0**-10
"""What float32 resolves at 10,000. Scores that two implementations round to neighbouring steps give weights up to a quarter
of it apart; at the smaller strengths float32 resolves scores to 1e-5 and better."""

Case = tuple[int, Sequence[Head], Sequence[int]]
"""Strip, heads, panels."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Passes this small are not worth sharing among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Ours(NamedTuple):
    model: Qwen3VL
    processor: Processor

    @property
    def shape(self) -> tuple[int, int]:
        return self.model.config.text.num_hidden_layers, self.model.config.text.num_attention_heads


@pytest.fixture(scope="module")
def library() -> Ours:
    return Ours(*open_model("testbed", "float32"))


@pytest.fixture(scope="module")
def official() -> Official:
    return Official(CHECKPOINT)


@pytest.fixture(scope="module")
def rounded() -> Official:
    """All in float32 but the addition of the mask, which is in bfloat16."""
    return Official(CHECKPOINT, addition=torch.bfloat16)


@pytest.fixture(scope="module")
def gaze_heads() -> tuple[Head, ...]:
    return HeadSet.load(CHECKPOINT / "heads.json").heads


@pytest.fixture(scope="module")
def any_heads(library: Ours) -> tuple[Head, ...]:
    """A third of all heads, with which answers break down, so that every token depends on the details."""
    layers, heads = library.shape
    drawn = np.random.default_rng(0).choice(layers * heads, layers * heads // 3, replace=False)
    return tuple((int(number) // heads, int(number) % heads) for number in drawn)


class Discovered(NamedTuple):
    ours: np.ndarray
    theirs: np.ndarray


@pytest.fixture(scope="module")
def scores(library: Ours, official: Official) -> Discovered:
    pictures = [(strip.image, strip.widths) for strip in STRIPS]
    return Discovered(
        gaze_score(asking.discover(*library, STRIPS, QUESTIONS)), official.gaze_scores(pictures, QUESTIONS)
    )


def test_gaze_scores_agree(scores: Discovered) -> None:
    assert np.abs(scores.ours - scores.theirs).max() <= 1e-5


def test_rankings_agree_up_to_ties(scores: Discovered) -> None:
    for one, other in ((scores.ours, scores.theirs), (scores.theirs, scores.ours)):
        assert all(other[a[:2]] > other[b[:2]] - 1e-6 for a, b in pairwise(rank(one)))


def test_the_known_heads_lead_the_ranking(scores: Discovered, gaze_heads: tuple[Head, ...]) -> None:
    leading = {row[:2] for row in rank(scores.theirs)[: len(gaze_heads)]}
    assert len(leading & {*gaze_heads}) >= 0.9 * len(gaze_heads)  # on three strips, where the known ones led on sixty


def test_questions_about_other_panels_score_differently(scores: Discovered, official: Official) -> None:
    pictures = [(strip.image, strip.widths) for strip in STRIPS]
    turned = official.gaze_scores(pictures, QUESTIONS[1:] + QUESTIONS[:1])
    assert np.abs(scores.ours - turned).max() > 0.1


@pytest.fixture(scope="module")
def cases(gaze_heads: tuple[Head, ...], any_heads: tuple[Head, ...]) -> list[Case]:
    """Gaze heads on every panel of two strips, the others on two of one."""
    found = [(strip, gaze_heads, [panel]) for strip in (0, 1) for panel in range(PANELS)]
    return found + [(0, any_heads, [panel]) for panel in (1, 4)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("question", "max_new"), [(VQA, 15), (STATIC, 100)])
def test_steered_answers_agree(
    question: str, max_new: int, mode: str, library: Ours, official: Official, cases: list[Case]
) -> None:
    ours = _ours(library, question, cases, 0, 1, max_new, mode=mode)
    theirs = [_held(official, question, case, max_new, mode) for case in cases]
    assert _differences(ours, theirs) == []


def test_another_panel_or_head_is_another_answer(
    library: Ours, official: Official, gaze_heads: tuple[Head, ...], cases: list[Case]
) -> None:
    ours = _ours(library, VQA, cases, 0, 1, 15)[:PANELS]
    next_panels = [(0, gaze_heads, [(panel + 1) % PANELS]) for panel in range(PANELS)]
    next_heads = [
        (0, [(layer, (head + 1) % library.shape[1]) for layer, head in gaze_heads], [n]) for n in range(PANELS)
    ]
    for wrong in (next_panels, next_heads):
        assert len(_differences(ours, [_held(official, VQA, case, 15) for case in wrong])) >= PANELS // 2


@pytest.fixture(scope="module")
def narrations(gaze_heads: tuple[Head, ...], any_heads: tuple[Head, ...]) -> list[Case]:
    return [*((strip, gaze_heads, ORDERS[strip]) for strip in range(len(STRIPS))), (0, any_heads, ORDERS[0])]


@pytest.mark.parametrize(
    ("segment", "mode"), [*((SEGMENTS[0], mode) for mode in MODES), (SEGMENTS[1], "boost_suppress")]
)
@pytest.mark.parametrize("last_alone", [False, True], ids=["official", "first-token-steered"])
def test_narrations_on_a_schedule_agree(
    last_alone: bool, segment: int, mode: str, library: Ours, official: Official, narrations: list[Case]
) -> None:
    ours = _narrated(library, narrations, segment, last_alone, mode=mode)
    theirs = [_told(official, case, segment, last_alone, mode) for case in narrations]
    assert _differences(ours, theirs) == []


def test_a_schedule_late_by_one_or_of_the_other_kind_is_another_narration(
    library: Ours, official: Official, narrations: list[Case]
) -> None:
    for last_alone in (False, True):
        ours = _narrated(library, narrations, SEGMENTS[0], last_alone)
        late = [_told(official, case, SEGMENTS[0], last_alone, late=1) for case in narrations]
        other = [_told(official, case, SEGMENTS[0], not last_alone) for case in narrations]
        assert _differences(ours, late)
        assert _differences(ours, other)


@pytest.mark.parametrize(("convention", "full_sequence"), [("official", False), ("full sequence", True)])
def test_the_scripts_conventions_are_its_counter_of_steps(convention: str, full_sequence: bool) -> None:
    order, passes = np.array(ORDERS[0]), len(ORDERS[0]) * SEGMENTS[0] + 1
    _, delay, early = CONVENTIONS[convention]
    theirs = [-1 if panel is None else panel for panel in counted(ORDERS[0], SEGMENTS[0], passes, full_sequence)]
    assert targets(order, SEGMENTS[0], delay, early).tolist() == theirs
    for name in CONVENTIONS.keys() - {convention}:  # No other convention is this one.
        _, other, before = CONVENTIONS[name]
        assert targets(order, SEGMENTS[0], other, before).tolist() != theirs


def test_narrations_of_the_script_with_full_sequence_agree(
    library: Ours, official: Official, narrations: list[Case]
) -> None:
    ours, theirs, in_time = [], [], []
    rows, delay, early = CONVENTIONS["full sequence"]
    for strip, heads, order in narrations:
        mask, panels = HeadSet(tuple(heads)).to_mask(*library.shape), np.array(order)
        room = len(order) * SEGMENTS[0]
        ours.append(Request(strip, mask, targets(panels, SEGMENTS[0], delay, early), query_positions=rows))
        asked = official.ask(STRIPS[strip].image, STRIPS[strip].widths, DYNAMIC)
        aims = counted(order, SEGMENTS[0], room + 1, full_sequence=True)
        theirs.append(official.answer(asked, Mask(heads), aims.__getitem__, room))
        in_time.append(
            official.answer(asked, Mask(heads), lambda step, o=order: o[min(step // SEGMENTS[0], len(o) - 1)], room)
        )
    options = asking.GenerationOptions(Sampling.make(stop=library.processor.stop_tokens), PANELS * SEGMENTS[0])
    said = asking.answers(*library, STRIPS, DYNAMIC, ours, options)
    assert _differences(said, theirs) == []
    assert _differences(said, in_time)  # "all steps" is another narration


@pytest.mark.parametrize(("strength", "tolerance"), [(SOFT, 1e-5), (HARD, 1e-5), (PAPER, STEP)])
@pytest.mark.parametrize("rows", QUERY_POSITIONS)
@pytest.mark.parametrize("mode", MODES)
def test_attention_agrees(
    mode: str,
    rows: str,
    strength: float,
    tolerance: float,
    library: Ours,
    official: Official,
    any_heads: tuple[Head, ...],
) -> None:
    """Of all heads, from every query, in the pass over the prompt and in two over single tokens, each with its target."""
    ours = _attention(library, any_heads, mode=mode, query_positions=rows, strength=strength)
    theirs = _their_attention(official, Mask(any_heads, mode, rows, strength))
    assert _apart(ours, theirs) <= tolerance


def test_attention_differs_between_modes_rows_and_heads(
    library: Ours, official: Official, any_heads: tuple[Head, ...]
) -> None:
    modes = [Mask(any_heads, mode, strength=SOFT) for mode in MODES]
    rows = [Mask(any_heads, rows=rows, strength=SOFT) for rows in QUERY_POSITIONS]
    heads = [Mask(some, strength=SOFT) for some in (any_heads, any_heads[1:])]
    for masks in (modes, rows, heads):
        for one, other in permutations(masks, 2):
            ours = _attention(library, one.heads, mode=one.mode, query_positions=one.rows, strength=SOFT)
            assert _apart(ours, _their_attention(official, other)) > 1e-2


def test_a_bfloat16_model_attends_uniformly(library: Ours, gaze_heads: tuple[Head, ...]) -> None:
    """What the paper's code computes on a GPU: after the image, steered heads give all keys of the target the same."""
    theirs = _their_attention(Official(CHECKPOINT, torch.bfloat16), Mask(gaze_heads))
    uniform = _attention(library, gaze_heads, bias="replace")
    ordered = _attention(library, gaze_heads)
    assert _steered_apart(uniform, theirs, gaze_heads) <= 1e-3
    assert _steered_apart(ordered, theirs, gaze_heads) > 1e-2


def test_adding_in_bfloat16_is_uniform(library: Ours, rounded: Official, gaze_heads: tuple[Head, ...]) -> None:
    theirs = _their_attention(rounded, Mask(gaze_heads))
    assert _apart(_attention(library, gaze_heads, bias="replace"), theirs) <= 1e-5
    assert _apart(_attention(library, gaze_heads), theirs) > 1e-2


def test_answers_under_a_bfloat16_mask_agree_with_uniform(
    library: Ours, rounded: Official, cases: list[Case], narrations: list[Case]
) -> None:
    for question, max_new in ((VQA, 15), (STATIC, 100)):
        ours = _ours(library, question, cases, 0, 1, max_new, bias="replace")
        assert _differences(ours, [_held(rounded, question, case, max_new) for case in cases]) == []
    for last_alone in (False, True):
        ours = _narrated(library, narrations, SEGMENTS[0], last_alone, bias="replace")
        theirs = [_told(rounded, case, SEGMENTS[0], last_alone) for case in narrations]
        assert _differences(ours, theirs) == []
        assert _differences(_narrated(library, narrations, SEGMENTS[0], last_alone), theirs)


def _ours(
    library: Ours, question: str, cases: Sequence[Case], first: int, segment: int, max_new: int, **how: Any
) -> list[np.ndarray]:
    """The library's answers: from step `first` on, `segment` tokens for each panel."""
    requests = []
    for strip, heads, panels in cases:
        changes = [(first + number * segment, panel) for number, panel in enumerate(panels)]
        targets = schedule(changes, steps=max_new + 1)
        requests.append(Request(strip, HeadSet(tuple(heads)).to_mask(*library.shape), targets, **how))
    settings = asking.GenerationOptions(Sampling.make(stop=library.processor.stop_tokens), max_new)
    return asking.answers(*library, STRIPS, question, requests, settings)


def _held(official: Official, question: str, case: Case, max_new: int, mode: str = "boost_suppress") -> Answer:
    """Looks at one panel all along, while the prompt is read too."""
    strip, heads, (panel,) = case
    asked = official.ask(STRIPS[strip].image, STRIPS[strip].widths, question)
    return official.answer(asked, Mask(heads, mode), lambda step: panel, max_new)


def _narrated(library: Ours, cases: Sequence[Case], segment: int, first_steered: bool, **how: Any) -> list[np.ndarray]:
    first, rows = (0, "answer") if first_steered else (1, "all")
    return _ours(library, DYNAMIC, cases, first, segment, PANELS * SEGMENTS[0], query_positions=rows, **how)


def _told(
    official: Official, case: Case, segment: int, last_alone: bool, mode: str = "boost_suppress", late: int = 0
) -> Answer:
    strip, heads, order = case
    asked = official.ask(STRIPS[strip].image, STRIPS[strip].widths, DYNAMIC)
    aim = scheduled(order, segment)
    delayed = lambda step: aim(0 if step == 0 else max(step - late, 1))  # noqa: E731
    return official.answer(asked, Mask(heads, mode), delayed, PANELS * SEGMENTS[0], last_alone)


def _differences(ours: Sequence[np.ndarray], theirs: Sequence[Answer]) -> list[str]:
    """One sentence for each pair of answers that are not the same tokens."""
    found = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one.tolist() != other.tokens:
            both = min(len(one), len(other.tokens))
            step = int(np.argmin(np.append(one[:both] == other.tokens[:both], False)))
            found.append(f"answer {number} differs from token {step} on, where the margin was {other.gaps[step]:.1e}")
    return found


def _attention(library: Ours, heads: Sequence[Head], **how: Any) -> list[np.ndarray]:
    """The library's attention [layer, head, query, key] in a pass over a prompt and in single steps, as `Official.attention`."""
    encoded = asking.encode(*library, STRIPS[:1], [STATIC])
    targets = schedule(list(enumerate(TARGETS)), steps=len(TARGETS))[None]
    plan = steering(HeadSet(tuple(heads)).to_mask(*library.shape), encoded.prompt, encoded.panels, targets, **how)
    return [np.asarray(step) for step in _read(library.model, encoded.prompt, encoded.vision, plan)]


@jax.jit
def _read(model: Any, prompt: Any, vision: Any, plan: Any) -> list[Any]:
    length = prompt.tokens.shape[1]
    slots = length + len(SAID)
    keys = jnp.eye(slots, dtype=jnp.float32)[None]
    rows = Taps(jnp.arange(length, dtype=jnp.int32)[None], keys)
    output = model(prompt, vision, model.empty_cache(1, slots), plan.at(0, slots), rows)
    outputs = [output]
    for step, token in enumerate(SAID, start=1):
        row = Taps(jnp.zeros((1, 1), jnp.int32), keys)
        output = model.extend(jnp.full((1, 1), token, jnp.int32), output.cache, plan.at(step, slots), row)
        outputs.append(output)
    return [output.readings.mass[:, 0].swapaxes(1, 2)[..., : length + step] for step, output in enumerate(outputs)]


def _their_attention(official: Official, mask: Mask) -> list[np.ndarray]:
    asked = official.ask(STRIPS[0].image, STRIPS[0].widths, STATIC)
    return official.attention(asked, mask, lambda step: TARGETS[step], SAID)


def _apart(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def _steered_apart(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], heads: Sequence[Head]) -> float:
    """Of the steered heads, from queries that see the whole image."""
    return max(
        float(np.abs(one[layer, head, -1] - other[layer, head, -1]).max())
        for one, other in zip(ours, theirs, strict=True)
        for layer, head in heads
    )
