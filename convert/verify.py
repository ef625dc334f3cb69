"""The check that a conversion is right: transformers and this package on the same weights, prompts and masks.

The one runtime module that uses PyTorch; it is imported when a check runs, not before.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from convert.convert import to_hf
from convert.router_ties import comparable, margins, watched
from convert.verify_prompts import CASES, Case, build
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Edits, Taps
from qwen3vl_jax.extras import extra
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.load import load_model, open_checkpoint, resolve
from qwen3vl_jax.load.checkpoint import listed
from qwen3vl_jax.load.digests import DIGESTS, damage
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Batch
from qwen3vl_jax.vision import Vision, VisionTower

LOGITS, ATTENTION = 1e-4, 1e-5
"""Largest absolute differences that pass."""
STEPS = 20
MASK = 3.0

HeadMask = Float[np.ndarray, "layer 1 heads 1 key"]
Outcome = tuple[np.ndarray, ...]
"""Of `_run_reference`."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One prompt, with or without the random mask.

    Attributes:
      prompt: name of the case.
      masked: whether every head had its own additive mask.
      logits: largest difference over all valid positions but those that a router's tie hides.
      attention: largest difference of the last token's attention, found at `layer`, `head`.
      agree: greedy tokens that agree in every row, of `steps`.
      tie: where they first differ, the gap between the reference's two best logits (or experts, if that is smaller); None
        if they all agree.
      hidden: valid tokens that are not compared because rounding decides which expert one in front of them, or they
        themselves, take; such a row's attention is not compared either, and its `tie` is that of the experts.
    """

    prompt: str
    masked: bool
    logits: float
    attention: float
    layer: int
    head: int
    agree: int
    steps: int
    tie: float | None
    hidden: int = 0

    @property
    def near_tie(self) -> bool:
        """The tokens differ, but where the reference itself could not tell within the tolerance."""
        return self.tie is not None and self.tie < LOGITS

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return self.logits <= LOGITS and self.attention <= ATTENTION and (self.tie is None or self.near_tie)


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """All runs on one checkpoint.

    Attributes:
      damaged: what is not as it was when the checkpoint was converted; then nothing was run.
      digests: whether the checkpoint has digests, so that damage would have been seen.
    """

    source: str
    runs: tuple[Comparison, ...]
    damaged: tuple[str, ...] = ()
    digests: bool = False

    @property
    def passed(self) -> bool:
        return not self.damaged and all(run.passed for run in self.runs)

    def as_dict(self) -> dict[str, Any]:
        runs = [dataclasses.asdict(run) | {"near_tie": run.near_tie, "passed": run.passed} for run in self.runs]
        tolerance = {"logits": LOGITS, "attention": ATTENTION}
        bytes_ = {"digests": self.digests, "damaged": list(self.damaged)}
        return {"source": self.source, "passed": self.passed, "tolerance": tolerance, "runs": runs} | bytes_

    def __str__(self) -> str:
        if self.damaged:
            names = listed(list(self.damaged))
            return f"{self.source} is not as it was when it was converted: {names} differ from {DIGESTS}\nFAIL"
        lines = [f"{self.source} against transformers, float32, largest absolute differences:"]
        lines += ["  every tensor and file is as it was when it was converted"] if self.digests else []
        lines += [_line(run) for run in self.runs]
        lines.append(f"{'PASS' if self.passed else 'FAIL'} (tolerance: logits {LOGITS:.0e}, attention {ATTENTION:.0e})")
        return "\n".join(lines)


def verify(src: str | Path, cases: Sequence[Case] = CASES) -> ParityReport:
    """Checks the digests that a conversion has left, then runs every case in both models.

    Plainly and under a random mask per head, in float32; one model is held after the other.

    Raises InputError if `src` is not a whole Qwen3-VL or PyTorch is missing.
    """
    extra("torch", "test", "verify")
    config = open_checkpoint(src).config
    damaged = damage(resolve(src))
    if damaged:
        return ParityReport(str(src), (), tuple(damaged), digests=True)
    fitting = [case for case in cases if case.fits(config)]
    expected = _expected(src, fitting, config)
    model = load_model(src, jnp.float32)
    with jax.default_matmul_precision("highest"):
        runs = [run for case, theirs in zip(fitting, expected, strict=True) for run in _compare(model, case, theirs)]
    return ParityReport(str(src), tuple(runs), digests=damaged is not None)


def _expected(src: str | Path, cases: Sequence[Case], config: Config) -> list[list[Outcome]]:
    """What transformers finds in each case, without a mask and with it."""
    reference = _reference(src)
    found = []
    for case in cases:
        batch = build(case, config)
        given, outcomes = _given(case, batch, config), []
        for mask in _masks(batch, config):
            with _masked(reference, mask):
                outcomes.append(_run_reference(reference, given))
        found.append(outcomes)
    return found


def _masks(batch: Batch, config: Config) -> tuple[None, HeadMask]:
    slots = batch.prompt.tokens.shape[1] + STEPS
    shape = (config.text.num_hidden_layers, 1, config.text.num_attention_heads, 1, slots)
    return None, np.random.default_rng(1).uniform(-MASK, MASK, shape).astype(np.float32)


def _reference(src: str | Path) -> Any:
    """The checkpoint in transformers; one that transformers cannot open is first written as it would be."""
    from transformers import AutoModelForImageTextToText, GenerationConfig

    def read(folder: Path) -> Any:
        eager = dict(attn_implementation="eager", experts_implementation="eager")
        return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32", **eager).eval()

    if open_checkpoint(src).plain:
        model = read(resolve(src))
    else:
        with tempfile.TemporaryDirectory() as folder:
            to_hf(src, Path(folder) / "hf", jnp.float32)
            model = read(Path(folder) / "hf")
    # The checkpoint's own settings sample, penalise and stop early.
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=STEPS, pad_token_id=0)
    return model


def _compare(model: Qwen3VL, case: Case, expected: Sequence[Outcome]) -> Iterator[Comparison]:
    batch = build(case, model.config)
    vision = _encode(model.model.visual, batch.images)
    for mask, theirs in zip(_masks(batch, model.config), expected, strict=True):
        logits, attention, tokens, gaps, margin = theirs
        edits = None if mask is None else Edits(jnp.asarray(mask))
        ours = [np.asarray(array) for array in _run(model, batch.prompt, vision, edits)]
        valid = np.asarray(batch.prompt.valid)
        off = np.where(valid, np.abs(ours[0] - logits).max(axis=-1), 0)
        ends = comparable(off, margin, LOGITS)
        compared = np.arange(off.shape[1]) < ends[:, None]
        off_attention = np.where((ends < off.shape[1])[:, None, None], 0, np.abs(ours[1] - attention))
        layer, _, head, _ = np.unravel_index(off_attention.argmax(), off_attention.shape)
        agree, tie = _first_difference(ours[2], tokens, np.minimum(gaps, _margin_so_far(margin, ends)))
        largest = float(off[compared].max(initial=0)), float(off_attention.max())
        hidden = int((valid & ~compared).sum())
        yield Comparison(case.name, mask is not None, *largest, int(layer), int(head), agree, STEPS, tie, hidden)


def _margin_so_far(
    margin: Float[np.ndarray, "batch token"], ends: Int[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch step"]:
    """For each greedy token the smallest margin of the routers since `ends`, from where on a prompt is not compared."""
    since = np.where(np.arange(margin.shape[1]) < ends[:, None], np.inf, margin)
    return np.minimum.accumulate(since, axis=1)[:, -STEPS:]


@jax.jit
def _encode(tower: VisionTower, images: Images) -> Vision:
    return tower(images)


@jax.jit
def _run(
    model: Qwen3VL, prompt: Prompt, vision: Vision, edits: Edits | None
) -> tuple[Float[Array, "batch seq vocab"], Float[Array, "layer batch heads seq"], Int32[Array, "batch step"]]:
    """Logits everywhere, the last token's attention in every layer and head, and greedy tokens."""
    length = prompt.tokens.shape[1]
    taps = Taps(jnp.full((1, 1), length - 1, jnp.int32), jnp.eye(length, dtype=jnp.float32)[None])
    output = model(prompt, vision, None, edits and edits.upto(length), taps)
    assert output.readings is not None
    logits = model.logits(output.hidden)

    def step(carry: tuple[Cache, Array], _: None) -> tuple[tuple[Cache, Array], Array]:
        cache, token = carry
        output = model.extend(token[:, None], cache, edits)
        return (output.cache, _best(model.logits(output.hidden[:, -1]))), token

    _, tokens = jax.lax.scan(step, (output.cache.fork(1, STEPS), _best(logits[:, -1])), length=STEPS)
    return logits, output.readings.mass[:, :, 0], tokens.T


def _best(logits: Float[Array, "batch vocab"]) -> Int32[Array, " batch"]:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _given(case: Case, batch: Batch, config: Config) -> dict[str, Any]:
    """What transformers' model takes for the same prompt."""
    import torch

    prompt, images = batch.prompt, batch.images
    assert images is not None
    kinds = (prompt.tokens == config.image_token_id) + 2 * (prompt.tokens == config.video_token_id)
    lengths = [-(-frames // config.vision.temporal_patch_size) for row in case.rows for frames, _, _ in row.clips]
    stills = len(batch.grids) - sum(lengths)
    starts = np.cumsum([stills, *lengths])[:-1]
    arrays = dict(
        input_ids=prompt.tokens,
        attention_mask=prompt.valid,
        mm_token_type_ids=kinds * prompt.valid,
        pixel_values=images.patches[:stills][images.valid[:stills]],
        image_grid_thw=np.insert(batch.grids[:stills], 0, 1, axis=1),
        pixel_values_videos=images.patches[stills:][images.valid[stills:]],
        video_grid_thw=np.column_stack([lengths, batch.grids[starts]]),
    )
    tensors = {name: torch.tensor(array) for name, array in arrays.items() if len(array)}
    return {name: tensor if "pixel" in name else tensor.long() for name, tensor in tensors.items()}


def _run_reference(reference: Any, inputs: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """transformers' logits, last token's attention, greedy tokens and, at each, the gap between the two best logits.

    And, at each token of the prompt and after it, the smallest margin in the routers.
    """
    import torch

    with torch.no_grad():
        output = reference(**inputs, output_attentions=True)
        with watched(reference) as routers:
            made = reference.generate(**inputs, output_logits=True, return_dict_in_generate=True)
    attention = np.stack([weights[:, :, -1].numpy() for weights in output.attentions])
    best = torch.stack(made.logits, dim=1).topk(2).values
    length = inputs["input_ids"].shape[1]
    tokens, gaps = made.sequences[:, length:].numpy(), (best[..., 0] - best[..., 1]).numpy()
    return output.logits.numpy(), attention, tokens, gaps, margins(routers, len(tokens), length + STEPS - 1)


@contextmanager
def _masked(reference: Any, mask: HeadMask | None) -> Iterator[None]:
    """Adds each layer's part of the mask to transformers' attention mask, as far as the keys go."""
    import torch

    def hook(layer: int) -> Any:
        def add(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            causal = kwargs["attention_mask"]
            assert mask is not None
            extra = torch.from_numpy(mask[layer, ..., : causal.shape[-1]])
            return args, kwargs | {"attention_mask": causal + extra}

        return add

    layers = [] if mask is None else reference.model.language_model.layers
    hooks = [
        layer.self_attn.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _first_difference(
    ours: Int[np.ndarray, "batch step"], theirs: Int[np.ndarray, "batch step"], gaps: Float[np.ndarray, "batch step"]
) -> tuple[int, float | None]:
    """How many tokens agree in every row; and the largest gap at a row's first difference, None without any."""
    differ = ours != theirs
    first = np.where(differ.any(1), differ.argmax(1), differ.shape[1])
    ties = [float(gap[step]) for gap, step in zip(gaps, first, strict=True) if step < differ.shape[1]]
    return int(first.min()), max(ties, default=None)


def _line(run: Comparison) -> str:
    name = run.prompt + (", masked" if run.masked else "")
    line = f"  {name:32} logits {run.logits:.1e}  attention {run.attention:.1e} (layer {run.layer}, head {run.head})"
    line += f"  greedy {run.agree}/{run.steps}"
    if run.tie is not None:
        what = "a tie within the tolerance" if run.near_tie else "no tie"
        line += f" (then the two best logits (or experts) are {run.tie:.1e} apart: {what})"
    if run.hidden:
        line += f"  {run.hidden} tokens not compared, after a tie of two experts"
    return line + ("" if run.passed else "  FAIL")
