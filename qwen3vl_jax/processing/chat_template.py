"""Chat templates: Jinja, in the environment that transformers gives them (`utils/chat_template_utils.py`), and sandboxed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import is_there, read_json, read_text, reading
from qwen3vl_jax.processing.bounded_jinja import BoundedEnvironment


@dataclass(frozen=True)
class ChatTemplate:
    """A template, and where it comes from."""

    text: str
    source: str

    def render(self, messages: Sequence[Mapping[str, Any]], special: Mapping[str, str]) -> str:
        """The text of a conversation, up to where the next answer begins.

        Raises InputError if the template cannot be read, raises something itself, or does too much; see `bounded_jinja`.
        """
        given = {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": True, **special}
        with reading(self.source, "a chat template for these messages"):
            return _compiled(self.text)(given)


def saved_template(folder: Path, of_tokenizer: object) -> ChatTemplate | None:
    """The template that a Hugging Face processor would use: the legacy JSON, the Jinja file, then the tokenizer's own."""
    legacy, current = folder / "chat_template.json", folder / "chat_template.jinja"
    if is_there(legacy, "a chat template"):
        raw = read_json(legacy, "a chat template")
        if not isinstance(raw, dict) or "chat_template" not in raw:
            raise InputError(f'{legacy} must be JSON of the form {{"chat_template": "..."}}')
        return _chosen(raw["chat_template"], str(legacy))
    if is_there(current, "a chat template"):
        return ChatTemplate(read_text(current, "a chat template"), str(current))
    return None if of_tokenizer is None else _chosen(of_tokenizer, str(folder / "tokenizer_config.json"))


def _chosen(found: object, source: str) -> ChatTemplate:
    """One template, or of several that have names the one that is called "default"."""
    if isinstance(found, list):
        named = [one for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]
        found = {one["name"]: one.get("template") for one in named}
    if isinstance(found, dict):
        if "default" not in found:
            names = ", ".join(map(repr, found)) or "none"
            raise InputError(f'{source} has chat templates of the names {names}, but none that is called "default"')
        found = found["default"]
    if not isinstance(found, str):
        raise InputError(f"{source} has a chat template that is a {type(found).__name__}, but it should be a text")
    return ChatTemplate(found, source)


@lru_cache(8)
def _compiled(template: str) -> Callable[[dict[str, Any]], str]:
    environment = BoundedEnvironment(
        dict(tojson=_tojson), trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals.update(raise_exception=_raise, strftime_now=lambda form: datetime.now().strftime(form))
    return environment.compiled(template)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **how: Any) -> str:
    # Jinja's own filter escapes what HTML must not hold.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **how)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
