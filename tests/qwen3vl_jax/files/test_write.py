"""Files and folders are there whole or not at all, whoever is interrupted, killed, or writes the same."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import new_folder, whole_file, write_text

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
WRITER = """
import sys, time
from pathlib import Path
from qwen3vl_jax.files.write import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "big").write_text("half")
    print("writing", flush=True)
    time.sleep(300)
"""
NAMES = ["plain", "run%20x", " a b ", "[x]*?", "a\\b", "new\nline", "модель", "x" * 255, "ы" * 127, "\udcff"]


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that is at work on `path` when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("name", NAMES)
def test_any_name(tmp_path: Path, name: str) -> None:
    with new_folder(tmp_path / name) as folder:
        (folder / "file").write_text("x")
        write_text(folder / "sub" / name, "y")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name / "sub" / name).read_text() == "y"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "dst") as folder:
            (folder / "file").write_text("x")
            raise error

    with pytest.raises(InputError if error is FileNotFoundError else error):
        fill()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in ("dst.partial-notes", ".dst.partial", "other")]
    for path in mine:
        path.mkdir()
    first, second = writer(tmp_path / "dst"), writer(tmp_path / "dst2")
    try:
        first.kill()
        first.communicate()
        with new_folder(tmp_path / "dst") as folder:
            assert not list(folder.iterdir())
        with pytest.raises(InputError, match="another process is writing"), new_folder(tmp_path / "dst2"):
            pass
        assert len(list(tmp_path.iterdir())) == len(mine) + 2
    finally:
        second.send_signal(signal.SIGINT)
        second.communicate()
    assert sorted(tmp_path.iterdir()) == sorted([*mine, tmp_path / "dst"])


def test_one_of_many_at_a_time(tmp_path: Path) -> None:
    """Threads that all begin at once: each either has the folder to itself, or is told; nothing is mixed."""
    inside, most, refused, written = 0, 0, 0, 0

    def write(number: int) -> None:
        nonlocal inside, most, refused, written
        for _ in range(20):
            try:
                with new_folder(tmp_path / "dst") as folder:
                    inside += 1
                    most = max(most, inside)
                    assert not list(folder.iterdir())
                    (folder / f"{number}").touch()
                    inside -= 1
                    written += 1
            except InputError:
                refused += 1

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside, written) == (1, 0, 1)
    assert refused == 159
    assert len(list((tmp_path / "dst").iterdir())) == 1


@pytest.mark.parametrize("name", ["x" * 256, "nul\0byte", "no/parent", "file/below", "there", "dangling"])
def test_a_place_that_cannot_be_used_is_named_before_work_begins(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError), new_folder(tmp_path / name):
        pytest.fail("work was begun")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "dst") as folder:
            (folder / "mine").touch()
            (tmp_path / "dst").mkdir()

    with pytest.raises(InputError, match="exists already"):
        fill()
    assert list(tmp_path.iterdir()) == [tmp_path / "dst"]
    assert not list((tmp_path / "dst").iterdir())


def test_a_file_is_whole_or_as_before(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "before")

    def fill() -> None:
        with whole_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fill()
    assert (tmp_path / "file").read_text() == "before"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
