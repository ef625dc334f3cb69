"""The sparse testbed's own strips."""

import numpy as np

from experiments.testbed.draw import PANEL_SIDE
from experiments.testbed.scenes import PANELS
from experiments.testbed.sparse.draw import draw_strip
from experiments.testbed.sparse.scenes import Split, draw_scenes
from gaze.pictures.strips import Strip


def draw_strips(seed: int, purpose: str, count: int, split: Split = "held_out", panels: int = PANELS) -> list[Strip]:
    """Returns `count` strips for one purpose; by default each caption is a combination that training never showed.

    The seed and the purpose together make the strips: two purposes share none.
    """
    strips = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, *purpose.encode()])
        scenes = draw_scenes(rng, panels, split)
        captions = tuple(scene.caption for scene in scenes)
        strips.append(Strip(f"{purpose}-{seed}-{number}", draw_strip(scenes, rng), (PANEL_SIDE,) * panels, captions))
    return strips
