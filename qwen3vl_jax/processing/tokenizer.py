"""The tokenizer of a checkpoint, by the `tokenizers` library alone: what transformers computes, without its import."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import is_there, read_bytes, read_json, read_text, reading, validate

MOST_BYTES = 2**28
PROBE = "Why's that, é 42?\n"
HINT = "put the checkpoint's tokenizer.json there"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizers cut text before they merge bytes, for folders with `vocab.json` and `merges.txt` only."""
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CLEAN = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s"} | {
    " 've": "'ve",
    " 're": "'re",
}
"""What `clean_up_tokenization_spaces` of a tokenizer's config replaces in decoded text."""


class Encoding(TypedDict):
    input_ids: list[int]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back; the names are those of transformers' tokenizers.

    Attributes:
      special: special tokens by their role, such as `eos_token`.
      chat_template: as the tokenizer's config has it: a template, several by name, or None.
      clean_up: whether spaces before punctuation are removed from decoded text.
    """

    backend: tokenizers.Tokenizer
    special: dict[str, str] = field(default_factory=dict)
    chat_template: object = None
    clean_up: bool = False

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads `tokenizer.json`, or `vocab.json` and `merges.txt`, and what stands beside them.

        Raises InputError if there is no tokenizer, or it cannot be read.
        """
        config = _settings(folder / "tokenizer_config.json")
        roles = _settings(folder / "special_tokens_map.json") | config
        special = {name: text for name in SPECIAL if (text := _content(roles.get(name))) is not None}
        backend = _backend(folder, config)
        with reading(folder, "a tokenizer", HINT):
            # As transformers does: what a role names is a token, even if the tokenizer's own file does not list it.
            backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
            # As transformers does unless it is told otherwise: a prompt is never cut or filled up.
            backend.no_truncation()
            backend.no_padding()
            backend.decode(backend.encode(PROBE).ids)  # some settings fail only when they are used
        clean_up = config.get("clean_up_tokenization_spaces") is True
        return cls(backend, special, config.get("chat_template"), clean_up)

    def __call__(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """The ids of a text. Raises InputError for text that is not Unicode, such as a name with stray bytes."""
        with reading("the text", "a text", "give text that can be written in UTF-8"):
            return {"input_ids": self.backend.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids. Raises InputError for what are no ids, and where the tokenizer's own decoder fails."""
        with reading("the tokens", "ids of tokens"):
            text: str = self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        if self.clean_up:
            for found, clean in CLEAN.items():
                text = text.replace(found, clean)
        return text

    def convert_tokens_to_ids(self, token: str) -> int | None:
        found: int | None = self.backend.token_to_id(token)
        return found

    def convert_ids_to_tokens(self, number: int) -> str | None:
        found: str | None = self.backend.id_to_token(number)
        return found

    @property
    def eos_token_id(self) -> int | None:
        """Of the token that ends a text; None if there is none."""
        token = self.special.get("eos_token")
        return None if token is None else self.convert_tokens_to_ids(token)


def _backend(folder: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if is_there(whole, "a tokenizer"):
        content = read_bytes(whole, "a tokenizer", HINT, MOST_BYTES)
        with reading(whole, "a tokenizer", HINT):
            return tokenizers.Tokenizer.from_buffer(content)
    if not is_there(vocabulary, "a vocabulary"):
        raise InputError(f"{folder} has no tokenizer: {HINT}")
    entries = read_json(vocabulary, "a vocabulary", dict, HINT, MOST_BYTES)
    lines = read_text(merges, "a list of merges", HINT, MOST_BYTES).splitlines()
    pairs = [
        (left, right) for left, _, right in (line.partition(" ") for line in lines if line[:8] != "#version") if left
    ]
    with reading(folder, "a tokenizer", HINT):
        backend = tokenizers.Tokenizer(models.BPE(vocab=entries, merges=pairs))
        backend.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        backend.decoder = decoders.ByteLevel()
        known = {int(number): entry for number, entry in (config.get("added_tokens_decoder") or {}).items()}
        for number in sorted(known):
            entry = known[number]
            backend.add_tokens([AddedToken(entry["content"], special=bool(entry.get("special")), normalized=False)])
    return backend


def _settings(path: Path) -> dict[str, Any]:
    """A JSON object; empty without the file."""
    if not is_there(path, "the settings of a tokenizer"):
        return {}
    raw = read_json(path, "the settings of a tokenizer", most=MOST_BYTES)
    return validate(raw, path, "the settings of a tokenizer", dict)


def _content(token: object) -> str | None:
    """The text of a special token, which files hold as such or as an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
