"""Text, pictures and videos to model inputs: chat template, tokens, positions, padding. All on the host, in numpy.

processor = Processor.load(folder)
prompt, images, grids = processor([processor.chat("What happens in panel 3?")], [["strip.png"]])
prompt, images, grids = processor([processor.chat("Who enters?", images=0, videos=1)], videos=[[Video("clip.gif")]])
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.images import PICTURE_TYPES, ImageLike, ImageSettings, patchify
from qwen3vl_jax.inputs import Array, Images, Prompt
from qwen3vl_jax.positions import Grid, batch_images, image_cells, rope_positions
from qwen3vl_jax.processing.chat_template import ChatTemplate, saved_template
from qwen3vl_jax.processing.tokenizer import Tokenizer
from qwen3vl_jax.processing.videos import VIDEO_PAD, Clip, Video, VideoSettings, patchify_video

Message = Mapping[str, Any]
"""One turn: `role`, and `content` as a text or a list of `{"type": "image"}`, `{"type": "video"}` and
`{"type": "text", "text": ...}`."""

# For folders without a template. Turns of text, pictures and videos only: tools need the checkpoint's own.
CHAT_TEMPLATE = """\
{%- set seen = namespace(pictures=0, videos=0) -%}
{%- for turn in messages -%}
    {{- '<|im_start|>' ~ turn.role ~ '\\n' -}}
    {%- for part in ([{'text': turn.content}] if turn.content is string else turn.content) -%}
        {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
            {%- set seen.pictures = seen.pictures + 1 -%}
            {{- 'Picture ' ~ seen.pictures ~ ': ' if add_vision_id -}}
            {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
        {%- elif part.type == 'video' or 'video' in part -%}
            {%- set seen.videos = seen.videos + 1 -%}
            {{- 'Video ' ~ seen.videos ~ ': ' if add_vision_id -}}
            {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
        {%- else -%}
            {{- part.text -}}
        {%- endif -%}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}
"""

DEFAULT_TEMPLATE = ChatTemplate(CHAT_TEMPLATE, "qwen3vl_jax")


class Batch(NamedTuple):
    """What `Processor` makes: the model's inputs, and the size in patches (rows, cols) of each entry of `images`.

    First come the distinct pictures, then the distinct videos, each as its temporal patches in order.
    """

    prompt: Prompt
    images: Images | None
    grids: Int[np.ndarray, "image 2"]


class TokenRow(NamedTuple):
    """One prompt before padding: its tokens, and which entries of the `Images` its placeholders show, in order."""

    tokens: Int[np.ndarray, " seq"]
    numbers: list[int]


Numbered = tuple[Clip, range]
"""A video, and which entries of the `Images` its temporal patches are."""


@dataclasses.dataclass(frozen=True)
class Processor:
    """Turns texts, pictures and videos into a `Batch`, as the checkpoint it was loaded from wants them.

    Attributes:
      tokenizer: a `Tokenizer`, or what can be called as one.
    """

    config: Config
    settings: ImageSettings
    tokenizer: Any
    template: ChatTemplate = dataclasses.field(default_factory=lambda: DEFAULT_TEMPLATE)
    video_settings: VideoSettings = dataclasses.field(default_factory=VideoSettings)

    @classmethod
    def load(cls, folder: str | Path) -> "Processor":
        """Reads config, tokenizer, settings and chat template from a checkpoint folder; needs no PyTorch.

        Raises InputError if the tokenizer is missing or unreadable, or if the files contradict the model's config.
        """
        config, settings, tokenizer = Config.load(folder), ImageSettings.load(folder), Tokenizer.load(Path(folder))
        for kind, token in (("image", config.image_token_id), ("video", config.video_token_id)):
            if tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") != token:
                raise InputError(f"{folder}: the tokenizer's <|{kind}_pad|> is not {kind}_token_id {token}")
        vision = config.vision
        sizes = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
        video_settings = VideoSettings.load(folder)
        for kind, found in (("image", settings), ("video", video_settings)):
            if (found.patch_size, found.temporal_patch_size, found.merge_size) != sizes:
                raise InputError(f"{folder}: the {kind} settings must have the patch, frame and merge sizes {sizes}")
        template = saved_template(Path(folder), tokenizer.chat_template)
        return cls(config, settings, tokenizer, template or DEFAULT_TEMPLATE, video_settings)

    def chat(self, question: str, images: int = 1, system: str | None = None, videos: int = 0) -> str:
        """The text of one user turn, up to where the answer begins: `images` pictures, `videos` videos, the question."""
        content = [*[{"type": "image"}] * images, *[{"type": "video"}] * videos, {"type": "text", "text": question}]
        first = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
        return self.render([*first, {"role": "user", "content": content}])

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a conversation by the checkpoint's chat template, up to where the next answer begins.

        Pictures and videos appear as placeholders only; hand them over when calling the processor. An answer to be
        continued or scored is simply appended to the text. Raises InputError if there is no message.
        """
        if not messages:
            raise InputError("a conversation is empty: give at least one message")
        return self.template.render(messages, getattr(self.tokenizer, "special", {}))

    def __call__(
        self,
        prompts: Sequence[str | Sequence[Message]],
        images: Sequence[Sequence[ImageLike | int]] | None = None,
        videos: Sequence[Sequence[Video]] | None = None,
        length: int | None = None,
        patches: int | None = None,
        pictures: Sequence[ImageLike] | None = None,
    ) -> Batch:
        """Makes one batch of prompts (texts or conversations), each with its pictures and its videos in reading order.

        Args:
          images: pictures of each prompt, each processed, and encoded, for itself; or, with `pictures`, which of these.
          videos: of each prompt; the same `Video` object is processed and encoded once.
          length: tokens that rows are padded to on the left, by default the longest.
          patches: that pictures and temporal patches of videos are padded to, by default the largest.
          pictures: what several prompts show, each processed and encoded once; `images` then holds their numbers, from 0.

        Raises:
          InputError: placeholders and pictures or videos do not match, the tokenizer gives a token that the model lacks, or
            something does not fit.
        """
        texts = [text if isinstance(text, str) else self.render(text) for text in _listed(prompts, str, "prompts")]
        shown = _per_prompt(images, PICTURE_TYPES, "images", len(texts))
        played = _per_prompt(videos, Video, "videos", len(texts))
        numbers, distinct = _numbered(shown, pictures)
        clips = self._clips(played, len(distinct))
        entries = [patchify(image, self.settings) for image in distinct]
        entries += [(frames, clip.grid) for clip, _ in clips.values() for frames in clip.patches]
        stacked = batch_images(entries, self.config, patches) if entries else None
        grids = [grid for _, grid in entries]
        rows = [
            self._row(text, row, [clips[video] for video in row_videos], grids)
            for text, row, row_videos in zip(texts, numbers, played, strict=True)
        ]
        prompt = _prompt(rows, grids, stacked, self.config, length)
        return Batch(prompt, stacked, np.array(grids, np.int32).reshape(-1, 2))

    @property
    def stop_tokens(self) -> list[int]:
        """The ids that end an answer: the end of a turn and, if it is another one, the tokenizer's own end."""
        ids = {self.tokenizer.convert_tokens_to_ids("<|im_end|>"), self.tokenizer.eos_token_id}
        return sorted(int(number) for number in ids if number is not None)

    def decode(self, tokens: Sequence[int] | Int[Array, " step"]) -> str:
        """The text of generated tokens, without special tokens."""
        text: str = self.tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)
        return text

    def _clips(self, played: Sequence[Sequence[Video]], first: int) -> dict[Video, Numbered]:
        """Every video once, its temporal patches numbered from `first` on."""
        numbered: dict[Video, Numbered] = {}
        for video in dict.fromkeys(itertools.chain.from_iterable(played)):
            clip = patchify_video(video, self.video_settings)
            numbered[video] = (clip, range(first, first + len(clip.seconds)))
            first += len(clip.seconds)
        return numbered

    def _row(self, text: str, pictures: Sequence[int], clips: Sequence[Numbered], grids: Sequence[Grid]) -> TokenRow:
        """One row, before padding; `grids` are those of all entries."""
        text = _timed(text, [clip for clip, _ in clips])
        tokens = np.array(self.tokenizer(text)["input_ids"], np.int32)
        if not len(tokens):
            raise InputError("a prompt is empty: give some text")
        if tokens.max() >= self.config.text.vocab_size:
            raise InputError(
                f"a prompt holds the token {tokens.max()}, but the model knows {self.config.text.vocab_size}: its tokenizer "
                "was given tokens that its weights were not"
            )
        frames = [number for _, numbers in clips for number in numbers]
        entry = np.full(len(tokens), -1)
        for kind, given in (("image", pictures), ("video", frames)):
            placeholder = tokens == getattr(self.config, f"{kind}_token_id")
            if placeholder.sum() != len(given):
                raise InputError(f"a prompt has {placeholder.sum()} {kind} placeholders, but got {len(given)} {kind}s")
            entry[placeholder] = given
        numbers = entry[entry >= 0].tolist()
        repeats = np.ones(len(tokens), np.int64)
        repeats[entry >= 0] = [math.prod(grids[number]) // self.settings.merge_size**2 for number in numbers]
        return TokenRow(np.repeat(tokens, repeats), numbers)


def _timed(text: str, clips: Sequence[Clip]) -> str:
    """The text with every temporal patch of a video after its own timestamp, in place of the video's placeholder."""
    before, *after = text.split(VIDEO_PAD)
    if len(after) != len(clips):
        raise InputError(f"a prompt has {len(after)} video placeholders, but got {len(clips)} videos")
    return before + "".join(clip.timestamps() + words for clip, words in zip(clips, after, strict=True))


def _prompt(
    rows: Sequence[TokenRow], grids: Sequence[Grid], images: Images | None, config: Config, length: int | None
) -> Prompt:
    """Left-pads rows into one `Prompt`."""
    tokens, numbers = zip(*rows, strict=True)
    longest = max(map(len, tokens))
    room = longest if length is None else length
    if longest > room:
        raise InputError(f"a prompt has {longest} tokens, more than the length of {room}: give a larger length")
    shown = [[grids[number] for number in row] for row in numbers]
    positions = [rope_positions(row, grid, config) for row, grid in zip(tokens, shown, strict=True)]
    cells = None
    if images is not None:
        stride = images.patches.shape[1] // config.vision.spatial_merge_size**2
        cells = [image_cells(*row, stride, config) for row in zip(tokens, numbers, shown, strict=True)]
    return Prompt(
        tokens=_left_pad(tokens, room, 0),
        positions=_left_pad(positions, room, 0),
        valid=_left_pad([np.ones(len(row), bool) for row in tokens], room, False),
        image_cell=None if cells is None else _left_pad(cells, room, -1),
    )


def _left_pad(rows: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    padded = np.full((len(rows), length, *rows[0].shape[1:]), fill, rows[0].dtype)
    for row, out in zip(rows, padded, strict=True):
        out[length - len(row) :] = row
    return padded


def _numbered(
    shown: Sequence[Sequence[ImageLike | int]], pictures: Sequence[ImageLike] | None
) -> tuple[list[list[int]], list[ImageLike]]:
    """The pictures that prompts show, and for each prompt their numbers."""
    if pictures is None:
        flat = [image for row in shown for image in row]
        found = [image for image in flat if isinstance(image, PICTURE_TYPES)]
        if len(found) < len(flat):
            raise InputError(
                "images must hold files, PIL images or arrays; for numbers of pictures, give `pictures`, too"
            )
        ends = np.cumsum([0, *map(len, shown)]).tolist()
        return [list(range(start, stop)) for start, stop in pairwise(ends)], found
    known = range(len(pictures))
    numbers = [[int(image) for image in row if isinstance(image, int | np.integer) and image in known] for row in shown]
    if list(map(len, numbers)) != list(map(len, shown)):
        raise InputError(f"with pictures, images must hold their numbers, 0 to {len(pictures) - 1}")
    return numbers, list(pictures)


def _per_prompt(values: Any, single: Any, name: str, prompts: int) -> list[Any]:
    rows = [()] * prompts if values is None else _listed(values, single, name)
    if not prompts or len(rows) != prompts:
        raise InputError(f"got {prompts} prompts and {len(rows)} lists of {name}: give one list per prompt")
    if single is Video and not all(isinstance(video, Video) for row in rows for video in row):
        raise InputError("videos must hold lists of Video objects: give Video(frames, fps)")
    return rows


def _listed(values: Any, single: Any, name: str) -> list[Any]:
    """Catches the two easy slips: one value in place of a list of them, one conversation or picture per prompt."""
    if isinstance(values, single) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list with one entry per prompt, got a single {type(values).__name__}")
    values = list(values)
    if any(isinstance(value, Mapping) or (name != "prompts" and isinstance(value, single)) for value in values):
        raise InputError(f"{name} must hold one list per prompt: wrap the single entry in another list")
    odd = next((value for value in values if not isinstance(value, Iterable)), values)
    if odd is not values:
        raise InputError(f"{name} must hold one entry per prompt, each a list or a text, got a {type(odd).__name__}")
    return [value if isinstance(value, str) else list(value) for value in values]
