"""A model called with arguments that do not fit, as a user calls it: without the shape checks of the suite.

Prints a line for each that was not refused with the right sentence; exit status 1 if there is one.
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Amplify, Edits, Steer, Taps
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.positions import batch_images, image_cells, rope_positions

TEXT = dict(vocab_size=256, hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
VISION = dict(depth=2, hidden_size=32, intermediate_size=56, num_heads=2, patch_size=4, out_hidden_size=48)
RAW: dict[str, Any] = dict(
    model_type="qwen3_vl",
    text_config=TEXT | dict(num_key_value_heads=2, head_dim=16, rope_scaling=dict(mrope_section=[4, 2, 2])),
    vision_config=VISION | dict(num_position_embeddings=36, deepstack_visual_indexes=[0]),
    tie_word_embeddings=True,
    **dict(image_token_id=250, video_token_id=251, vision_start_token_id=248, vision_end_token_id=249),
)
LAYERS, HEADS, EMBED, VOCAB, GRID = 4, 4, 48, 256, (4, 6)


def scene(config: Config) -> tuple[Prompt, Images]:
    pixels = np.random.default_rng(0).normal(size=(24, 96)).astype(np.float32)
    tokens = np.array([1, 2, 248, *[250] * 6, 249, 5, 6], np.int32)
    cells, positions = image_cells(tokens, [0], [GRID], 6, config), rope_positions(tokens, [GRID], config)
    prompt = Prompt(tokens[None], positions[None], np.ones((1, len(tokens)), bool), cells[None])
    return prompt, batch_images([(pixels, GRID)], config)


def cases(model: Qwen3VL, prompt: Prompt, vision: Any) -> dict[str, tuple[dict[str, Any], str]]:
    """By name: the arguments, and what the sentence must say."""
    length = prompt.tokens.shape[1]
    steer = Steer(jnp.zeros((LAYERS, 1, HEADS)), jnp.zeros((1, length)), jnp.zeros((1,), bool))
    amplify = Amplify(steer.heads, steer.keys, steer.replace_scores)
    groups = jnp.zeros((1, 2, length))
    beyond, below = prompt.tokens.copy(), prompt.tokens.copy()
    beyond[0, -1], below[0, -1] = VOCAB, -1
    cells = prompt.image_cell + 1000 * (prompt.image_cell >= 0)
    full = model(prompt, vision).cache

    def steered(**change: Any) -> dict[str, Any]:
        return dict(edits=Edits(steer=dataclasses.replace(steer, **change)))

    def amplified(**change: Any) -> dict[str, Any]:
        return dict(edits=Edits(amplify=dataclasses.replace(amplify, **change)))

    def masked(*shape: int) -> dict[str, Any]:
        return dict(edits=Edits(jnp.zeros(shape)))

    def tapped(positions: Any, groups: Any = groups) -> dict[str, Any]:
        return dict(taps=Taps(positions, groups))

    return {
        "token beyond": (dict(prompt=prompt.replace(tokens=beyond)), "prompt.tokens holds 256"),
        "token below": (dict(prompt=prompt.replace(tokens=below)), "prompt.tokens holds -1"),
        "positions": (dict(prompt=prompt.replace(positions=prompt.positions[:, 1:])), "prompt.positions has shape"),
        "valid": (dict(prompt=prompt.replace(valid=prompt.valid[0])), "prompt.valid has shape"),
        "no batch": (dict(prompt=jax.tree.map(lambda leaf: leaf[0], prompt)), "prompt.tokens has shape"),
        "cells": (dict(prompt=prompt.replace(image_cell=cells)), "prompt.image_cell holds"),
        "no vision": (dict(vision=None), "vision is None"),
        "no cells": (dict(prompt=prompt.replace(image_cell=None)), "prompt.image_cell is None"),
        "swapped": (dict(prompt=vision, vision=prompt), "prompt is of type Vision"),
        "edits in a list": (dict(edits=[1]), "edits is of type list"),
        "a full cache": (dict(cache=full), "no room for"),
        "a cache of two rows": (dict(cache=full.fork(2, length)), "cache.keys has shape"),
        "mask of keys": (masked(LAYERS, 1, HEADS, 1, length + 1), "edits.head_mask has shape"),
        "mask of heads": (masked(LAYERS, 1, HEADS + 1, 1, length), "edits.head_mask has shape"),
        "mask of layers": (masked(LAYERS - 1, 1, HEADS, 1, 1), "edits.head_mask has shape"),
        "mask without batch": (masked(LAYERS, HEADS, 1, length), "edits.head_mask has shape"),
        "steered heads": (steered(heads=steer.heads[:, :, 1:]), "edits.steer.heads has shape"),
        "steered keys": (steered(keys=steer.keys[:, 1:]), "edits.steer.keys has shape"),
        "steered queries": (steered(query_mask=jnp.ones((1, length + 2))), "edits.steer.query_mask has shape"),
        "amplified heads": (amplified(heads=steer.heads[:, :, 1:]), "edits.amplify.heads has shape"),
        "amplified keys": (amplified(keys=steer.keys[:, 1:]), "edits.amplify.keys has shape"),
        "amplified queries": (amplified(query_mask=jnp.ones((1, length + 2))), "edits.amplify.query_mask has shape"),
        "amplified means": (amplified(mean=jnp.zeros((2,), bool)), "edits.amplify.mean has shape"),
        "residual": (dict(edits=Edits(residual=jnp.zeros((LAYERS, 1, 1, EMBED + 1)))), "edits.residual has shape"),
        "position beyond": (tapped([[length]]), f"taps.query_positions holds {length}"),
        "position below": (tapped([[-length - 1]]), "taps.query_positions holds"),
        "positions of floats": (tapped(np.array([[0.5]])), "taps.query_positions has dtype"),
        "groups too long": (tapped([[0]], jnp.zeros((1, 2, length + 1))), "taps.groups has shape"),
        "groups too short": (tapped([[0]], groups[..., 1:]), "taps.groups has shape"),
        "groups of two rows": (tapped([[0]], jnp.zeros((2, 2, length))), "taps.groups has shape"),
    }


def refused(call: Any, said: str) -> str | None:
    """What is wrong with how a call was refused."""
    try:
        call()
    except InputError as error:
        return None if said in str(error) else f"said {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "was accepted"


def main() -> int:
    model = Qwen3VL(Config.from_dict(RAW), nnx.Rngs(0))
    prompt, images = scene(model.config)
    vision = model.encode(images)
    usual: dict[str, Any] = dict(prompt=prompt, vision=vision)
    faults = {
        name: refused(lambda given=given: model(**usual | given), said)
        for name, (given, said) in cases(model, prompt, vision).items()
    }
    greedy = Sampling.make()
    generated = {
        "a key of text": ((model, prompt, vision, None, greedy, "7"), "key is '7'"),
        "swapped plan": ((model, prompt, vision, greedy, None, 0), "plan is of type Sampling"),
        "swapped model": ((prompt, model, vision, None, greedy, 0), "model is of type Prompt"),
        "stop for sampling": ((model, prompt, vision, None, [3], 0), "sampling is of type list"),
    }
    faults |= {
        name: refused(lambda given=given: generate(*given, max_new=2), said)
        for name, (given, said) in generated.items()
    }
    faults["no tokens"] = refused(lambda: generate(model, prompt, vision, None, greedy, 0, max_new=0), "max_new is 0")
    # Near misses that mean something.
    lists = model(**usual, taps=Taps([-1], np.eye(prompt.tokens.shape[1]))).readings.mass
    usually = model(**usual, taps=Taps(jnp.array([[11]]), jnp.eye(prompt.tokens.shape[1])[None])).readings.mass
    faults["lists and no batch axis"] = None if np.array_equal(lists, usually) else "gave other numbers"
    bad = {name: fault for name, fault in faults.items() if fault}
    for name, fault in bad.items():
        print(f"{name}: {fault}")
    print(f"{len(faults)} cases, {len(bad)} faults")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
