"""The command: what it does, its exit status, and one sentence on stderr for what it cannot use."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import convert.verify
from convert import cli
from convert.verify import Comparison, ParityReport
from qwen3vl_jax.load.source import open_checkpoint

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command(*arguments)` runs `qwen3vl-convert` in this process and returns its exit status."""

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["qwen3vl-convert", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def test_there_and_back(command: Command, toy: Path, tmp_path: Path) -> None:
    assert command(toy, tmp_path / "orbax") == 0
    assert command("convert", tmp_path / "orbax", tmp_path / "hf") == 0
    assert command(tmp_path / "hf", tmp_path / "half", "--dtype", "bfloat16") == 0
    assert {str(dtype) for dtype in open_checkpoint(tmp_path / "half").dtypes.values()} == {"bfloat16"}
    assert (tmp_path / "hf" / "model.safetensors").stat().st_size > 0


def test_help_says_what_decides_the_direction(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("convert", "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "SRC is a Hugging Face folder or hub name (then DST is an Orbax checkpoint)" in words
    assert "(then DST is a Hugging Face folder again)" in words
    assert command("--help") == 0
    assert "verify" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'SRC'"),
        (["{toy}"], "Missing argument 'DST'"),
        (["{toy}", "{tmp}/dst", "more"], "unexpected extra argument"),
        (["{toy}", "{tmp}/dst", "--dtype", "int8"], "float32"),
        (["{tmp}/nowhere", "{tmp}/dst"], "there is no folder"),
        (["{tmp}", "{tmp}/dst"], "config.json"),
        (["{toy}", "{toy}"], "exists already"),
        (["{toy}", "{tmp}/no/dst"], "is not a folder"),
        (["verify", "{tmp}"], "config.json"),
        (["verify"], "Missing argument 'SRC'"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    command: Command, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert command(*(argument.format(toy=toy, tmp=tmp_path) for argument in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert list(tmp_path.iterdir()) == [toy]


@pytest.mark.parametrize(("off", "status", "word"), [(1e-5, 0, "PASS"), (1e-3, 1, "FAIL")])
def test_verify_prints_its_verdict(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    off: float,
    status: int,
    word: str,
) -> None:
    run = Comparison("one image", True, off, 2e-6, layer=3, head=1, agree=12, steps=20, tie=2e-5)
    monkeypatch.setattr(convert.verify, "verify", lambda src: ParityReport(src, (run,)))
    assert command("verify", "somewhere") == status
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith(word)
    assert f"one image, masked                logits {off:.1e}  attention 2.0e-06 (layer 3, head 1)" in printed
    assert (
        "greedy 12/20 (then the two best logits (or experts) are 2.0e-05 apart: a tie within the tolerance)" in printed
    )
    assert command("verify", "somewhere", "--json") == status
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] == (status == 0)
    assert report["tolerance"] == {"logits": 1e-4, "attention": 1e-5}
    assert report["runs"][0]["logits"] == off
    assert report["runs"][0]["near_tie"] is True


def test_verify_without_pytorch(
    command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert command("verify", toy) == 2
    assert "verify needs the extra `test`" in capsys.readouterr().err


def test_verify_names_what_is_damaged(
    command: Command, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(toy, tmp_path / "orbax")
    command(tmp_path / "orbax", tmp_path / "hf")
    with (tmp_path / "hf" / "model.safetensors").open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    (tmp_path / "orbax" / "generation_config.json").write_text("{}")
    for folder, name in (("hf", "model."), ("orbax", "generation_config.json")):
        capsys.readouterr()
        assert command("verify", tmp_path / folder, "--json") == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["passed"], report["runs"]) == (False, [])
        assert [found.startswith(name) for found in report["damaged"]] == [True]


def test_no_secret_in_an_error(
    command: Command, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ValueError("Client error: Authorization: Bearer hf_aBcDeFgHiJkLmN was refused")

    monkeypatch.setenv("HF_TOKEN", "hf_aBcDeFgHiJkLmN")
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    assert command("org/name", toy.parent / "dst") == 2
    said = capsys.readouterr().err
    assert "Bearer *** was refused" in said
    assert "hf_" not in said
