"""PAI, CG-VLM and VCD once more, in PyTorch on transformers' Qwen3-VL: one prompt at a time, each version with its own cache.

What the library is checked against, so it imports none of it. Steps follow the released code of each method.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "raised"


@dataclass(frozen=True)
class Raise:
    """What is added to the scores of some keys in the last row of a pass: alpha times their size, or its mean over heads."""

    layers: Sequence[int]
    keys: Sequence[int]
    alpha: float
    mean: bool = False
    heads: Sequence[int] | None = None
    constant: bool = False


@dataclass
class Version:
    """A prompt that is read token by token: its inputs, keys that nobody sees, and its own cache."""

    model: Any
    inputs: dict[str, torch.Tensor]
    hidden: Sequence[int] = ()
    cache: Any = None
    delta: Any = None

    def read(self, token: int | None = None, raised: Raise | None = None) -> torch.Tensor:
        """Logits after the prompt, or after one more token."""
        for number, layer in enumerate(self.model.model.language_model.layers):
            layer.self_attn.hidden = list(self.hidden)
            layer.self_attn.raised = raised if raised is not None and number in raised.layers else None
        given = self.inputs if token is None else {"input_ids": torch.tensor([[token]])}
        self.model.model.rope_deltas = self.delta  # those of the version that was read last, else
        with torch.no_grad():
            output = self.model(**given, cache=self.cache, use_cache=True)
        self.cache, self.delta = output.cache, self.model.model.rope_deltas
        return output.logits[0, -1].float()


class Answer(NamedTuple):
    tokens: list[int]
    logits: list[torch.Tensor]
    opened: list[bool]
    variances: list[float]


@dataclass
class Method:
    """A greedy answer.

    `gate` holds CG-VLM's four versions: whole, no image, no text, neither; `other` is what the logits are contrasted with.
    """

    plain: Version
    raised: Raise | None = None
    gate: Sequence[Version] = ()
    threshold: float = 0.0
    other: Version | None = None
    weight: float = 1.0
    answer: Answer = field(default_factory=lambda: Answer([], [], [], []))

    def run(self, steps: int) -> Answer:
        token = None
        for _ in range(steps):
            opened = True
            if self.gate:
                variance = self.interaction([one.read(token) for one in self.gate])
                opened = variance > self.threshold
                self.answer.variances.append(variance)
            logits = self.plain.read(token, self.raised if opened else None)
            if self.other is not None:
                logits = self.contrasted(logits, self.other.read(token))
            token = int(logits.argmax())
            self.answer.tokens.append(token)
            self.answer.logits.append(logits)
            self.answer.opened.append(opened)
        return self.answer

    def interaction(self, logits: list[torch.Tensor]) -> float:
        whole, no_image, no_text, neither = logits
        best = torch.topk(whole, min(50, len(whole)))
        dividend = best.values - no_text[best.indices] - no_image[best.indices] + neither[best.indices]
        return float(torch.var(dividend))

    def contrasted(self, logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        own, against = torch.log_softmax(logits, dim=-1), torch.log_softmax(other, dim=-1)
        found = self.weight * (own - against) + against
        return found.masked_fill(own < math.log(0.1) + own.max(), -math.inf)


def mass(model: Any, keys: Sequence[int], layers: Sequence[int]) -> float:
    """Attention on some keys in the last row of the pass before: the mean over the heads of some layers."""
    found = [model.model.language_model.layers[layer].self_attn.weights[0, :, -1, list(keys)] for layer in layers]
    return float(torch.stack([one.sum(dim=-1).mean() for one in found]).mean())


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention, with what a method adds after the causal mask and before the softmax."""
    key, value = (states.repeat_interleave(module.num_key_value_groups, dim=1) for states in (key, value))
    scores = query @ key.mT * given["scaling"] + (0 if causal is None else causal)
    if module.hidden:
        scores[..., module.hidden] = torch.finfo(scores.dtype).min
    if (raised := module.raised) is not None:
        last = scores[:, :, -1, raised.keys]
        size = last.abs().mean(dim=1, keepdim=True) if raised.mean else last.abs()
        more = raised.alpha * (torch.ones_like(last) if raised.constant else size).expand_as(last)
        if raised.heads is not None:
            more = more * torch.tensor([float(head in raised.heads) for head in range(scores.shape[1])])[None, :, None]
        scores[:, :, -1, raised.keys] = last + more
    weights = module.weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)
