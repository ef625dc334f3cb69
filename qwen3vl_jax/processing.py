"""Text and pictures to model inputs: chat template, tokens, positions, padding. All of it on the host, in numpy.

processor = Processor.load(folder)
prompt, images, grids = processor([processor.chat("What happens in panel 3?")], [["strip.png"]])
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from qwen3vl_jax import layout
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import ImageLike, ImageSettings, patchify
from qwen3vl_jax.inputs import Array, Images, Prompt

Message = Mapping[str, Any]
"""One turn: `role`, and `content` as a text or a list of `{"type": "image"}` and `{"type": "text", "text": ...}`."""

# For folders without a template. Turns of text and pictures only: tools and videos need the checkpoint's own.
CHAT_TEMPLATE = """\
{%- set pictures = namespace(seen=0) -%}
{%- for turn in messages -%}
    {{- '<|im_start|>' ~ turn.role ~ '\\n' -}}
    {%- for part in ([{'text': turn.content}] if turn.content is string else turn.content) -%}
        {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
            {%- set pictures.seen = pictures.seen + 1 -%}
            {{- 'Picture ' ~ pictures.seen ~ ': ' if add_vision_id -}}
            {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
        {%- else -%}
            {{- part.text -}}
        {%- endif -%}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}
"""


class Batch(NamedTuple):
    """What `Processor` makes: the model's inputs, and the size in patches (rows, cols) of each entry of `images`."""

    prompt: Prompt
    images: Images | None
    grids: Int[np.ndarray, "image 2"]


@dataclasses.dataclass(frozen=True)
class Processor:
    """Turns texts and pictures into a `Batch`, as the checkpoint it was loaded from wants them.

    `template` is a Jinja chat template; None leaves the choice to `tokenizer`, a transformers tokenizer.
    """

    config: Config
    settings: ImageSettings
    tokenizer: Any
    template: str | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "Processor":
        """Reads config, tokenizer, image settings and chat template from a checkpoint folder; needs no PyTorch.

        Raises InputError if the tokenizer is missing or unreadable, or if the files contradict the model's config.
        """
        config, settings, tokenizer = Config.load(folder), ImageSettings.load(folder), _load_tokenizer(Path(folder))
        if tokenizer.convert_tokens_to_ids("<|image_pad|>") != config.image_token_id:
            raise InputError(f"{folder}: the tokenizer's <|image_pad|> is not image_token_id {config.image_token_id}")
        vision = config.vision
        sizes = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
        if (settings.patch_size, settings.temporal_patch_size, settings.merge_size) != sizes:
            raise InputError(f"{folder}: the image settings must have the patch, frame and merge sizes {sizes}")
        template = _saved_template(Path(folder)) or (None if tokenizer.chat_template else CHAT_TEMPLATE)
        return cls(config, settings, tokenizer, template)

    def chat(self, question: str, images: int = 1, system: str | None = None) -> str:
        """The text of one user turn, its `images` pictures before the question, up to where the answer begins."""
        content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
        first = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
        return self.render([*first, {"role": "user", "content": content}])

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a conversation by the checkpoint's chat template, up to where the next answer begins.

        Pictures appear as placeholders only; hand them over when calling the processor. An answer to be continued
        or scored is simply appended to the text. Raises InputError if there is no message.
        """
        if not messages:
            raise InputError("a conversation is empty: give at least one message")
        return self.tokenizer.apply_chat_template(
            list(messages), chat_template=self.template, tokenize=False, add_generation_prompt=True
        )

    def __call__(
        self,
        prompts: Sequence[str | Sequence[Message]],
        images: Sequence[Sequence[ImageLike]] | None = None,
        length: int | None = None,
        patches: int | None = None,
    ) -> Batch:
        """Makes one batch of prompts (texts or conversations), each with its list of pictures in reading order.

        Rows are padded on the left to `length` tokens, pictures to `patches`; by default to the longest and the
        largest. A picture given several times as the same object or path is processed, and encoded, once.
        Raises InputError if placeholders and pictures do not match or something does not fit.
        """
        texts = [text if isinstance(text, str) else self.render(text) for text in _listed(prompts, str, "prompts")]
        per_prompt = [()] * len(texts) if images is None else _listed(images, ImageLike, "images")
        if not texts or len(per_prompt) != len(texts):
            raise InputError(
                f"got {len(texts)} prompts and {len(per_prompt)} lists of images: give one list per prompt"
            )
        distinct = {_key(image): image for row in per_prompt for image in row}
        order = {key: number for number, key in enumerate(distinct)}
        pictures = [patchify(image, self.settings) for image in distinct.values()]
        stacked = layout.batch_images(pictures, self.config, patches) if pictures else None
        grids = [grid for _, grid in pictures]
        numbers = [[order[_key(image)] for image in row] for row in per_prompt]
        rows = [self._tokenize(text, [grids[n] for n in row]) for text, row in zip(texts, numbers, strict=True)]
        prompt = _prompt(rows, numbers, grids, stacked, self.config, length)
        return Batch(prompt, stacked, np.array(grids, np.int32).reshape(-1, 2))

    def decode(self, tokens: Sequence[int] | Int[Array, " step"]) -> str:
        """The text of generated tokens, without special tokens."""
        return self.tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def _tokenize(self, text: str, grids: Sequence[layout.Grid]) -> Int[np.ndarray, " seq"]:
        """Token ids, each image placeholder repeated once per merged cell of its picture."""
        tokens = np.array(self.tokenizer(text)["input_ids"], np.int32)
        placeholder = tokens == self.config.image_token_id
        if placeholder.sum() != len(grids):
            raise InputError(f"a prompt has {placeholder.sum()} image placeholders, but got {len(grids)} images")
        if not len(tokens) or self.config.video_token_id in tokens:
            raise InputError("a prompt is empty or holds a video: give text and images")
        repeats = np.ones(len(tokens), np.int64)
        repeats[placeholder] = [rows * cols // self.settings.merge_size**2 for rows, cols in grids]
        return np.repeat(tokens, repeats)


def _prompt(
    rows: Sequence[Int[np.ndarray, " _"]],
    numbers: Sequence[Sequence[int]],
    grids: Sequence[layout.Grid],
    images: Images | None,
    config: Config,
    length: int | None,
) -> Prompt:
    """Left-pads token rows into one `Prompt`; `numbers` says which entries of `images` each row shows."""
    longest = max(map(len, rows))
    room = longest if length is None else length
    if longest > room:
        raise InputError(f"a prompt has {longest} tokens, more than the length of {room}: give a larger length")
    shown = [[grids[number] for number in row] for row in numbers]
    positions = [layout.rope_positions(row, grid, config) for row, grid in zip(rows, shown, strict=True)]
    cells = None
    if images is not None:
        stride = images.patches.shape[1] // config.vision.spatial_merge_size**2
        cells = [layout.image_cells(*row, stride, config) for row in zip(rows, numbers, shown, strict=True)]
    return Prompt(
        tokens=_left_pad(rows, room, 0),
        positions=_left_pad(positions, room, 0),
        valid=_left_pad([np.ones(len(row), bool) for row in rows], room, False),
        image_cell=None if cells is None else _left_pad(cells, room, -1),
    )


def _left_pad(rows: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    padded = np.full((len(rows), length, *rows[0].shape[1:]), fill, rows[0].dtype)
    for row, out in zip(rows, padded, strict=True):
        out[length - len(row) :] = row
    return padded


def _listed(values: Any, single: Any, name: str) -> list:
    """Catches the two easy slips: one value in place of a list of them, one conversation or picture per prompt."""
    if isinstance(values, single):
        raise InputError(f"{name} must be a list with one entry per prompt, got a single {type(values).__name__}")
    values = list(values)
    if any(isinstance(value, Mapping) or (name == "images" and isinstance(value, single)) for value in values):
        raise InputError(f"{name} must hold one list per prompt: wrap the single entry in another list")
    return values


def _key(image: ImageLike) -> str | int:
    return id(image) if isinstance(image, Image.Image | np.ndarray) else os.fspath(image)


def _load_tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise InputError(f"{folder} has no tokenizer: put the checkpoint's tokenizer.json there")
    from transformers import AutoTokenizer  # heavy, and only needed here

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(f"the tokenizer in {folder} cannot be read: {error}") from error


def _saved_template(folder: Path) -> str | None:
    """The template a Hugging Face processor would use: the legacy JSON before the Jinja file."""
    legacy, current = folder / "chat_template.json", folder / "chat_template.jinja"
    if legacy.is_file():
        try:
            return json.loads(legacy.read_text(encoding="utf-8"))["chat_template"]
        except (ValueError, LookupError, TypeError):
            raise InputError(f'{legacy} must be JSON of the form {{"chat_template": "..."}}') from None
    return current.read_text(encoding="utf-8") if current.is_file() else None
