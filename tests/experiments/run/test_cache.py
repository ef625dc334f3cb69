"""What is saved is known by all that it depends on, and what is damaged is noticed."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run.cache import digest, find_arrays, read_arrays, write_arrays
from experiments.testbed.strips import draw_strips
from gaze.pictures.strips import Strip, Unread
from qwen3vl_jax.errors import InputError


@dataclass
class Pair:
    left: object
    right: object


def test_values_that_differ_have_other_digests() -> None:
    values: list[object] = [
        None, 0, 1, 0.0, -0.0, 1.0, True, False, "", "1", "None", b"", b"1", "\udcff", [], [[]], {}, {"a": 1}, {"a": 2}, {1: "a"},
        ["ab", "c"], ["a", "bc"], ["a", ["bc"]], Pair("a", "b"), Pair("b", "a"), {"left": "a", "right": "b"},
        np.zeros(2, np.float32), np.zeros(2, np.int32), np.zeros((2, 1), np.float32), np.zeros(0), frozenset({1}), frozenset({2}),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest("a", "b") != digest("b", "a")
    assert digest("ab") != digest("a", "b")


def test_values_that_are_equal_have_the_same() -> None:
    assert digest((1, "a")) == digest([1, "a"])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(frozenset({"x", "y", "z"})) == digest(frozenset({"z", "y", "x"}))
    assert digest(np.arange(6).reshape(2, 3).T) == digest(np.ascontiguousarray(np.arange(6).reshape(2, 3).T))
    assert digest(jnp.arange(3, dtype=jnp.float32)) == digest(np.arange(3, dtype=np.float32))
    # Written down: a digest that changes from one version to the next makes every run anew.
    assert digest(1, "a", 0.5, np.arange(2, dtype=np.int32)) == "3a2e15014e47bcec129a728e683ccc36"


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot digest a function"):
        digest(lambda: None)


def test_pictures_are_their_pixels_regions_and_captions() -> None:
    strip = draw_strips(0, "cache", 1)[0]
    changed = strip.image.copy()
    changed.putpixel((383, 63), (1, 2, 3))
    others = [
        replace(strip, image=changed),
        replace(strip, widths=(60, 68, *strip.widths[2:])),
        replace(strip, captions=("another", *strip.captions[1:])),
        replace(strip, name="another"),
        Strip.even(strip.name, strip.image, 3),
    ]
    assert len({digest(one) for one in (strip, *others)}) == 1 + len(others)
    assert digest(strip) == digest(replace(strip, image=strip.image.copy()))
    unread = Unread(strip.name, lambda: changed, strip.widths, 64, strip.captions)
    assert digest(unread) != digest(Unread(strip.name, lambda: strip.image, strip.widths, 64, strip.captions))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "arrays.npz"
    write_arrays(path, "k", {"mass": np.linspace(0, 1, 100, dtype=np.float32), "gap": np.array([1.0, np.nan])})
    return path


def test_arrays_are_found_by_their_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_arrays(path, "k", ["gap"])
    assert found is not None
    assert [*found] == ["mass", "gap"]
    assert [*read_arrays(path)] == ["mass", "gap"]
    assert find_arrays(path.with_name("absent.npz"), "k") is None
    assert capsys.readouterr().err == ""
    assert find_arrays(path, "other", ["gap"]) is None
    told = capsys.readouterr().err
    assert told.startswith(f"{path} holds what other settings, heads, pictures or weights gave: it is made again")
    assert told.count("\n") == 1
    assert find_arrays(path, "k") is None
    assert "not finite (gap); it is made again" in capsys.readouterr().err


def test_arrays_cut_or_flipped_anywhere_are_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = path.read_bytes()
    spoiled = [whole[:end] for end in range(0, len(whole), 97)]
    spoiled += [whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :] for at in range(0, len(whole), 37)]
    for content in [*spoiled, b"", b"no archive", np.lib.format.MAGIC_PREFIX]:
        path.write_bytes(content)
        if (found := find_arrays(path, "k", ["gap"])) is None:
            assert f"{path} " in capsys.readouterr().err
        else:
            assert found["mass"].tolist() == np.linspace(0, 1, 100, dtype=np.float32).tolist()
    path.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"arrays\.npz cannot be read as a file of arrays"):
        read_arrays(path)
    with pytest.raises(InputError, match="there is no file of arrays at"):
        read_arrays(path.with_name("absent.npz"))
