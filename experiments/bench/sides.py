"""Processes of their own for what is measured: each side has its memory to itself, and both have the same two cores."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

from qwen3vl_jax.errors import InputError

CORES = 2
EVERY = 0.02
"""Seconds between two looks at a process's anonymous memory."""


class Measurement(NamedTuple):
    """One piece of work.

    Attributes:
      seconds, cpu_seconds: on the wall and on all cores together; other work on the machine disturbs the first more.
      before: bytes in memory when it began, weights and libraries included.
      peak: the most meanwhile.
      anonymous: the same without what belongs to files, as far as was seen every `EVERY` seconds.
    """

    value: Any
    seconds: float
    cpu_seconds: float
    before: int
    peak: int
    anonymous: int

    @property
    def raw(self) -> dict[str, float]:
        """The figures alone."""
        return {name: figure for name, figure in self._asdict().items() if name != "value"}


class Side:
    """A worker process, a context manager: `Side(begin, *arguments)` calls `begin` there, which returns what does the work.

    `begin` is a function of a module; the process imports that module and no other of the benchmark's.
    """

    def __init__(
        self, begin: Callable[..., Callable[..., Any]], *arguments: Any, env: Mapping[str, str] | None = None
    ) -> None:
        self._channel, theirs = Pipe()
        program = f"from {__name__} import serve; serve({theirs.fileno()})"
        self._process = Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()], env=os.environ | (env or {}))
        theirs.close()
        self._channel.send((_module(begin), begin.__name__, arguments))
        self._begun = False

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def __call__(self, *task: Any) -> Measurement:
        """Does one piece of work there. Raises InputError if that or `begin` does, and RuntimeError if the process ends."""
        if not self._begun:  # only now, so that two sides begin at the same time
            self._receive()
            self._begun = True
        self._channel.send(task)
        anonymous = 0
        while not self._channel.poll(EVERY):
            anonymous = max(anonymous, memory("RssAnon", self._process.pid))
        run: Measurement = self._receive()
        return run._replace(anonymous=anonymous)

    def _receive(self) -> Any:
        try:
            answer = self._channel.recv()
        except (EOFError, ConnectionResetError):
            raise RuntimeError(f"a process that was measured ended with status {self._process.wait()}") from None
        if isinstance(answer, InputError):
            raise answer
        return answer


def memory(kind: str, process: int | str = "self") -> int:
    """A figure of Linux about a process, in bytes: VmRSS, VmHWM (the most since it was last reset), RssAnon; 0 once it ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError("memory is measured by Linux's /proc, which this machine lacks: use Linux") from None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")), 0)


def measured(work: Callable[..., Any], *task: Any) -> Measurement:
    """Does something in this process and says what it took."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    before = memory("VmRSS")
    start, spent = time.perf_counter(), time.process_time()
    value = work(*task)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - spent
    return Measurement(value, seconds, cpu_seconds, before, memory("VmHWM"), memory("RssAnon"))


def without_torch() -> None:
    """Has transformers find no PyTorch, which is there for the reference only: it would import it for a tokenizer."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # None forbids the import
    utils = import_module("transformers.utils")
    assert not utils.is_torch_available()  # which it remembers
    del sys.modules["torch"]


def pin() -> None:
    """Keeps this process, and the threads that it will start, to `CORES` cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def serve(descriptor: int) -> None:
    """What a worker does until nobody wants anything any more; `descriptor` is its end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    pin()
    channel = Connection(descriptor)
    module, name, arguments = channel.recv()
    work: Callable[..., Any] | None = None
    while True:
        try:
            if work is None:
                work = getattr(import_module(module), name)(*arguments)
                channel.send(None)
            else:
                channel.send(measured(work, *channel.recv()))
        except InputError as error:
            channel.send(error)
        except EOFError:
            return


def _module(function: Callable[..., Any]) -> str:
    """The module that another process can import a function from, also if it is the program that runs here."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if function.__module__ == "__main__" and spec else function.__module__
