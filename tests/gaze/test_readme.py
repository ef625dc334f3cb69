"""The example of `gaze/README.md` runs as it stands there."""

import re
from pathlib import Path

import gaze


def test_example(capsys):
    page = (Path(gaze.__file__).parent / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "gaze/README.md", "exec"), {})
    *_, said = capsys.readouterr().out.strip().splitlines()
    assert said == "green moon jumps over orange house."
