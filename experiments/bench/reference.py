"""What a user would otherwise run: transformers in PyTorch, eager, one full pass after the other, as the paper's code does.

Imported by a process that measures it, so it needs neither JAX nor anything else of this package.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qwen3vl_jax.extras import extra


class Question(NamedTuple):
    """A prompt with its picture.

    Attributes:
      inputs: numpy arrays as transformers' model takes them.
      panels: the positions in the prompt that show each panel.
    """

    inputs: dict[str, np.ndarray]
    panels: list[np.ndarray]


class Masked(NamedTuple):
    """One answer: heads by layer and the panel that they are to look at; `text` for the mask on rows of words alone."""

    heads: dict[int, list[int]]
    panel: int
    strength: float
    text: bool


class Answer(NamedTuple):
    """Greedy tokens, and how far the two best logits were apart at each."""

    tokens: list[int]
    gaps: list[float]


def discovery(folder: Path) -> Callable[[Sequence[Sequence[Question]]], np.ndarray]:
    """Opens the model; returns what scores strips, given as questions about each: mass [strip, question, layer, head, panel]."""
    torch, model = _open(folder)

    def ask(question: Question) -> np.ndarray:
        with torch.no_grad():
            output = model(**_tensors(torch, question.inputs), output_attentions=True)
        last = np.stack([layer[0, :, -1].numpy() for layer in output.attentions])
        return np.stack([last[:, :, panel].sum(axis=2) for panel in question.panels], axis=-1)

    return lambda strips: np.array([[ask(question) for question in strip] for strip in strips])


def steering(folder: Path) -> Callable[[Sequence[Question], Sequence[Masked], int], list[Answer]]:
    """Opens the model; returns what answers each question once for each mask, by hooks, with so many tokens."""
    torch, model = _open(folder)

    def say(question: Question, masked: Masked, count: int) -> Answer:
        inputs = _tensors(torch, question.inputs)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad(), _hooks(torch, model, question, masked):
            output = model.generate(
                **inputs,
                max_new_tokens=count,
                do_sample=False,
                eos_token_id=None,
                return_dict_in_generate=True,
                output_logits=True,
            )
        best = [logits[0].topk(2).values.tolist() for logits in output.logits]
        return Answer(output.sequences[0, length:].tolist(), [first - second for first, second in best])

    return lambda questions, masks, count: [say(one, masked, count) for one in questions for masked in masks]


@contextmanager
def _hooks(torch: Any, model: Any, question: Question, masked: Masked) -> Iterator[None]:
    """Every steered layer adds its bias to the attention mask that it is given."""
    image = np.concatenate(question.panels)
    row = torch.zeros(1, 1, 1, int(image.max()) + 1)
    row[..., image] = -masked.strength
    row[..., question.panels[masked.panel]] = masked.strength
    handles = []
    for layer, heads in masked.heads.items():
        bias = torch.zeros(1, model.config.text_config.num_attention_heads, 1, row.shape[-1])
        bias[:, heads] = row

        def hook(_module: Any, args: tuple[Any, ...], given: dict[str, Any], bias: Any = bias) -> tuple[Any, Any]:
            mask = given["attention_mask"]
            added = torch.nn.functional.pad(bias, (0, mask.shape[-1] - bias.shape[-1]))
            if masked.text and mask.shape[-2] > 1:
                after = torch.arange(mask.shape[-2])[:, None] >= bias.shape[-1]
                added = added * after
            return args, given | {"attention_mask": mask + added}

        attention = model.model.language_model.layers[layer].self_attn
        handles.append(attention.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _open(folder: Path) -> tuple[Any, Any]:
    torch = extra("torch", "test", "the reference side")
    from transformers import Qwen3VLForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return torch, model.eval()


def _tensors(torch: Any, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(values) for name, values in inputs.items()}
