"""The digest of a checkpoint: of all its bytes, and of nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from convert.convert import to_orbax
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.load import weights_digest
from qwen3vl_jax.load.checkpoint import byte_blocks
from qwen3vl_jax.load.digests import tensor_digest


def test_both_formats_have_the_same(tmp_path: Path) -> None:
    to_orbax(CHECKPOINT, tmp_path / "orbax")
    to_orbax(CHECKPOINT, tmp_path / "wide", "float32")
    assert weights_digest(tmp_path / "orbax") == weights_digest(CHECKPOINT)
    assert weights_digest(tmp_path / "wide") != weights_digest(CHECKPOINT)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 1.0])
def test_one_bit_anywhere_changes_it(tmp_path: Path, place: float) -> None:
    copy = shutil.copytree(CHECKPOINT, tmp_path / "copy")
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[int(place * (len(raw) - 1))] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    assert weights_digest(copy) != weights_digest(CHECKPOINT)


@settings(max_examples=50, deadline=None)
@given(array_shapes(max_dims=4, max_side=7), st.integers(1, 200), st.integers(0))
def test_blocks_and_views_do_not_matter_but_every_byte_does(shape: tuple[int, ...], block: int, place: int) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    whole = tensor_digest(array)
    turned = np.asfortranarray(array)
    assert tensor_digest(turned) == whole
    assert b"".join(byte_blocks(turned, block)) == array.tobytes()
    array.reshape(-1).view(np.uint8)[place % array.nbytes] ^= 1
    assert tensor_digest(array) != whole
