"""What `--judge` means."""

from typing import TYPE_CHECKING

from gaze.judge import Exact, First, Judge
from qwen3vl_jax.errors import InputError

if TYPE_CHECKING:
    from experiments.lab import Lab


def make_judge(name: str, lab: "Lab") -> Judge:
    """A judge by its name: exact, first, caption, likelihood, or chat:MODEL.

    Only the likelihood judge uses the run's model. Raises InputError for another name.
    """
    if name == "exact":
        return Exact()
    if name == "first":
        return First()
    if name == "caption":
        from gaze.judge_caption import Caption

        return Caption()
    if name == "likelihood":
        from gaze.judge_likelihood import Likelihood

        return Likelihood(lab.model, lab.processor, lab.revision)
    if name.startswith("chat:"):
        from gaze.judge_chat import Chat

        return Chat(name.removeprefix("chat:"))
    raise InputError(f"there is no judge {name}: choose exact, first, caption, likelihood or chat:MODEL")
