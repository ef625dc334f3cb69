"""What `--judge` means."""

from typing import TYPE_CHECKING

from gaze.judge import Exact, First, Judge
from qwen3vl_jax.errors import InputError

if TYPE_CHECKING:
    from experiments.lab import Lab


KNOWN = "exact, first, caption, likelihood or chat:MODEL[@URL]"


def check_judge(name: str) -> None:
    """Raises InputError if no judge has that name; before any work is done."""
    if name not in ("exact", "first", "caption", "likelihood") and not name.startswith("chat:"):
        raise InputError(f"there is no judge {name}: choose {KNOWN}")


def make_judge(name: str, lab: "Lab", dry_run: bool = False) -> Judge:
    """A judge by its name; chat:MODEL@URL is any endpoint that speaks as OpenAI's.

    Only the likelihood judge uses the run's model. Raises InputError for another name.
    """
    check_judge(name)
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
    from gaze.judge_chat import Chat

    model, _, url = name.removeprefix("chat:").partition("@")
    return Chat(model, url or None, dry_run=dry_run)
