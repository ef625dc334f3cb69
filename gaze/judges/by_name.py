"""What `--judge` means."""

from collections.abc import Callable

from gaze.judges.caption import Caption
from gaze.judges.chat import Chat
from gaze.judges.judge import Exact, First, Judge
from gaze.judges.likelihood import Likelihood
from qwen3vl_jax.errors import InputError

KNOWN = "exact, first, caption, likelihood or chat:MODEL[@URL]"


def check_judge(name: str) -> None:
    """Raises InputError if no judge has that name, or if a chat judge lacks what it needs; before any work is done."""
    model, url = _chat(name)
    if name not in ("exact", "first", "caption", "likelihood") and not model:
        raise InputError(f"there is no judge {name.partition('@')[0]}: choose {KNOWN}")  # a URL may hold a password
    if model:
        Chat(model, url)


def make_judge(name: str, likelihood: Callable[[], Likelihood], dry_run: bool = False) -> Judge:
    """A judge by its name; chat:MODEL@URL is any endpoint that speaks as OpenAI's.

    `likelihood` makes the one judge that needs the model, if it is called for. Raises InputError for another name.
    """
    model, url = _chat(name)
    if model:
        return Chat(model, url, dry_run=dry_run)
    check_judge(name)
    if name == "exact":
        return Exact()
    if name == "first":
        return First()
    if name == "caption":
        return Caption()
    return likelihood()


def _chat(name: str) -> tuple[str, str | None]:
    """Model and endpoint of chat:MODEL@URL; an empty model for a judge of another kind."""
    kind, _, rest = name.partition(":")
    model, _, url = rest.partition("@")
    return model if kind == "chat" else "", url or None
