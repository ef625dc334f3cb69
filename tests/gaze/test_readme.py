"""The examples of `gaze/README.md` run as they stand there."""

import re
from functools import partial
from pathlib import Path

import gaze
from experiments.testbed.strips import draw_strips
from gaze.steering import learned_masks


def test_examples(capsys, monkeypatch):
    page = (Path(gaze.__file__).parent / "README.md").read_text()
    look, learn = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(look, "gaze/README.md", "exec"), names)
    *_, said = capsys.readouterr().out.strip().splitlines()
    assert said == "red house with red star running to it."
    names["strips"] = draw_strips(0, "readme", 1, panels=3)
    monkeypatch.setattr(learned_masks, "learn_mask", partial(learned_masks.learn_mask, steps=2, batch=2))
    exec(compile(learn, "gaze/README.md", "exec"), names)
    assert len(names["mask"].heads) <= 96
