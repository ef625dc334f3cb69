"""A file of rows that is killed, spoiled or written to a full disk ends as one that was not."""

import json
from pathlib import Path

import pytest

from experiments.run.records import Records
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_json, write_text

KEYS = ["a/0", "b/0", "a/16"]
CHUNKS = {key: [{"n": number, "text": f"{key} \N{SNOWMAN}\n{number}"} for number in range(3)] for key in KEYS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture
def whole(path: Path) -> bytes:
    make(path)
    return path.read_bytes()


def make(path: Path) -> Records:
    records = Records(path)
    for key in records.missing(KEYS):
        records.add({key: CHUNKS[key]})
    records.finish(KEYS)
    return records


def test_what_is_there_is_not_made_again(path: Path, whole: bytes) -> None:
    assert Records(path).missing([*KEYS, "c/0"]) == ["c/0"]
    assert [row["text"] for row in Records(path).rows(["b/0"])] == [row["text"] for row in CHUNKS["b/0"]]
    assert len(Records(path).rows()) == 9


def test_cut_at_any_byte_it_ends_the_same(path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        make(path)
        assert path.read_bytes() == whole, end


def test_a_spoiled_line_is_named_counted_and_its_chunk_made_again(
    path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"{spoiled\n", *lines[5:]]))
    records = Records(path)
    assert f"{path}:5" in capsys.readouterr().err
    assert (records.skipped, records.missing(KEYS), len(records.rows())) == (1, ["b/0"], 8)
    assert [row["chunk"] for row in make(path).rows()] == [key for key in KEYS for _ in range(3)]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\n", b"[1]\n", b'{"n": 1}\n', b'{"chunk": [], "of": 1}\n', b'{"chunk": "z"}\n', b"\x00\n"]
)
def test_whatever_stands_in_a_line_it_is_left_out(path: Path, whole: bytes, line: bytes) -> None:
    path.write_bytes(whole + line)
    assert Records(path).skipped == 1
    make(path)
    assert path.read_bytes() == whole


def test_chunks_of_another_run_are_told_of_once_and_dropped(
    path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Records(path).add({"old": [{"n": 1}], "older": [{"n": 1}, {"n": 2}]})
    records = Records(path)
    records.tell_stale(KEYS)
    told = capsys.readouterr().err
    assert told.startswith(f"{path} has 2 parts that other settings")
    assert told.count("\n") == 1
    records.finish(KEYS)
    records.tell_stale(KEYS)
    Records(path).tell_stale([*KEYS, "c/0"])
    assert capsys.readouterr().err == ""
    assert path.read_bytes() == whole


def test_lines_without_a_checksum_are_told_of_once_and_made_again(
    path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in whole.splitlines()]
    for line in lines[:2]:
        del line["sum"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = Records(path)
    assert capsys.readouterr().err == f"{path} has 2 lines without a checksum, which are left out\n"
    assert (records.skipped, records.missing(KEYS)) == (2, ["a/0"])
    make(path)
    assert path.read_bytes() == whole


def test_what_is_not_there_cannot_be_finished(path: Path) -> None:
    with pytest.raises(InputError, match="lacks 3 parts, the first is a/0"):
        Records(path).finish(KEYS)


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        Records(path).add({"c/0": [{"n": 1}]})
    monkeypatch.undo()
    make(path)
    assert path.read_bytes() == whole


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "deep" / "a.json", {"x": [1, None]})
    assert json.loads((tmp_path / "deep" / "a.json").read_text()) == {"x": [1, None]}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_text(tmp_path / "b.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    monkeypatch.undo()
    write_json(tmp_path / "c.json", {"x": (float("nan"), 1.5)})
    assert json.loads((tmp_path / "c.json").read_text()) == {"x": [None, 1.5]}
