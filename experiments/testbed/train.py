"""Trains the testbed: `python -m experiments.testbed.train OUT --seed 0`. Interrupted, it goes on when called again.

The recipe is all there is: one stage, one learning rate schedule, from random weights. The same command gives the same
checkpoint, up to the rounding of the machine.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx
from optax.contrib import MuonDimensionNumbers, muon

from experiments.testbed.batches import Maker, TrainingBatch
from experiments.testbed.objective import loss
from experiments.testbed.scenes import words
from experiments.testbed.vocabulary import build_tokenizer
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.layers import Weight
from qwen3vl_jax.model import Qwen3VL

STRIPS = 16
STEPS = 2400
RATE, WARMUP = 2e-3, 100
COMICS, OTHERS = 0.4, 0.55
"""Share of the steps that show plain comics alone, and of the pictures after them that are none."""
SAVE_EVERY = 100
PLACES = 25.0
"""Position embeddings of the vision tower start so many times larger than others, about as large as what patches give. From
the usual start image tokens hardly tell where they stand after a thousand steps, and no question about a place is learned."""
VOCABULARY = 672
TEXT = dict(
    model_type="qwen3_vl_text",
    vocab_size=VOCABULARY,
    hidden_size=160,
    intermediate_size=416,
    num_hidden_layers=8,
    num_attention_heads=12,
    num_key_value_heads=4,
    head_dim=24,
    hidden_act="silu",
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=dict(rope_type="default", mrope_section=[4, 4, 4], mrope_interleaved=True),
    tie_word_embeddings=True,
    dtype="bfloat16",
)
VISION = dict(
    model_type="qwen3_vl",
    depth=4,
    hidden_size=96,
    intermediate_size=288,
    num_heads=4,
    out_hidden_size=160,
    patch_size=16,
    temporal_patch_size=2,
    spatial_merge_size=2,
    in_channels=3,
    num_position_embeddings=576,
    deepstack_visual_indexes=[0, 2],
    hidden_act="gelu_pytorch_tanh",
)

IDS = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}


def config_json(tokenizer: Any) -> dict[str, Any]:
    """The shape of the testbed as the `config.json` of a Qwen3-VL checkpoint."""
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in IDS.items()}
    kind = dict(architectures=["Qwen3VLForConditionalGeneration"], model_type="qwen3_vl")
    return dict(**kind, tie_word_embeddings=True, dtype="bfloat16", text_config=TEXT, vision_config=VISION, **ids)


def optimizer(model: Qwen3VL, steps: int) -> optax.GradientTransformation:
    """Muon for the matrices inside the towers, AdamW for tables, norms and biases; both at the RMS of AdamW."""
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, WARMUP, steps, 0.02 * RATE)
    numbers = jax.tree.map(matrix_axes, nnx.state(model), is_leaf=lambda x: isinstance(x, nnx.Variable))
    step = muon(
        rate,
        weight_decay=0.05,
        adam_weight_decay=0.05,
        adam_b2=0.98,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=lambda params: numbers,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), step)


def matrix_axes(param: Weight) -> MuonDimensionNumbers | None:
    """Input and output axes of a linear map, which its pattern tells: "(outputs) (inputs) -> inputs outputs"."""
    file, ours = (side.strip() for side in param.pattern.split("->"))
    if file == ours or not ("(" in file or "(" in ours):
        return None
    axes = param.ndim - (2 if ours.startswith("(") else len(ours.split()))
    inputs = 1 if ours.startswith("(") else len(file.split(") (")[1].split()) if ") (" in file else 0
    if not inputs:
        return None
    return MuonDimensionNumbers(tuple(range(axes, axes + inputs)), tuple(range(axes + inputs, param.ndim)))


def make_step(graph: Any, tx: optax.GradientTransformation, price: float, frozen: bool) -> Any:
    """One step of training: parameters, optimiser state and a batch to the new ones and the losses.

    Args:
      price: see `objective.loss`.
      frozen: the vision tower stays as it is.
    """

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Any, state: Any, batch: TrainingBatch) -> Any:
        def objective(params: Any) -> Any:
            return loss(nnx.merge(graph, params), batch, price)

        (_, report), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        updates, state = tx.update(gradient, state, params)
        if frozen:
            updates["model"]["visual"] = jax.tree.map(jnp.zeros_like, updates["model"]["visual"])
        return optax.apply_updates(params, updates), state, report

    return train_step


def batches(maker: Maker, seed: int, start: int, steps: int, comics: float) -> Iterator[tuple[int, TrainingBatch]]:
    """Batches from `start` on, made one ahead in a thread; the first share of the steps shows plain `comics` alone."""
    with ThreadPoolExecutor(1) as executor:

        def make(step: int) -> Future[TrainingBatch]:
            return executor.submit(maker.batch, seed, step, 0.0 if step < comics * steps else OTHERS)

        coming = make(start)
        for step in range(start, steps):
            batch, coming = coming.result(), make(step + 1)
            yield step, batch


def begin(folder: Path, seed: int) -> tuple[Any, Qwen3VL]:
    """Writes what is known before training into `folder/checkpoint`; returns the tokenizer and fresh parameters."""
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder / "checkpoint", words())
    assert len(tokenizer) <= VOCABULARY, "the model needs an embedding for every token"
    raw = config_json(tokenizer)
    (folder / "checkpoint" / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    model = Qwen3VL(Config.from_dict(raw), nnx.Rngs(seed))
    places = model.model.visual.pos_embed.weight
    places[...] = PLACES * places[...]
    model.model.language_model.unroll = model.config.text.num_hidden_layers
    return tokenizer, model


def states(folder: Path) -> ocp.CheckpointManager:
    """The saved states of a training folder."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=SAVE_EVERY)
    return ocp.CheckpointManager(folder / "state", options=options)


def restore(folder: Path, step: int | None = None) -> Qwen3VL:
    """The model in the newest state of a training folder, or in the one saved at a step."""
    _, model = begin(folder, 0)
    graph, params = nnx.split(model)
    with states(folder) as manager:
        saved = ocp.args.StandardRestore((params, optimizer(model, 2 * WARMUP).init(params)))
        params, _ = manager.restore(step or manager.latest_step(), args=saved)
    return nnx.merge(graph, params)


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the weights and the lessons.")
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True)
@click.option("--price", type=click.FloatRange(0), default=0.0, show_default=True, help="Of looking at the image.")
@click.option("--parent", type=FOLDER, help="Start from the weights of this training; no plain comics first.")
@click.option("--tower", type=FOLDER, help="Take the vision tower of this training.")
@click.option("--frozen", is_flag=True, help="Keep the vision tower as it is at the start.")
def main(out: Path, seed: int, steps: int, price: float, parent: Path | None, tower: Path | None, frozen: bool) -> None:
    """Trains the testbed in the folder OUT; resumed by the same command."""
    folder = out.absolute()
    tokenizer, model = begin(folder, seed)
    if parent is not None:
        nnx.update(model, nnx.state(restore(parent.absolute())))
    if tower is not None:
        nnx.update(model.model.visual, nnx.state(restore(tower.absolute()).model.visual))
    graph, params = nnx.split(model)
    tx = optimizer(model, steps)
    state = tx.init(params)
    maker = Maker(tokenizer, model.config, ImageSettings.load(folder / "checkpoint"), STRIPS)
    train_step = make_step(graph, tx, price, frozen)
    with states(folder) as manager, (folder / "log.jsonl").open("a") as log:
        start = manager.latest_step() or 0
        if start:
            params, state = manager.restore(start, args=ocp.args.StandardRestore((params, state)))
        began = time.perf_counter()
        for step, batch in batches(maker, seed, start, steps, COMICS if parent is None else 0.0):
            params, state, report = train_step(params, state, batch)
            if step % 10 == 9:
                row = {"step": step + 1, **{name: round(float(x), 4) for name, x in report.items()}}
                line = json.dumps({**row, "seconds": round(time.perf_counter() - began, 1)})
                click.echo(line)
                click.echo(line, file=log)
                log.flush()
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                manager.save(step + 1, args=ocp.args.StandardSave((params, state)), force=True)


if __name__ == "__main__":
    main()
