"""Discovery, answers and what is made of them, called with arguments that do not fit, without the suite's shape checks.

Prints a line for each that was not refused with the right sentence; exit status 1 if there is one.
"""

import sys
from typing import Any

import numpy as np
from PIL import Image

from gaze.discovery.scores import by_content, lift, per_strip, rank, split
from gaze.discovery.scores import gaze_credit as credit
from gaze.heads import HeadSet
from gaze.pictures.regions import region_keys
from gaze.pictures.strips import Strip
from gaze.prompts import DISCOVERY, fill, prefixed
from gaze.steering.attention_cost import shares
from gaze.steering.engine import GenerationOptions, Request, answers, discover, encode
from gaze.steering.steering_vectors import difference, observe, push, random_like, separation, sweep
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load

QUESTION = "What is happening in panel 1 of the comic strip?"
HEAD = [(1, 0)]


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
    model, processor = load(CHECKPOINT, "float32")
    text = model.config.text
    layers, heads = text.num_hidden_layers, text.num_attention_heads
    strip = Strip.even("a", Image.fromarray(np.full((64, 384, 3), 200, np.uint8)), 3)
    base, greedy = (model, processor, [strip]), Sampling.make()
    options = GenerationOptions(greedy, 3, batch=4, strips=1)
    mass = np.full((2, 3, layers, heads, 3), 0.25, np.float32)
    spoiled = mass.copy()
    spoiled[1, 2, 1, 0, 2] = np.nan
    vectors = np.ones((layers, text.hidden_size), np.float32)
    pairs = np.ones((4, layers, text.hidden_size), np.float32)
    row, cells = np.array([-1, 0, 1, 2], np.int32), np.eye(3, dtype=bool)

    def answered(*requests: Any, question: Any = QUESTION, settings: Any = options) -> Any:
        return answers(*base, question, list(requests), settings)

    def cost(**change: Any) -> Any:
        said: list[Any] = [np.array([5, 6], np.int32)]
        usual = dict(pictures=[strip], question=QUESTION, target=0, said=said, heads=HeadSet(HEAD), room=4)
        return shares(model, processor, **usual | change)

    cases: dict[str, tuple[Any, str]] = {
        "no strips": (lambda: discover(model, processor, [], [QUESTION]), "strips is empty"),
        "a picture": (lambda: discover(model, processor, [strip.image], [QUESTION]), "strips[0] is of type Image"),
        "a question in place of a list": (lambda: discover(*base, QUESTION), "questions is of type str"),
        "no questions": (lambda: discover(*base, []), "questions holds 0 texts"),
        "a number for a question": (lambda: discover(*base, [1]), "questions[0] is of type int"),
        "batch 0": (lambda: discover(*base, [QUESTION], batch=0), "batch is 0"),
        "swapped": (lambda: discover(processor, model, [strip], [QUESTION]), "model is of type Processor"),
        "two questions": (lambda: encode(*base, [QUESTION] * 2), "questions holds 2 texts, but should hold 1"),
        "no such strip": (lambda: answered(Request(1, HEAD, 0)), "requests[0] is about strip 1"),
        "strip -1": (lambda: answered(Request(-1, HEAD, 0)), "strip of a Request is -1"),
        "no such panel": (lambda: answered(Request(0, HEAD, 0), Request(0, HEAD, 3)), "requests[1] has target 3"),
        "no such head": (lambda: answered(Request(0, [(0, heads)], 0)), f"no head {heads} in layer 0"),
        "mask of heads": (
            lambda: answered(Request(0, np.ones((layers, heads + 1)), 0)),
            "heads of requests[0] has shape",
        ),
        "mask of NaN": (lambda: answered(Request(0, np.full((layers, heads), np.nan), 0)), "are not finite"),
        "targets of floats": (lambda: answered(Request(0, HEAD, [0.5])), "targets are [0.5]"),
        "no targets": (lambda: answered(Request(0, HEAD, [])), "targets are []"),
        "target -2": (lambda: answered(Request(0, HEAD, -2)), "targets are -2"),
        "strength NaN": (lambda: Request(0, HEAD, 0, np.nan), "strength must be a finite number"),
        "strength of text": (lambda: Request(0, HEAD, 0, "hard"), "the strength cannot be read as a number"),
        "mode": (lambda: Request(0, HEAD, 0, mode="boost"), "there is no boost steering"),
        "bias": (lambda: Request(0, HEAD, 0, bias=None), "bias is of type NoneType"),
        "query positions": (lambda: Request(0, HEAD, 0, query_positions="some"), "there is no some steering"),
        "a request of another type": (lambda: answered((0, HEAD, 0)), "requests[0] is of type tuple"),
        "settings": (lambda: answered(Request(0, HEAD, 0), settings=greedy), "settings is of type Sampling"),
        "questions for two strips": (
            lambda: answered(Request(0, HEAD, 0), question=["a", "b"]),
            "question holds 2 texts",
        ),
        "max_new": (lambda: GenerationOptions(greedy, 0), "max_new is 0"),
        "max_new of floats": (lambda: GenerationOptions(greedy, 2.5), "max_new is 2.5"),
        "batches of none": (lambda: GenerationOptions(greedy, 2, batch=0), "batch is 0"),
        "sampling": (lambda: GenerationOptions([594], 2), "sampling is of type list"),
        "cost: answers": (lambda: cost(said=[]), "said must hold one answer for each of the 1 pictures"),
        "cost: room": (lambda: cost(room=1), "of at most 1 tokens"),
        "cost: target": (lambda: cost(target=3), "a target is none of the 3 regions"),
        "cost: target below": (lambda: cost(target=-1), "target is -1"),
        "cost: tokens": (lambda: cost(said=[np.array([text.vocab_size])]), f"said[0] holds {text.vocab_size}"),
        "scores: mass": (lambda: per_strip(mass[:, :2], credit), "mass has shape"),
        "scores: NaN": (lambda: per_strip(spoiled, credit), "mass has 1 of"),
        "scores: none": (lambda: per_strip(mass[:0], credit), "mass is empty"),
        "scores: one panel": (lambda: lift(mass[:, :1, ..., :1]), "at least two panels"),
        "scores: orders": (lambda: by_content(mass, np.array([[0, 1, 2]])), "orders has shape"),
        "scores: rank": (lambda: rank(np.array([[0.1, np.nan]])), "scores has 1 of 2"),
        "scores: split": (lambda: split(encode(*base, [QUESTION]).prompt, 0), "strips is 0"),
        "vectors": (lambda: push(vectors[0], [1]), "vectors has shape"),
        "vectors of NaN": (lambda: push(vectors * np.nan, [1]), "vectors has"),
        "alpha": (lambda: push(vectors, [1], np.inf), "alpha has 1 of 1"),
        "layer 0.5": (lambda: push(vectors, [0.5]), "cannot push after layers [0.5]"),
        "pairs": (lambda: difference(pairs, pairs[:1]), "minus has shape"),
        "draws": (lambda: random_like(vectors, 0, 0), "draws is 0"),
        "kinds": (lambda: separation(pairs[:1], pairs[:1]), "from three on"),
        "panel of a prompt": (lambda: fill(DISCOVERY, 2.7), "panel is 2.7, but should be a whole number from 0 to 5"),
        "panel of an array": (lambda: fill(DISCOVERY, np.array([1, 2])), "panel is array"),
        "panel of text": (lambda: fill(DISCOVERY, "2"), "panel is '2'"),
        "panels of floats": (lambda: fill(DISCOVERY, 0, 6.0), "panels is 6.0"),
        "no template": (lambda: fill(None, 0), "template is of type NoneType"),
        "swapped prompt": (lambda: fill(2, DISCOVERY), "template is of type int"),
        "prefix": (lambda: prefixed(None, QUESTION), "prefix is of type NoneType"),
        "prefixed": (lambda: prefixed("x", 3), "question is of type int"),
        "columns": (lambda: Strip.even("a", strip.image, 10**9), "panels is 1000000000"),
        "columns of floats": (lambda: Strip.even("a", strip.image, 2.5), "panels is 2.5"),
        "keys of a batch": (lambda: region_keys(row[None], cells), "image_cell has shape"),
        "cells of numbers": (lambda: region_keys(row, cells.astype(np.int32)), "cells has shape"),
    }
    faults = {name: refused(call, said) for name, (call, said) in cases.items()}
    begun: Any = type("Begun", (), {"last": np.zeros(2, np.int32)})()
    bands = np.ones((1, layers))
    reads: dict[str, tuple[Any, str]] = {
        "candidates": (lambda: observe(model, begun, np.array([text.vocab_size])), "candidates holds"),
        "direction": (lambda: sweep(model, begun, vectors, bands, 1.0, np.array([1])), "direction has shape"),
        "bands": (lambda: sweep(model, begun, vectors[:, None], bands[0], 1.0, np.array([1])), "bands has shape"),
    }
    faults |= {name: refused(call, said) for name, (call, said) in reads.items()}
    # Near misses that mean something: the same answers from every way to name the same heads and targets.
    mask = HeadSet(HEAD).to_mask(layers, heads)
    usual = Request(0, mask, np.array([1, 1], np.int32))
    ways = (usual, Request(0, HEAD, 1), Request(0, HeadSet(HEAD), [1]), Request(0, mask.astype(bool), (1, 1)))
    said, checked = answered(*ways), [way.checked(model, [strip], 0) for way in ways]
    same = all(np.array_equal(one.mask, mask) and (one.steps == 1).all() for one in checked)
    same = same and all(np.array_equal(one, said[0]) for one in said)
    faults["the same heads in other words"] = None if same else "differ"
    bad = {name: fault for name, fault in faults.items() if fault}
    for name, fault in bad.items():
        print(f"{name}: {fault}")
    print(f"{len(faults)} cases, {len(bad)} faults")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
