"""What each kind of pass over a model finds on the testbed, to be compared between meshes; by itself a process of several.

python -m tests.experiments.run.passes COORDINATOR PROCESS FILE
"""

import sys
from pathlib import Path

import jax
import numpy as np

from experiments.paper.layer_steering.letter_probes import Prober, backward, forward, questions
from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.discovery.baselines import image_attention
from gaze.discovery.narration_attention import watch
from gaze.heads import HeadSet
from gaze.judges.likelihood import Likelihood
from gaze.prompts import DISCOVERY, STATIC, fill
from gaze.steering.attention_cost import shares
from gaze.steering.steering_vectors import narrate, push
from qwen3vl_jax.sharding import fetch, make_mesh

SAID = [np.array([5, 9, 11, 3], np.int32), np.array([7, 8], np.int32)]
HEADS = HeadSet(((4, 3), (4, 7)))


def passes(data: int | None, model: int = 1) -> dict[str, np.ndarray]:
    """All that a mesh of these sizes computes, or no mesh; beside discovery and answers, which `test_meshes` has."""
    vlm, processor = open_model("testbed", "float32", None if data is None else make_mesh(data, model))
    strips, asked = draw_strips(2, "meshes", 2), [fill(DISCOVERY, panel) for panel in range(6)]
    looks = image_attention(vlm, processor, strips, asked)
    watched = watch(vlm, processor, strips, STATIC, SAID, 6, 2)
    judge = Likelihood(vlm, processor, "", rows=12)
    scores = judge.scores(strips, [["red star jumps over blue box.", "blue box."]] * 2)
    orders = [questions(forward(3)), questions(backward(3))]
    prober = Prober.make(vlm, processor, orders, strips)
    streams, replies = prober.observe(strips, orders[1])
    vectors = streams.mean(axis=(0, 1))[None, :, None] * 3
    pushed = prober.push(strips, orders[0], vectors, np.eye(len(vectors[0]), dtype=np.float32))[0]
    _, begun = next(prober.begun(strips, orders[0]))
    told = narrate(vlm, begun, push(vectors[0, :, 0], [3]), np.array([594], np.int32), max_new=4)
    found = {
        "image mass": looks.mass,
        "entropy": looks.entropy,
        "watched": watched.mass,
        "cost": shares(vlm, processor, strips, STATIC, 2, SAID, HEADS, 6, 10_000.0),
        "scores": np.stack(scores),
        "streams": streams,
        "replies": replies.scores,
        "pushed": pushed.scores,
        "told": fetch(told.tokens),
    }
    return {name: np.asarray(value) for name, value in found.items()}


if __name__ == "__main__":
    coordinator, process, file = sys.argv[1:]
    jax.distributed.initialize(coordinator, 2, int(process), cluster_detection_method="deactivate")
    with Path(file).open("wb") as out:
        np.savez(out, allow_pickle=False, **passes(2))
