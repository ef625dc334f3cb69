"""Spoiled checkpoints: nothing but InputError, or a checkpoint of the right shapes; and no spoiled tensor goes unnoticed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.convert import to_orbax
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import open_checkpoint, weights_digest
from qwen3vl_jax.load.digests import damage
from qwen3vl_jax.weights import tensors

from ...convert.conftest import make_toy

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
FUZZ = settings(
    max_examples=12_500 if NIGHTLY else 300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = [
    b"",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"18446744073709551616",
    b"F64",
    b'"',
    b"../../x",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"true",
    b"[0,0]",
    b"2147483648",
    b"model.safetensors",
]
Edit = Callable[[bytes], bytes]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Bits flipped, a piece cut out, a word put in, the end cut off: up to three of these, many of them near the front."""
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.floats(0, 1), st.floats(0, 1e-3), st.floats(0, 1).map(lambda x: x**8)))
        kind = draw(st.sampled_from(["flip", "cut", "word", "end", "number"]))
        size = draw(st.integers(1, 64))
        steps.append((kind, place, size, draw(st.sampled_from(WORDS)), draw(st.integers(0, 255))))

    def edit(raw: bytes) -> bytes:
        for kind, place, size, word, value in steps:
            at = int(place * len(raw))
            if kind == "flip" and at < len(raw):
                raw = raw[:at] + bytes([raw[at] ^ (1 << value % 8)]) + raw[at + 1 :]
            elif kind == "cut":
                raw = raw[:at] + raw[at + size :]
            elif kind == "word":
                raw = raw[:at] + word + raw[at + value % 3 * len(word) :]
            elif kind == "end":
                raw = raw[:at]
            elif kind == "number":
                raw = raw[:at] + value.to_bytes(8, "little") + raw[at + 8 :]
        return raw

    return edit


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both formats of a toy with one layer: alone, in shards and as Orbax."""
    folder = tmp_path_factory.mktemp("spoiled")
    one = make_toy(folder / "one", dict(num_hidden_layers=1), None, dict(depth=1, deepstack_visual_indexes=[0]))
    to_orbax(one, folder / "orbax")
    shutil.copytree(one, folder / "shards")
    raw = (folder / "shards" / "model.safetensors").read_bytes()
    names = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    where = {name: "model.part.safetensors" for name in names if name != "__metadata__"}
    (folder / "shards" / "model.safetensors").rename(folder / "shards" / "model.part.safetensors")
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def spoiled(folder: Path, path: Path, edit: Edit, use: Callable[[Path], object]) -> object:
    """What `use` makes of the folder while a file in it is spoiled; None for InputError, the whole is restored."""
    before = path.read_bytes()
    try:
        path.write_bytes(edit(before))
        return use(folder)
    except InputError as error:
        if "\n" in str(error):
            raise
        return None
    finally:
        path.write_bytes(before)


def read_all(folder: Path) -> bool:
    checkpoint = open_checkpoint(folder)
    for tensor in tensors(checkpoint.config).values():
        assert checkpoint.read(tensor).shape == tensor.flax_shape
    return True


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@FUZZ
@given(st.sampled_from(["one", "shards", "orbax"]), st.integers(0), edits())
def test_any_file_of_a_checkpoint(small: Path, kind: str, number: int, edit: Edit) -> None:
    weights = [path for path in files(small / kind) if "safetensors" in path.name or path.parent.name != kind]
    spoiled(small / kind, weights[number % len(weights)], edit, read_all)


@FUZZ
@given(st.integers(0), st.floats(0, 1), st.integers(0, 7))
def test_a_flipped_bit_in_a_converted_checkpoint_is_found(small: Path, number: int, place: float, bit: int) -> None:
    """In any file but the list of digests itself, where it is found or harmless."""
    names = files(small / "orbax")
    path = names[number % len(names)]

    def flip(raw: bytes) -> bytes:
        at = min(int(place * len(raw)), len(raw) - 1)
        return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]

    found = spoiled(small / "orbax", path, flip, damage)
    if found == []:  # a bit that ocdbt does not look at: nothing that is read has changed
        assert path.parent.name in ("d", "params") or path.name == "digests.json"
        assert spoiled(small / "orbax", path, flip, weights_digest) == weights_digest(small / "one")


def test_unspoiled(small: Path) -> None:
    assert damage(small / "orbax") == []
    assert damage(small / "one") is None
    assert len({weights_digest(small / kind) for kind in ("one", "shards", "orbax")}) == 1
    assert Config.load(small / "one") == Config.load(small / "orbax")
    assert np.all([read_all(small / kind) for kind in ("one", "shards", "orbax")])
