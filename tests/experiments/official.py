"""The paper's protocol once more, in PyTorch with transformers: full passes, masks spelled out position by position.

What the library is checked against, so it imports none of it. Steps, prompts and masks are those of the code released with
arXiv 2606.14703, one prompt at a time and without any of our shortcuts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import AttentionInterface, AutoTokenizer, Qwen3VLForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

NAME = "steered"
Aim = Callable[[int], int | None]
"""Pass number to the panel (from 0) that the heads look at in it, None for none."""


class Question(NamedTuple):
    """A prompt as transformers' model takes it, and the positions that show each panel."""

    inputs: dict[str, torch.Tensor]
    panels: list[list[int]]
    image: set[int]

    @property
    def length(self) -> int:
        return self.inputs["input_ids"].shape[1]


class Answer(NamedTuple):
    """Greedy tokens without the stop token, and how far the two best logits were apart at each, the stop token included."""

    tokens: list[int]
    gaps: list[float]


@dataclass(frozen=True)
class Mask:
    """What is added to which scores.

    `mode` is one of the four interventions of the paper's code. `rows` says which queries see it: "all", "text" (no image
    tokens), "answer" (from the last of the prompt on), "decoded" or "prompt".
    """

    heads: Sequence[tuple[int, int]]
    mode: str = "boost_suppress"
    rows: str = "all"
    strength: float = 10_000.0

    def keys(self, question: Question, panel: int, count: int) -> torch.Tensor:
        """What a query of a steered head adds at each of `count` keys."""
        target, row = set(question.panels[panel]), torch.zeros(count)
        for key in range(count):
            decoded, image = key >= question.length, key in question.image
            if key in target:
                row[key] = self.strength if self.mode == "boost_suppress" else 0
            elif image:
                row[key] = -self.strength
            elif decoded:
                row[key] = -self.strength if self.mode == "max_suppress_all" else 0
            else:
                row[key] = -self.strength if self.mode in ("suppress_all", "max_suppress_all") else 0
        return row

    def queries(self, question: Question, start: int, stop: int) -> torch.Tensor:
        """1 for those of the queries from `start` to `stop` that see the mask."""
        carries = {
            "all": lambda row: True,
            "text": lambda row: row not in question.image,
            "answer": lambda row: row >= question.length - 1,
            "decoded": lambda row: row >= question.length,
            "prompt": lambda row: row < question.length,
        }[self.rows]
        return torch.tensor([float(carries(row)) for row in range(start, stop)])


class Official:
    """A checkpoint in transformers whose text layers add a mask to their scores.

    `addition` is the type in which it is added, by default that of the model, as in the paper's code. In bfloat16 with the
    rest in float32, only the intervention itself is rounded.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, addition: torch.dtype | None = None) -> None:
        where = {"text_config": NAME, "vision_config": "eager"}
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation=where)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.layers = [layer.self_attn for layer in self.model.model.language_model.layers]
        for layer in self.layers:
            layer.addition = addition or dtype
        stop = self.model.generation_config.eos_token_id
        self.stop = set(stop if isinstance(stop, list) else [stop])

    def ask(self, picture: Image.Image, widths: Sequence[int], text: str) -> Question:
        """One user turn, the picture first; panels are ranges of columns in proportion to their widths in pixels."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        turn = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        seen = self.pictures(picture, return_tensors="pt")
        rows, columns = (int(size) // 2 for size in seen["image_grid_thw"][0, 1:])
        ids = self.tokenizer(turn.replace("<|image_pad|>", "<|image_pad|>" * (rows * columns)))["input_ids"]
        tokens = torch.tensor([ids])
        is_image = tokens == self.model.config.image_token_id
        image = torch.nonzero(is_image[0])[:, 0].tolist()
        edges = [round(columns * sum(widths[:panel]) / sum(widths)) for panel in range(len(widths) + 1)]
        panels = [
            [place for number, place in enumerate(image) if left <= number % columns < right]
            for left, right in pairwise(edges)
        ]
        return Question({"input_ids": tokens, "mm_token_type_ids": is_image.long(), **seen}, panels, set(image))

    def gaze_scores(self, strips: Sequence[tuple[Image.Image, Sequence[int]]], texts: Sequence[str]) -> np.ndarray:
        """[layer, head]: attention of the last prompt token to the panel asked about, a full pass for each question."""
        scores: Any = 0
        for picture, widths in strips:
            for panel, text in enumerate(texts):
                question = self.ask(picture, widths, text)
                (attention,) = self.attention(question, None, lambda step: None)
                scores += attention[:, :, -1, question.panels[panel]].sum(axis=2) / (len(strips) * len(texts))
        return scores

    def attention(self, question: Question, mask: Mask | None, aim: Aim, said: Sequence[int] = ()) -> list[np.ndarray]:
        """[layer, head, query, key] of the pass over the prompt and of each pass over one of the tokens `said`."""
        found = []
        cache, start = None, 0
        for step, tokens in enumerate([question.inputs["input_ids"], *(torch.tensor([[token]]) for token in said)]):
            cache, _ = self._read(question, tokens, start, cache, mask, aim(step))
            found.append(torch.stack([layer.weights[0] for layer in self.layers]).float().numpy())
            start += tokens.shape[1]
        return found

    def answer(self, question: Question, mask: Mask | None, aim: Aim, max_new: int, last_alone: bool = False) -> Answer:
        """Greedy answer of at most `max_new` tokens.

        Pass 0 reads the prompt, pass p > 0 token p - 1. With `last_alone`, pass 0 reads the prompt but its last token, which
        pass 1 reads; then token 0 comes from the first pass of a single token, as all others.
        """
        tokens = question.inputs["input_ids"]
        unread = [tokens[:, :-1], tokens[:, -1:]] if last_alone else [tokens]
        cache, start, step = None, 0, 0
        said, gaps = [], []
        while unread:
            piece = unread.pop(0)
            cache, logits = self._read(question, piece, start, cache, mask, aim(step))
            start, step = start + piece.shape[1], step + 1
            if unread:
                continue
            best = logits.topk(2)
            gaps.append(float(best.values[0] - best.values[1]))
            if int(best.indices[0]) not in self.stop:
                said.append(int(best.indices[0]))
                unread = [best.indices[None, :1]] if len(said) < max_new else []
        return Answer(said, gaps)

    def _read(
        self, question: Question, tokens: torch.Tensor, start: int, cache: Any, mask: Mask | None, panel: int | None
    ) -> tuple[Any, torch.Tensor]:
        """One pass after what the cache holds: the cache, and the logits of the last query."""
        stop = start + tokens.shape[1]
        bias = None
        if mask is not None and panel is not None:
            bias = torch.outer(mask.queries(question, start, stop), mask.keys(question, panel, stop))
        for number, layer in enumerate(self.layers):
            layer.bias = None if bias is None else torch.zeros(layer.config.num_attention_heads, *bias.shape)
            for place, head in mask.heads if bias is not None else ():
                if place == number:
                    layer.bias[head] = bias
        inputs = {"input_ids": tokens}
        if start == 0:
            inputs |= {name: values for name, values in question.inputs.items() if name != "input_ids"}
            inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"][:, :stop]
        with torch.no_grad():
            output = self.model(**inputs, cache=cache, use_cache=True)
        return output.cache, output.logits[0, -1].float()


def scheduled(order: Sequence[int], segment: int) -> Aim:
    """The pass over the prompt looks nowhere, the next `segment` passes at the first panel of `order`, and so on."""
    return lambda step: None if step == 0 else order[min((step - 1) // segment, len(order) - 1)]


def counted(order: Sequence[int], segment: int, passes: int, full_sequence: bool) -> list[int | None]:
    """The panel that each pass of the released script looks at, by its own counter of passes over a single token.

    The counter goes up after such a pass. The pass over the prompt is steered with `full_sequence` only.
    """
    counter, seen = 0, []
    for number in range(passes):
        single = number > 0
        begun = [
            panel
            for start, panel in zip(range(0, len(order) * segment, segment), order, strict=True)
            if start <= counter
        ]
        seen.append(begun[-1] if single or full_sequence else None)
        counter += single
    return seen


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention, with the layer's mask added as the paper's code does: before a float32 softmax."""
    key, value = (states.repeat_interleave(module.num_key_value_groups, dim=1) for states in (key, value))
    scores = query @ key.mT * given["scaling"]
    if module.bias is not None:
        added = scores.to(module.addition) + module.bias.to(module.addition)
        scores = torch.where(module.bias != 0, added.to(scores.dtype), scores)
    module.weights = torch.softmax(scores + causal, dim=-1, dtype=torch.float32).to(query.dtype)
    return (module.weights @ value).transpose(1, 2).contiguous(), module.weights


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)
