"""What `--judge` means."""

from collections.abc import Callable

from gaze.judges.caption import Caption
from gaze.judges.chat import Chat
from gaze.judges.judge import Exact, First, Judge
from gaze.judges.likelihood import Likelihood
from qwen3vl_jax.errors import InputError

KNOWN = "exact, first, caption, likelihood or chat:MODEL[@URL]"


def check_judge(name: str) -> None:
    """Raises InputError if no judge has that name; before any work is done."""
    if name not in ("exact", "first", "caption", "likelihood") and not name.startswith("chat:"):
        raise InputError(f"there is no judge {name}: choose {KNOWN}")


def make_judge(name: str, likelihood: Callable[[], Likelihood], dry_run: bool = False) -> Judge:
    """A judge by its name; chat:MODEL@URL is any endpoint that speaks as OpenAI's.

    `likelihood` makes the one judge that needs the model, if it is called for. Raises InputError for another name.
    """
    check_judge(name)
    if name == "exact":
        return Exact()
    if name == "first":
        return First()
    if name == "caption":
        return Caption()
    if name == "likelihood":
        return likelihood()
    model, _, url = name.removeprefix("chat:").partition("@")
    return Chat(model, url or None, dry_run=dry_run)
