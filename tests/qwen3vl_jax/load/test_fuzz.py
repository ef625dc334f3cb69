"""Spoiled checkpoints: nothing but InputError, or a checkpoint of the right shapes; and no spoiled tensor goes unnoticed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.convert import to_orbax
from qwen3vl_jax.config import Config
from qwen3vl_jax.load import open_checkpoint, weights_digest
from qwen3vl_jax.load.digests import damage
from qwen3vl_jax.weights import tensors

from ...convert.conftest import make_toy
from ...spoiling import Edit, edits, fuzz, spoiled


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


def read_all(folder: Path) -> bool:
    checkpoint = open_checkpoint(folder)
    for tensor in tensors(checkpoint.config).values():
        assert checkpoint.read(tensor).shape == tensor.flax_shape
    return True


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@fuzz(300, nightly=12_500)
@given(st.sampled_from(["one", "shards", "orbax"]), st.integers(0), edits())
def test_any_file_of_a_checkpoint(small: Path, kind: str, number: int, edit: Edit) -> None:
    weights = [path for path in files(small / kind) if "safetensors" in path.name or path.parent.name != kind]
    spoiled(small / kind, weights[number % len(weights)], edit, read_all)


@fuzz(300, nightly=12_500)
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
