"""`gaze ask` on the shipped testbed: it answers, it looks where it is told, and it says what it cannot use."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.commands.cli import MODES
from gaze.pictures.strips import Strip, wordings
from gaze.prompts import DISCOVERY, STATIC, fill
from gaze.steering import masks

Command = Callable[..., int]


def told(strip: Strip) -> list[str]:
    """The lines that tell what the fourth panel shows."""
    return [f"{wording}\n" for wording in wordings(strip.captions[3])]


def test_modes_are_those_of_the_library() -> None:
    assert tuple(masks.MODES) == MODES


def test_answers_about_the_panel_it_is_asked_for(
    gaze: Command, picture: Path, strip: Strip, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gaze("ask", picture, fill(DISCOVERY, 3)) == 0
    assert capsys.readouterr().out in told(strip)


@pytest.mark.parametrize("place", ["4", "192,0,256,64"])
def test_looks_where_it_is_told(
    gaze: Command, picture: Path, strip: Strip, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert gaze("ask", picture, STATIC) == 0
    alone = capsys.readouterr().out
    assert gaze("ask", picture, STATIC, "--look-at", place) == 0
    said = capsys.readouterr().out
    assert said in told(strip)
    assert said != alone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/none.png", "?"], "there is no image at"),
        (["{tmp}/text.png", "?"], "cannot be read as an image"),
        (["{tmp}/long.png", "?"], "side ratio must be at most 200"),
        (["{picture}", "?", "--look-at", "0"], "there is no panel 0: give a number from 1 to 6"),
        (["{picture}", "?", "--look-at", "7"], "there is no panel 7: give a number from 1 to 6"),
        (["{picture}", "?", "--look-at", "left"], "cannot look at 'left'"),
        (["{picture}", "?", "--look-at", "1,2,3"], "cannot look at '1,2,3'"),
        (["{picture}", "?", "--look-at", "nan,0,9,9"], "is empty"),
        (["{picture}", "?", "--look-at", "400,0,500,64"], "lies outside the picture of 384 x 64 pixels"),
        (["{picture}", "?", "--look-at", "40,0,20,64"], "is empty"),
        (["{picture}", "?", "--look-at", "2,2,9,9"], "holds the centre of no image token"),
        (["{picture}", "?", "--look-at", "1", "--heads", "{tmp}/outside.json"], "the model has no head 0 in layer 99"),
        (["{picture}", "?", "--look-at", "1", "--heads", "{tmp}/empty.json"], "a head set is empty"),
        (["{picture}", "?", "--look-at", "1", "--heads", "{tmp}/text.png"], "cannot be read as a head set"),
        (["{picture}", "?", "--look-at", "1", "--heads", "{tmp}/nowhere.json"], "there is no head set at"),
        (["{picture}", "?", "--look-at", "1", "--strength", "-1"], "the strength must be"),
        (["{picture}", "?", "--model", "{tmp}/nowhere"], "there is no folder"),
        (["{picture}", "?", "--model", "{tmp}"], "config.json"),
        (["{picture}", "?", "--model", "{tmp}", "--look-at", "1"], "give --heads"),
        (["{picture}"], "Missing argument 'QUESTION'"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(
    gaze: Command,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "text.png").write_text("no picture, no JSON")
    Image.fromarray(np.zeros((2, 500, 3), np.uint8)).save(tmp_path / "long.png")
    (tmp_path / "outside.json").write_text(json.dumps([{"layer": 99, "head": 0, "score": 1.0}]))
    (tmp_path / "empty.json").write_text("[]")
    assert gaze("ask", *(word.format(tmp=tmp_path, picture=picture) for word in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
