"""What comes out of a conversion, in both directions."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from flax.traverse_util import flatten_dict
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration

from convert import safetensors_writer
from convert.convert import convert, to_hf, to_orbax
from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import load, load_model
from qwen3vl_jax.load.orbax_files import is_orbax
from qwen3vl_jax.load.source import open_checkpoint
from qwen3vl_jax.weights import disassemble, tensors

NewToy = Callable[..., Path]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), second[name].view(torch.uint8)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_keeps_every_bit(new_toy: NewToy, tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    toy = new_toy(dtype=dtype, tied=tied)
    convert(toy, tmp_path / "orbax")
    assert is_orbax(tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "hf")
    assert_same_bits(weights(toy), weights(tmp_path / "hf"))
    assert (tmp_path / "hf" / "config.json").read_bytes() == (toy / "config.json").read_bytes()


def test_round_trip_keeps_mixed_dtypes(toy: Path, tmp_path: Path) -> None:
    mixed = weights(toy)
    for name in list(mixed)[::3]:
        mixed[name] = mixed[name].bfloat16()
    save_file(mixed, toy / "model.safetensors", metadata={"format": "pt"})
    convert(toy, tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "hf")
    assert_same_bits(mixed, weights(tmp_path / "hf"))
    assert open_checkpoint(tmp_path / "orbax").dtype == np.float32


def test_transformers_opens_what_to_hf_writes(new_toy: NewToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = new_toy(tied=False, dtype=torch.bfloat16)
    monkeypatch.setattr(safetensors_writer, "SHARD_BYTES", 100_000)
    to_orbax(toy, tmp_path / "orbax")
    to_hf(tmp_path / "orbax", tmp_path / "hf")
    files = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    first = Qwen3VLForConditionalGeneration.from_pretrained(toy).state_dict()
    second, info = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_bits(first, second.state_dict())
    # And the shards are a source again.
    to_orbax(tmp_path / "hf", tmp_path / "again")
    assert open_checkpoint(tmp_path / "again").dtypes == open_checkpoint(toy).dtypes


def test_orbax_itself_restores_one_array_per_tensor(shared_toy: Path, tmp_path: Path) -> None:
    to_orbax(shared_toy, tmp_path / "orbax")
    restored = flatten_dict(ocp.PyTreeCheckpointer().restore(tmp_path / "orbax" / "params"), sep=".")
    stored = load_file(shared_toy / "model.safetensors")
    declared = tensors(Config.load(shared_toy))
    assert restored.keys() == declared.keys()
    for name, tensor in declared.items():
        assert restored[name].shape == tensor.flax_shape
        assert np.array_equal(tensor.to_hf(restored[name]), stored[name].numpy()), name


def test_both_formats_load_the_same_model(new_toy: NewToy, tmp_path: Path) -> None:
    toy = new_toy(dtype=torch.bfloat16, tied=False)
    to_orbax(toy, tmp_path / "orbax")
    from_hf, from_orbax = (disassemble(load_model(folder, "bfloat16")) for folder in (toy, tmp_path / "orbax"))
    stored = weights(toy)
    assert stored.keys() == from_hf.keys() == from_orbax.keys()
    for name, tensor in stored.items():
        bits = tensor.view(torch.int16).numpy()
        assert np.array_equal(bits, from_hf[name].view(np.int16)), name
        assert np.array_equal(bits, from_orbax[name].view(np.int16)), name


@pytest.mark.parametrize(
    ("stored", "asked", "loaded"),
    [
        (torch.bfloat16, None, "float32"),  # on a CPU
        (torch.float32, None, "float32"),
        (torch.float16, None, "float32"),
        (torch.bfloat16, "float32", "float32"),
        (torch.float32, "bfloat16", "bfloat16"),
    ],
)
def test_dtype_of_a_loaded_model(new_toy: NewToy, stored: torch.dtype, asked: str | None, loaded: str) -> None:
    model = load_model(new_toy(dtype=stored), asked)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model)} == {loaded}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_casts_as_torch_does_and_the_config_says_so(new_toy: NewToy, tmp_path: Path, dtype: str) -> None:
    other = torch.bfloat16 if dtype == "float32" else torch.float32
    toy = new_toy(dtype=other)
    config = json.loads((toy / "config.json").read_text())
    config["text_config"]["torch_dtype"] = config["dtype"]
    (toy / "config.json").write_text(json.dumps(config))
    convert(toy, tmp_path / "orbax", dtype)
    convert(tmp_path / "orbax", tmp_path / "hf")
    assert_same_bits({name: t.to(getattr(torch, dtype)) for name, t in weights(toy).items()}, weights(tmp_path / "hf"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["dtype"], config["text_config"]["torch_dtype"]) == (dtype, dtype)
    assert Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "hf").dtype == getattr(torch, dtype)


def test_side_files_make_the_result_enough_by_itself(toy_with_tokenizer: Path, tmp_path: Path) -> None:
    convert(toy_with_tokenizer, tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "hf")
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "hf" / name).read_bytes() == (toy_with_tokenizer / name).read_bytes()
    assert not list((tmp_path / "orbax").glob("*.safetensors*"))
    texts = []
    for folder in (toy_with_tokenizer, tmp_path / "orbax", tmp_path / "hf"):
        model, processor = load(folder)
        assert model.config == processor.config
        texts.append(processor.chat("a b"))
    assert len(set(texts)) == 1
    assert "template of this checkpoint" in texts[0]


def test_names_of_older_exports_are_understood(toy: Path, tmp_path: Path) -> None:
    stored = load_file(toy / "model.safetensors")
    old = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): t
        for name, t in stored.items()
    }
    assert not old.keys() & stored.keys()
    save_file(old, toy / "model.safetensors")
    to_hf(toy, tmp_path / "hf")
    assert_same_bits(stored, weights(tmp_path / "hf"))


def test_repeated_head_of_a_tied_checkpoint(toy: Path, tmp_path: Path) -> None:
    stored = load_file(toy / "model.safetensors")
    embedding = stored["model.language_model.embed_tokens.weight"]
    save_file(stored | {"lm_head.weight": embedding.clone()}, toy / "model.safetensors")
    to_hf(toy, tmp_path / "hf")
    assert_same_bits(stored, weights(tmp_path / "hf"))
    other = embedding.clone()
    other[-1, -1] += 1
    for head in (other, embedding[:-1].clone(), embedding.bfloat16()):
        save_file(stored | {"lm_head.weight": head}, toy / "model.safetensors")
        with pytest.raises(InputError, match=r"lm_head\.weight differs"):
            open_checkpoint(toy)


def test_progress_counts_up_to_all_bytes(shared_toy: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    to_orbax(shared_toy, tmp_path / "orbax", progress=lambda *step: seen.append(step))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(set(done))
    assert set(totals) == {done[-1]}
    assert done[-1] == 2 * sum(tensor.nbytes for tensor in load_file(shared_toy / "model.safetensors").values())
