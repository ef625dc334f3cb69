"""The model of a run: opened once, whichever judge needs it, and known without it if it is gone."""

from pathlib import Path
from typing import Any

import pytest

from experiments.run.models import ModelFacts, model_facts, open_model
from experiments.run.run import Run
from experiments.run.settings import Settings
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_json
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor


def test_runs_under_other_judges_share_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def counted(*given: Any) -> tuple[Qwen3VL, Processor]:
        opened.append(given)
        return open_model(*given)

    monkeypatch.setattr("experiments.run.run.open_model", counted)
    run = Run(tmp_path / "run", Settings())
    other = run.with_judge("caption")
    assert other._opened is run._opened is other.with_judge("first")._opened
    assert (run.judge.name, other.judge.name) == ("exact", "caption")
    assert len(opened) == 1


def never() -> Qwen3VL:
    raise AssertionError("the model is not needed")


def test_only_a_checkpoint_that_is_gone_is_taken_to_be_as_it_was(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "model.json", tmp_path / "checkpoint"
    facts = ModelFacts(weights="w", stamp=None, revision="r", layers=2, heads=3)
    with pytest.raises(InputError, match="there is no folder"):
        model_facts(path, checkpoint, never)
    write_json(path, facts.model_dump())
    assert model_facts(path, checkpoint, never) == facts
    checkpoint.write_text("x")
    with pytest.raises(InputError, match="is no folder"):
        model_facts(path, checkpoint, never)
