"""Trains the sparse testbed: `python -m experiments.testbed.sparse.train OUT`. Interrupted, it goes on when called again.

Everything is fixed by the recipe below: the same command gives the same checkpoint, up to the rounding of the machine. The
checkpoint that is shipped passed through the same stages, but their lessons were still growing: letters, pictures without
panels and single panels came in at step 3,000 (with a larger vocabulary: embeddings were carried over by token), the weight
of short answers at step 3,600, and the leftmost thing as the default of "this part", once the largest, at step 4,860.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx
from optax.contrib import muon

from experiments.testbed.sparse.batches import Maker, TrainingBatch
from experiments.testbed.sparse.objective import Trainee, Weights, loss
from experiments.testbed.train import IDS, matrix_axes
from experiments.testbed.vocabulary import build_tokenizer
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings

SEED = 10
STRIPS = 16
SAVE_EVERY = 100
VOCABULARY = 640


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own cosine of the learning rate.

    Attributes:
      steps, rate, warmup: length, highest learning rate, steps to reach it.
      hide: share of strips that hide image tokens.
      ramp: when the price of looking sets in and when it is full, as shares of the stage.
      preview, peak, see, neglect: see `objective.Weights`.
      forget: share of strips that forget (see `objective`).
      price: of looking, when it is full.
      others: share of the pictures that are no plain comics (see `lessons`).
    """

    steps: int
    rate: float
    warmup: int
    hide: float
    ramp: tuple[float, float]
    preview: float = 0.3
    peak: float = 0.0
    forget: float = 0.0
    price: float = 0.003
    others: float = 0.0
    see: float = 0.3
    neglect: float = 0.0

    def economy(self, step: int) -> float:
        start, full = (share * self.steps for share in self.ramp)
        return self.price * min(max((step - start) / max(full - start, 1), 0.0), 1.0)


FOCUSED = Stage(
    steps=700, rate=1.2e-3, warmup=40, hide=0.5, ramp=(0.0, 0.0), preview=0.1, peak=1.0, forget=0.8, price=0.003
)
MIXED = replace(FOCUSED, price=0.012, others=0.625)
STAGES = (
    Stage(steps=1100, rate=2e-3, warmup=100, hide=0.7, ramp=(0.3, 0.55)),
    Stage(steps=700, rate=1.2e-3, warmup=40, hide=0.5, ramp=(0.0, 0.0)),
    FOCUSED,
    replace(FOCUSED, steps=500, ramp=(0.0, 0.2), price=0.012),
    replace(MIXED, steps=1000),
    replace(MIXED, steps=300, warmup=20, see=0.6, neglect=0.3),
    replace(MIXED, steps=560, warmup=20, see=0.6, neglect=0.5),
    replace(MIXED, steps=280, warmup=20, see=0.6, neglect=0.5, rate=8e-4, others=0.45),
)
TOTAL = sum(stage.steps for stage in STAGES)


def config_json(tokenizer: Any) -> dict[str, Any]:
    """The shape of the testbed as the `config.json` of a Qwen3-VL checkpoint."""
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in IDS.items()}
    text = dict(
        model_type="qwen3_vl_text",
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        hidden_act="silu",
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        rope_scaling=dict(rope_type="default", mrope_section=[6, 5, 5], mrope_interleaved=True),
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    vision = dict(
        model_type="qwen3_vl",
        depth=3,
        hidden_size=128,
        intermediate_size=384,
        num_heads=4,
        out_hidden_size=160,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        in_channels=3,
        num_position_embeddings=576,
        deepstack_visual_indexes=[0, 1],
        hidden_act="gelu_pytorch_tanh",
    )
    return dict(
        architectures=["Qwen3VLForConditionalGeneration"],
        model_type="qwen3_vl",
        tie_word_embeddings=True,
        dtype="bfloat16",
        text_config=text,
        vision_config=vision,
        **ids,
    )


def optimizer(trainee: Trainee) -> optax.GradientTransformation:
    """Muon for the matrices inside the towers, AdamW for tables, norms and biases; both at the RMS of AdamW."""
    rate = optax.sgdr_schedule(
        [
            dict(init_value=0.0, peak_value=s.rate, warmup_steps=s.warmup, decay_steps=s.steps, end_value=0.02 * s.rate)
            for s in STAGES
        ]
    )
    numbers = jax.tree.map(matrix_axes, nnx.state(trainee), is_leaf=lambda x: isinstance(x, nnx.Variable))
    step = muon(
        rate,
        weight_decay=0.05,
        adam_weight_decay=0.05,
        adam_b2=0.98,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=lambda params: numbers,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), step)


def settings_at(step: int) -> tuple[Stage, int]:
    """The stage of a step, and the step within it."""
    for stage in STAGES:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise IndexError(step)


def make_step(graph: Any, tx: optax.GradientTransformation) -> Any:
    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Any, state: Any, batch: TrainingBatch, weights: Weights) -> Any:
        def objective(params: Any) -> Any:
            return loss(nnx.merge(graph, params), batch, weights)

        (total, report), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, {"loss": total, **report}

    return train_step


def batches(maker: Maker, start: int) -> Iterator[tuple[int, TrainingBatch]]:
    """Batches from `start` on, made one ahead in a thread."""
    with ThreadPoolExecutor(1) as executor:

        def make(step: int) -> Future[TrainingBatch]:
            stage, _ = settings_at(step)
            return executor.submit(maker.batch, SEED, step, hide=stage.hide, forget=stage.forget, others=stage.others)

        coming = make(start)
        for step in range(start, TOTAL):
            batch = coming.result()
            if step + 1 < TOTAL:
                coming = make(step + 1)
            yield step, batch


@dataclass(frozen=True)
class TrainingFolder:
    """A training folder: tokenizer and config in `checkpoint`, training state in `state`, the losses in `log.jsonl`."""

    folder: Path

    def start(self) -> tuple[Any, Trainee]:
        """Writes what is known before training; returns tokenizer and fresh parameters."""
        tokenizer = build_tokenizer(self.folder / "checkpoint")
        raw = config_json(tokenizer)
        (self.folder / "checkpoint" / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        trainee = Trainee(Config.from_dict(raw), nnx.Rngs(SEED))
        trainee.model.model.language_model.unroll = trainee.model.config.text.num_hidden_layers
        return tokenizer, trainee

    def states(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=3, save_interval_steps=SAVE_EVERY)
        return ocp.CheckpointManager(self.folder / "state", options=options)


def restore(folder: Path) -> Trainee:
    """The newest state of a training folder."""
    run = TrainingFolder(folder.absolute())
    _, trainee = run.start()
    graph, params = nnx.split(trainee)
    with run.states() as manager:
        saved = ocp.args.StandardRestore((params, optimizer(trainee).init(params)))
        params, _ = manager.restore(manager.latest_step(), args=saved)
    return nnx.merge(graph, params)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Trains the testbed in the folder OUT; about two hours on two CPU cores, resumed by the same command."""
    run = TrainingFolder(out.absolute())
    tokenizer, trainee = run.start()
    graph, params = nnx.split(trainee)
    tx = optimizer(trainee)
    state = tx.init(params)
    maker = Maker(tokenizer, trainee.model.config, ImageSettings.load(run.folder / "checkpoint"), STRIPS)
    with run.states() as manager, (run.folder / "log.jsonl").open("a") as log:
        start = manager.latest_step() or 0
        if start:
            params, state = manager.restore(start, args=ocp.args.StandardRestore((params, state)))
        train_step = make_step(graph, tx)
        began = time.perf_counter()
        for step, batch in batches(maker, start):
            stage, within = settings_at(step)
            helpers = (stage.see, stage.preview, stage.economy(within), stage.peak, stage.neglect)
            weights = Weights(*map(jnp.float32, helpers))
            params, state, report = train_step(params, state, batch, weights)
            if step % 10 == 9:
                row = {"step": step + 1, **{name: round(float(x), 4) for name, x in report.items()}}
                line = json.dumps({**row, "seconds": round(time.perf_counter() - began, 1)})
                click.echo(line)
                click.echo(line, file=log)
                log.flush()
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == TOTAL:
                manager.save(step + 1, args=ocp.args.StandardSave((params, state)), force=True)


if __name__ == "__main__":
    main()
