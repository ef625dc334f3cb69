"""Two real processes on one machine: the same results as one, and none hangs when the other is gone."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.sources import Kept, open_source
from experiments.run.processes import LOST
from experiments.run.records import Records
from gaze.heads import HeadSet

from ...environment import with_devices
from .passes import passes

Command = Callable[..., int]
FEW = ("--panels", "3", "--discovery", "4", "--selection", "2", "--evaluation", "2")
LONG = 500
GAZE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
from experiments.commands.cli import main
main()
"""
ATTENTION = Path("e1_discovery", "attention", "00000.npz")
SHUFFLED = Path("e1_discovery", "shuffled", "00000.npz")
ANSWERS = Path("e1_discovery", "selection", "answers.jsonl")


class Pair:
    """`gaze discover` in two processes with two devices each; process 1 has no run folder but is told of one."""

    def __init__(self, out: Path) -> None:
        mesh = ("--mesh", "data=2,model=2", "--processes", "2", "--coordinator", free_address())
        self.both = [
            start(folder, 2, *mesh, "--process", str(number)) for number, folder in enumerate((out, out.parent / "no"))
        ]

    def ends(self, number: int, within: float) -> tuple[int, str]:
        """Exit status and stderr of one of them."""
        _, said = self.both[number].communicate(timeout=within)
        return self.both[number].returncode, said

    def close(self) -> None:
        for process in self.both:
            process.kill()
            process.communicate()


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(out: Path, devices: int, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", GAZE, "discover", "--out", out, *FEW, *arguments],
        env=with_devices(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def pair() -> Iterator[Callable[[Path], Pair]]:
    """Starts pairs, and leaves none behind."""
    started: list[Pair] = []

    def begin(out: Path) -> Pair:
        started.append(Pair(out))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process, without a mesh."""
    out = tmp_path_factory.mktemp("alone") / "run"
    process = start(out, 1)
    _, said = process.communicate(timeout=LONG)
    assert process.returncode == 0, said
    return out


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same in two processes."""
    out = tmp_path_factory.mktemp("together") / "run"
    pair = Pair(out)
    ends = [pair.ends(number, LONG) for number in (0, 1)]
    pair.close()
    assert [status for status, _ in ends] == [0, 0], ends
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.timeout(2 * LONG)
def test_two_processes_find_what_one_finds(alone: Path, combined: Path) -> None:
    assert not (combined.parent / "no").exists()
    with np.load(alone / ATTENTION) as one, np.load(combined / ATTENTION) as two:
        for name in ("gaze", "image", "entropy"):
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5)
        np.testing.assert_allclose(two["mass"], one["mass"], rtol=2**-10, atol=1e-5)  # kept in half precision
    assert HeadSet.load(combined / "heads.json").heads == HeadSet.load(alone / "heads.json").heads
    assert Records(combined / ANSWERS).rows() == Records(alone / ANSWERS).rows()


@pytest.mark.timeout(4 * LONG)
def test_a_lost_process_ends_the_other_and_both_go_on_later(
    combined: Path, pair: Callable[[Path], Pair], tmp_path: Path
) -> None:
    """Kill -9 of process 1 after the first chunk, of process 0 after the next; then to the end."""
    out = tmp_path / "run"
    for victim, chunk in ((1, ATTENTION), (0, SHUFFLED)):
        both = pair(out)
        while not (out / chunk).exists():
            assert both.both[0].poll() is None, both.ends(0, 1)
            time.sleep(0.05)
        both.both[victim].kill()
        status, said = both.ends(1 - victim, 60)
        assert status == LOST
        assert said.startswith("Error: another process of this run has ended")
        assert len(said.splitlines()) == 1
        assert (out / chunk).read_bytes() == (combined / chunk).read_bytes()
    both = pair(out)
    assert [both.ends(number, LONG)[0] for number in (0, 1)] == [0, 0]
    made, wanted = contents(out), contents(combined)
    assert made.keys() == wanted.keys()
    assert [name for name in wanted if made[name] != wanted[name]] == []


@pytest.mark.timeout(LONG)
def test_ctrl_c_ends_both(pair: Callable[[Path], Pair], tmp_path: Path) -> None:
    both = pair(tmp_path / "run")
    while not (tmp_path / "run" / "settings.json").exists():
        assert both.both[0].poll() is None, both.ends(0, 1)
        time.sleep(0.05)
    both.both[0].send_signal(signal.SIGINT)
    status, said = both.ends(0, 60)
    assert (status, said.strip()) == (130, "Error: interrupted")
    assert both.ends(1, 60)[0] == LOST


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mesh", "rows=2"), "names 'rows'"),
        (("--mesh", "data=2,data=2"), "names 'data'"),
        (("--mesh", "data=0"), "gives data the size '0'"),
        (("--mesh", "model=two"), "gives model the size 'two'"),
        (("--mesh", "data"), "gives data the size ''"),
        (("--mesh", "data=16"), "there are 8"),
        (("--process", "0"), "give --processes N"),
        (("--processes", "2", "--process", "0", "--coordinator", "h:1"), "give --mesh"),
        (("--mesh", "data=2", "--processes", "two"), "no number of processes"),
        (("--mesh", "data=2", "--processes", "2"), "need --process I"),
        (("--mesh", "data=2", "--processes", "2", "--process", "0", "--coordinator", "h"), "HOST:PORT"),
        (("--mesh", "data=2", "--processes", "2", "--process", "2", "--coordinator", "h:1"), "no process 2 of 2"),
        (("--mesh", "data=2", "--processes", "auto", "--process", "1"), "leave them out"),
        (("--mesh", "data=2", "--processes", "auto", "--judge", "chat:m"), "asked by one process"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert gaze("discover", "--out", tmp_path / "run", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(2 * LONG)
def test_other_passes_find_in_two_processes_what_they_find_in_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.experiments.run.passes", free_address()]
    files = [tmp_path / number for number in ("0", "1")]
    both = [subprocess.Popen([*command, file.name, file], env=with_devices(1)) for file in files]
    assert [process.wait(LONG) for process in both] == [0, 0]
    alone = passes(None)
    for file in files:
        with np.load(file) as found:
            assert found.keys() == alone.keys()
            for name, wanted in alone.items():
                np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


DRAW = """
import jax, json, sys
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate")
from experiments.data.sources import open_source
source = open_source(f"folder:{sys.argv[3]}", 0, {"evaluation": 3})
strips = source.draw("evaluation", 3)
read = [strip.name for strip in strips if "image" in vars(strip)]
print(json.dumps([[strip.name for strip in strips], source.skipped, read]), file=sys.stderr)
"""


@pytest.mark.timeout(LONG)
def test_each_process_reads_its_share_and_both_skip_what_one_cannot_read(tmp_path: Path) -> None:
    for number in range(1, 9):
        comic = tmp_path / f"comic{number}"
        comic.mkdir()
        for panel in range(1, 7):
            Image.new("RGB", (64, 64), (30 * number, 40 * panel, 0)).save(comic / f"p{panel}.png")
    source = open_source(f"folder:{tmp_path}", 0, {"evaluation": 3})
    assert isinstance(source, Kept)
    torn = source.lanes["evaluation"][0]
    panel = tmp_path / torn / "p4.png"
    panel.write_bytes(panel.read_bytes()[:60])  # the size can be read, the pixels cannot
    coordinator = free_address()
    command = [sys.executable, "-c", DRAW, coordinator]
    both = [
        subprocess.Popen(
            [*command, number, tmp_path], env=with_devices(1), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for number in ("0", "1")
    ]
    said = [process.communicate(timeout=LONG // 2)[1].decode() for process in both]
    (drawn, skipped, read), other = (json.loads(text.splitlines()[-1]) for text in said)
    assert other[:2] == [drawn, skipped]
    assert len(drawn) == 3
    assert [name for name, _ in skipped] == [torn]
    assert sorted([*read, *other[2]]) == sorted(drawn)
    assert read
    assert other[2]
