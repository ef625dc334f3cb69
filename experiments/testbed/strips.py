"""The testbed's own strips."""

import numpy as np

from experiments.testbed.draw import draw_strip
from experiments.testbed.scenes import PANELS, Split, draw_scenes
from gaze.pictures.strips import Caption, Strip


def draw_strips(seed: int, purpose: str, count: int, split: Split = "held_out", panels: int = PANELS) -> list[Strip]:
    """Returns `count` strips for one purpose; by default each panel holds words that training never showed together.

    The seed and the purpose together make the strips: two purposes share none.
    """
    strips = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, *purpose.encode()])
        scenes = draw_scenes(rng, panels, split)
        image = draw_strip(scenes, rng, split)
        captions = tuple(Caption(scene.captions[0], scene.captions[1:]) for scene in scenes)
        strips.append(Strip(f"{purpose}-{seed}-{number}", image, (image.width // panels,) * panels, captions))
    return strips
