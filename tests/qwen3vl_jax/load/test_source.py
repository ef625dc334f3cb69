"""Checkpoints that cannot be used: one sentence that names what is wrong, and nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from convert.convert import convert, to_orbax
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import load, load_model
from qwen3vl_jax.load.source import open_checkpoint, resolve

Weights = dict[str, torch.Tensor]
NORM = "model.language_model.norm.weight"
Q_PROJ = "model.language_model.layers.0.self_attn.q_proj.weight"


def edited(folder: Path, edit: Callable[[Weights], object]) -> Path:
    stored = load_file(folder / "model.safetensors")
    edit(stored)
    save_file(stored, folder / "model.safetensors")
    return folder


def sharded(folder: Path) -> dict[str, str]:
    """Splits a toy's file into two shards with an index; returns the index."""
    stored = load_file(folder / "model.safetensors")
    where = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(stored)}
    for file in set(where.values()):
        save_file({name: stored[name] for name in stored if where[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    write_index(folder, where)
    return where


def write_index(folder: Path, where: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def rewritten_header(folder: Path, edit: Callable[[str], str]) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = edit(raw[8 : 8 + length].decode()).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])


def fails(folder: Path, *words: str) -> None:
    """`folder` is refused with a message of one sentence that holds these words, by every way in; nothing is left."""
    before = sorted(folder.parent.iterdir())
    for use in (lambda: convert(folder, folder.parent / "dst"), lambda: load_model(folder)):
        with pytest.raises(InputError) as caught:
            use()
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message
    assert sorted(folder.parent.iterdir()) == before


def test_missing_tensor(toy: Path) -> None:
    fails(edited(toy, lambda stored: stored.pop(NORM)), "lacks a tensor", NORM)


def test_many_missing_tensors_are_counted(toy: Path) -> None:
    def drop(stored: Weights) -> None:
        for name in [name for name in stored if "layers.2." in name]:
            del stored[name]

    fails(edited(toy, drop), "lacks 11 tensors", "layers.2.", "...")


def test_unknown_tensor(toy: Path) -> None:
    fails(edited(toy, lambda stored: stored.update(extra=torch.zeros(3))), "holds a tensor", "not know", "extra")


def test_misshapen_tensor(toy: Path) -> None:
    fails(edited(toy, lambda stored: stored.update({Q_PROJ: torch.zeros(64, 47)})), Q_PROJ, "[64, 47], not [64, 48]")


def test_head_missing_from_an_untied_checkpoint(toy: Path) -> None:
    config = json.loads((toy / "config.json").read_text())
    (toy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    fails(toy, "lacks a tensor", "lm_head.weight")


def test_tensor_under_an_old_and_a_new_name(toy: Path) -> None:
    fails(edited(toy, lambda stored: stored.update({"model.norm.weight": stored[NORM].clone()})), "old and a new name")


def test_unsupported_dtype(toy: Path) -> None:
    fails(edited(toy, lambda stored: stored.update({NORM: stored[NORM].double()})), "F64", "F32, BF16, F16")


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_truncated_file(toy: Path, size: int) -> None:
    path = toy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    fails(toy, "model.safetensors")


def test_file_with_something_behind_the_end(toy: Path) -> None:
    with (toy / "model.safetensors").open("ab") as file:
        file.write(b"more")
    fails(toy, "model.safetensors", "bytes")


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 100, b"hello, this is no tensor file", (2).to_bytes(8, "little") + b"[]"]
)
def test_garbage_file(toy: Path, garbage: bytes) -> None:
    (toy / "model.safetensors").write_bytes(garbage)
    fails(toy, "model.safetensors")


def test_header_that_names_a_tensor_twice(toy: Path) -> None:
    rewritten_header(
        toy, lambda text: text.replace('{"', f'{{"{NORM}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"', 1)
    )
    fails(toy, NORM, "twice")


def test_header_whose_places_overlap(toy: Path) -> None:
    rewritten_header(toy, lambda text: text.replace('"data_offsets":[0,', '"data_offsets":[4,', 1))
    fails(toy, "damaged")


def test_index_that_names_an_absent_file(toy: Path) -> None:
    sharded(toy)
    (toy / "part-1.safetensors").unlink()
    fails(toy, "part-1.safetensors", "there is no")


def test_index_that_promises_too_much(toy: Path) -> None:
    write_index(toy, sharded(toy) | {"ghost": "part-0.safetensors"})
    fails(toy, "ghost", "part-0.safetensors")


def test_tensor_in_two_shards(toy: Path) -> None:
    sharded(toy)
    first, second = (load_file(toy / f"part-{i}.safetensors") for i in range(2))
    name = next(iter(first))
    save_file(second | {name: first[name]}, toy / "part-1.safetensors")
    fails(toy, name, "more than one file")


@pytest.mark.parametrize("where", [{}, [], {"a": 3}, {"a": "../a.safetensors"}])
def test_index_that_is_none(toy: Path, where: object) -> None:
    sharded(toy)
    write_index(toy, where)
    fails(toy, "index of safetensors files")


def test_folder_without_weights(toy: Path) -> None:
    (toy / "model.safetensors").unlink()
    fails(toy, "model.safetensors", "model.safetensors.index.json")


def test_folder_without_config(toy: Path) -> None:
    (toy / "config.json").unlink()
    fails(toy, "config.json")


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl", "qwen3_omni_moe", None])
def test_another_architecture(toy: Path, kind: str | None) -> None:
    config = json.loads((toy / "config.json").read_text())
    (toy / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    fails(toy, repr(kind), "qwen3_vl")


def test_damaged_orbax_checkpoint(shared_toy: Path, tmp_path: Path) -> None:
    to_orbax(shared_toy, tmp_path / "whole")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "whole", copy)
    largest = max((copy / "params").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    largest.unlink()
    fails(copy, "params", "cannot be read")
    shutil.rmtree(copy)
    shutil.copytree(tmp_path / "whole", copy)
    (copy / "params" / "_METADATA").write_text("{")
    fails(copy, "params", "metadata of an Orbax checkpoint")
    shutil.rmtree(copy)
    shutil.copytree(tmp_path / "whole", copy)
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    fails(copy, "not know", "layers.3.")


def test_tokenizer_is_asked_for_only_by_load(shared_toy: Path) -> None:
    load_model(shared_toy)
    with pytest.raises(InputError, match="tokenizer"):
        load(shared_toy)


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "a/b/c", "../up", "org/", "https://hub/org/name"])
def test_neither_a_folder_nor_a_hub_name(name: str) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        resolve(name)


def test_file_in_place_of_a_folder(shared_toy: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        resolve(shared_toy / "config.json")


def test_hub_name_is_downloaded_with_the_files_needed(shared_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {}

    def download(name: str, allow_patterns: list[str]) -> str:
        calls[name] = allow_patterns
        return str(shared_toy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert np.dtype(load_model("Org/some-model.1").dtype) == np.float32
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} < set(*calls.values())
    assert list(calls) == ["Org/some-model.1"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalEntryNotFoundError("no network"), "cannot be reached"),
        (errors.OfflineModeIsEnabled("offline"), "cannot be reached"),
        (
            errors.RepositoryNotFoundError("404\nmore", response=SimpleNamespace(headers={}, request=None)),
            "no public repository",
        ),
        (errors.HFValidationError("bad name"), "bad name"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_hub_that_does_not_give_it(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match=words) as caught:
        open_checkpoint("org/name")
    assert "\n" not in str(caught.value)
