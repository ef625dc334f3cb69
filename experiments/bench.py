"""A model on the bench: discovery and steered answers over many strips, with progress and with verdicts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from experiments.ask import stop_tokens
from experiments.testbed.scenes import PANELS
from experiments.testbed.wordings import DISCOVERY, STATIC, fill
from gaze import answers as asking
from gaze.answers import Ask
from gaze.heads import HeadSet
from gaze.judge import judge_exact
from gaze.score import Mass, gaze_score, rank
from gaze.steer import schedule
from gaze.strips import Strip
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing import Processor
from qwen3vl_jax.sampling import Sampling

Record = dict[str, Any]
"""One answer: strip, target (from 1, None if unsteered), text, and the panel (from 1) whose caption the text is."""


@dataclass(frozen=True)
class Bench:
    """A model, and how it is steered and asked."""

    model: Qwen3VL
    processor: Processor
    strength: float = 10_000.0
    mode: str = "boost_suppress"
    precision: str = "ordered"
    max_new: int = 16

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, heads per layer)."""
        text = self.model.config.text
        return text.num_hidden_layers, text.num_attention_heads

    def discover(self, strips: Sequence[Strip]) -> Mass:
        """Attention to every panel under the paper's six questions, as `gaze.answers.discover`."""
        questions = [fill(DISCOVERY, panel) for panel in range(PANELS)]
        with _progress("discovery", len(strips) * PANELS) as done:
            return asking.discover(self.model, self.processor, strips, questions, progress=done)

    def ranking(self, mass: Mass, model: str, settings: dict[str, Any]) -> HeadSet:
        """Every head, best gaze score first."""
        rows = rank(gaze_score(mass))
        return HeadSet(
            heads=tuple((layer, head) for layer, head, _ in rows),
            scores=tuple(score for _, _, score in rows),
            score="gaze",
            model=model,
            settings={"question": DISCOVERY, "strips": len(mass), **settings},
        )

    def unsteered(self, title: str, strips: Sequence[Strip], question: str | Sequence[str]) -> list[Record]:
        """One answer per strip, the model left alone."""
        return self.answer(title, strips, question, [asking.unsteered(self.model, n) for n in range(len(strips))])

    def panel_questions(self, strips: Sequence[Strip]) -> list[Record]:
        """The six discovery questions about each strip, unsteered; `target` is the panel asked about."""
        records = []
        for panel in range(PANELS):
            rows = self.unsteered(f"panel {panel + 1}", strips, fill(DISCOVERY, panel))
            records += [{**row, "target": panel + 1} for row in rows]
        return records

    def steered(self, title: str, strips: Sequence[Strip], head_sets: Sequence[HeadSet]) -> list[list[Record]]:
        """For each head set: the ambiguous question about every strip, steered to every panel."""
        masks = [heads.to_mask(*self.shape) for heads in head_sets]
        asks = [
            Ask(strip, mask, schedule([(0, panel)]))
            for strip in range(len(strips))
            for mask in masks
            for panel in range(PANELS)
        ]
        records = self.answer(title, strips, STATIC, asks)
        blocks = [records[start : start + PANELS] for start in range(0, len(records), PANELS)]
        return [list(chain.from_iterable(blocks[number :: len(masks)])) for number in range(len(masks))]

    def answer(
        self, title: str, strips: Sequence[Strip], question: str | Sequence[str], asks: Sequence[Ask]
    ) -> list[Record]:
        """One record per ask, in their order."""
        sampling = Sampling.make(stop=stop_tokens(self.processor))
        how = asking.Settings(sampling, self.max_new, self.strength, self.mode, self.precision)
        with _progress(title, len(asks)) as done:
            said = asking.answers(self.model, self.processor, strips, question, asks, how, done)
        return [self._record(strips[ask.strip], ask, tokens) for ask, tokens in zip(asks, said, strict=True)]

    def _record(self, strip: Strip, ask: Ask, tokens: Int[np.ndarray, " token"]) -> Record:
        text = self.processor.decode(tokens).strip()
        panel, target = judge_exact(text, strip.captions), int(ask.targets[-1])
        return {
            "strip": strip.name,
            "target": None if target < 0 else target + 1,
            "text": text,
            "panel": None if panel is None else panel + 1,
        }


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], object]]:
    with tqdm(total=total, desc=title, unit="prompt", leave=False) as bar:
        yield bar.update
