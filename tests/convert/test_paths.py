"""Folders of any name: what is written there is what is read there, and never a neighbour's."""

import os
from pathlib import Path

import numpy as np
import pytest

from convert.convert import convert, to_orbax
from qwen3vl_jax.load import load_model, open_checkpoint, weights_digest
from qwen3vl_jax.weights import disassemble

from .conftest import make_toy

NAMES = [
    "run%20x",
    "run x",
    "100%",
    "run#1",
    "who?",
    "a|b",
    "[2026] run",
    "*",
    "a\\b",
    " before and after ",
    "new\nline",
    "модель",
    "Qwen%2FQwen3-VL",
    "a:b@c",
    "~",
    "$HOME",
    "'\"`",
    "..%2f..",
    "gs:",
    "\udcff",
    "x" * 255,
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "toy"
    return make_toy(folder, dict(num_hidden_layers=1), None, dict(depth=1, deepstack_visual_indexes=[0]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["last", "above"])
def test_there_and_back(small: Path, tmp_path: Path, name: str, where: str) -> None:
    place = tmp_path if where == "last" else tmp_path / name
    place.mkdir(exist_ok=True)
    orbax, back = place / (name if where == "last" else "orbax"), place / f"{name[:100]}-hf"
    convert(small, orbax)
    convert(orbax, back)
    assert sorted(os.listdir(place)) == sorted([orbax.name, back.name])
    assert weights_digest(small) == weights_digest(orbax) == weights_digest(back)


def test_a_neighbour_is_not_read(small: Path, tmp_path: Path) -> None:
    other = make_toy(tmp_path / "toy", dict(num_hidden_layers=1), None, dict(depth=1, deepstack_visual_indexes=[0]))
    raw = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(raw[:-1000] + bytes(1000))
    for quoted, plain in (("run%20x", "run x"), ("a\\b", "a/b"), ("run#1", "run"), ("who?", "who"), ("[cd]", "c")):
        (tmp_path / plain).parent.mkdir(exist_ok=True)
        to_orbax(other, tmp_path / plain)
        to_orbax(small, tmp_path / quoted)
        found, wanted = (disassemble(load_model(folder)) for folder in (tmp_path / quoted, small))
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        assert weights_digest(tmp_path / plain) == weights_digest(other) != weights_digest(small)
        for folder in (quoted, plain):
            assert not [name for name in os.listdir(tmp_path / folder / "params") if "tmp" in name]
        if plain != "a/b":
            (tmp_path / plain).rename(tmp_path / f"{plain}-done")


def test_a_link_that_was_needed_goes_with_the_checkpoint(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    to_orbax(small, tmp_path / "a\\b")
    opened = open_checkpoint(tmp_path / "a\\b")
    assert len(os.listdir(tmp_path / "links")) == 1
    del opened
    assert os.listdir(tmp_path / "links") == []
