"""Packages that only some uses need: missing, broken, and there."""

import sys
from pathlib import Path

import pytest

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.extras import extra


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_package_at_all", "a test needs the extra `hub`: pip install 'gaze-jax\\[hub\\]'"),
        (
            "raise RuntimeError('two versions of one library')",
            "cannot be imported \\(two versions of one library\\): install",
        ),
        ("raise AttributeError('no attribute x')", "no attribute x"),
        ("raise OSError('libx.so: undefined symbol')", "undefined symbol"),
        ("x =", "cannot be imported"),
    ],
)
def test_a_broken_installation_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "broken_package.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_package", raising=False)
    with pytest.raises(InputError, match=said):
        extra("broken_package", "hub", "a test")


def test_what_is_there_is_imported() -> None:
    assert extra("json", "hub", "a test").loads("1") == 1
    with pytest.raises(InputError, match="needs the extra `coco`"):
        extra("no_such_package_at_all", "coco", "a test")
