"""The commands in this process, and a strip to ask about."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.commands import cli
from experiments.testbed.strips import draw_strips
from gaze.pictures.strips import Strip

Command = Callable[..., int]


@pytest.fixture
def gaze(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`gaze(*arguments)` runs the command in this process and returns its exit status."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["gaze", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def strip() -> Strip:
    return draw_strips(7, "sample", 4)[3]


@pytest.fixture(scope="session")
def picture(strip: Strip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strip") / "strip.png"
    strip.image.save(path)
    return path
