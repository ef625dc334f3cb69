"""Several processes as one run: the hosts of a TPU pod, the nodes of a GPU cluster, or a few processes on one machine.

All processes run the same command on the same global arrays, and so take the same decisions. Process 0 alone owns the run
folder; each of the others works in a copy, which begins as what process 0 finds there and is thrown away in the end.

What a person starts only looks after a worker, which is the same command once more. For when a process is lost, JAX ends
the others from within, with a native stack trace, and on some devices a collective never returns: someone has to be left to
tell it in a sentence.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import NoReturn

import click

from convert.cli import run
from qwen3vl_jax.errors import InputError

LOST = 75
"""Exit status when another process is lost: EX_TEMPFAIL of sysexits.h, "try again"."""
HEARTBEAT, ARRIVAL, GRACE = 25, 120, 15
"""Seconds without a sign of life after which a process counts as lost, for all to arrive, and from SIGTERM to SIGKILL."""
WORKER = "GAZE_WORKER"
"""Environment variable of a worker: the pipe that ends with who looks after it, and a folder for what it need not keep."""
PIECE = 2**24
FATAL, REGISTER = "JAX distributed service detected fatal errors", "RegisterTask"
"""What JAX writes when it ends a process on account of another, and when not all have come."""


@dataclass(frozen=True)
class Cluster:
    """Which process this is: as JAX finds out by itself ("auto": TPU pods, Slurm, Open MPI, Kubernetes), or as given."""

    processes: str
    process: int | None
    coordinator: str | None

    def __post_init__(self) -> None:
        given = (self.process, self.coordinator)
        if self.processes == "auto":
            if given != (None, None):
                raise InputError("--processes auto finds --process and --coordinator by itself: leave them out")
            return
        if not self.processes.isdecimal() or int(self.processes) < 1:
            raise InputError(f"--processes {self.processes} is no number of processes: give one from 1, or auto")
        host, _, port = (self.coordinator or "").rpartition(":")
        if self.process is None or not host or not port.isdecimal():
            raise InputError("several processes need --process I (from 0) and --coordinator HOST:PORT of process 0")
        if self.process >= int(self.processes):
            raise InputError(f"there is no process {self.process} of {self.processes}: they count from 0")


def main(command: click.Command, name: str) -> None:
    """Runs a command line as `convert.cli.run`; exit status `LOST`, too."""
    if not is_worker():
        return _run_printing(command, name)
    status = 0
    try:
        run(command, name)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    # At once: an ordinary exit would wait for the other processes, and they would take this one to be alive.
    sys.stdout.flush()
    os._exit(status)


def _run_printing(command: click.Command, name: str) -> None:
    """Runs a command line, and tells in a sentence if what it prints cannot be written."""
    if sys.stdout is None:
        click.echo("Error: the standard output is closed: give it a file, or /dev/null", err=True)
        sys.exit(2)
    try:
        try:
            run(command, name)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python will flush once more when it ends
        click.echo(f"Error: what is printed cannot be written ({error.strerror}): give it another place", err=True)
        sys.exit(2)


def is_worker() -> bool:
    """Whether this process was started by `supervise`."""
    return WORKER in os.environ


def supervise() -> int:
    """Runs this very command as a worker. Returns its exit status, `LOST` with a sentence if another process was lost."""
    alive, ours = os.pipe()
    with TemporaryDirectory(prefix="gaze-") as scratch:
        command = [sys.executable, *sys.orig_argv[1:]]
        environment = {**os.environ, WORKER: f"{alive}:{scratch}"}
        # In a group of its own, so that Ctrl-C in a terminal reaches it once and through us.
        worker = subprocess.Popen(command, env=environment, pass_fds=[alive], process_group=0)
        os.close(alive)
        try:
            status = worker.wait()
        except KeyboardInterrupt:
            status = _stop(worker, signal.SIGINT)
        except SystemExit:
            status = _stop(worker, signal.SIGTERM)
        finally:
            worker.kill()
            os.close(ours)
        return status if status >= 0 else _died(-status, Path(scratch, "native.log"))


@contextmanager
def join_cluster(cluster: Cluster) -> Iterator[Path]:
    """What a worker does between meeting the others and leaving them; gives a folder for what it need not keep.

    Without `main` around it, a process that fails would wait here for the others.
    """
    pipe, _, scratch = os.environ[WORKER].partition(":")
    Thread(target=_follow, args=(int(pipe), scratch), daemon=True).start()
    _divert(Path(scratch, "native.log"))
    import jax

    try:
        _initialize(cluster)
        if jax.process_index() > 0:
            sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        yield Path(scratch)
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        # A collective may fail at once when a process is lost. If that is why, JAX will end this process shortly.
        time.sleep(2 * HEARTBEAT)
        raise


def share(folder: Path | None, scratch: Path) -> Path | None:
    """The run folder that this process works in: the given one for process 0, a copy of it in `scratch` for the others."""
    import jax

    from experiments.run.folder import lock
    from experiments.run.settings import is_run

    mine = folder if jax.process_index() == 0 else scratch / "run"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        # Another folder than a run's will be refused, and may be large.
        if mine is not None and is_run(mine):
            lock(mine)
            archive.add(mine, arcname=".", filter=_without_lock)
    received = _broadcast(content.getvalue())
    if jax.process_index() > 0:
        with tarfile.open(fileobj=io.BytesIO(received)) as archive:
            archive.extractall(scratch / "run", filter="data")
    return mine


def _without_lock(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    from experiments.run.folder import LOCK

    return None if Path(entry.name).name == LOCK else entry


def several() -> bool:
    """Whether this is one of several processes."""
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def agree(what: object) -> None:
    """Raises RuntimeError unless all processes say the same: otherwise they would work on different things together."""
    if several():
        import numpy as np
        from jax.experimental import multihost_utils

        digest = np.frombuffer(hashlib.sha256(repr(what).encode()).digest(), np.uint8)
        try:
            multihost_utils.assert_equal(digest)
        except AssertionError:
            raise RuntimeError("the processes have come to different decisions") from None


def shares(count: int) -> list[bool]:
    """Which of some things are this process's to do, when each is to be done by one."""
    if not several():
        return [True] * count
    import jax

    return [number % jax.process_count() == jax.process_index() for number in range(count)]


def union(mine: dict[str, str]) -> dict[str, str]:
    """What any of the processes has found out, on all of them."""
    if not several():
        return mine
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    content = json.dumps(mine).encode()
    longest = int(process_allgather(np.array(len(content), np.int32)).max())
    everything = process_allgather(np.frombuffer(content.ljust(longest), np.uint8))
    return {name: text for row in everything for name, text in json.loads(row.tobytes()).items()}


def _initialize(cluster: Cluster) -> None:
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    known = (cluster.coordinator, None if cluster.processes == "auto" else int(cluster.processes), cluster.process)
    how = None if cluster.processes == "auto" else "deactivate"
    try:
        jax.distributed.initialize(
            *known,
            cluster_detection_method=how,
            initialization_timeout=ARRIVAL,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError:
        raise InputError("there is no cluster here that JAX knows: give --processes N instead of auto") from None


def _broadcast(content: bytes) -> bytes:
    """The bytes that process 0 has, on all processes; in pieces of one shape, so that little is compiled."""
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    size = int(broadcast_one_to_all(np.array(len(content), np.uint32)))
    received = b""
    for start in range(0, size, PIECE):
        some = np.frombuffer(content[start : start + PIECE], np.uint8)[:PIECE]
        received += broadcast_one_to_all(np.pad(some, (0, PIECE - len(some)))).tobytes()
    return received[:size]


def _divert(log: Path) -> None:
    """Leaves stdout and stderr to Python: what native code writes there goes to a file, which is shown if it matters."""
    sys.stdout.flush()
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    with log.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _follow(pipe: int, scratch: str) -> NoReturn:
    """Ends this process when the one that looks after it has ended, and cleans up in its place."""
    os.read(pipe, 1)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(LOST)


def _stop(worker: subprocess.Popen[bytes], number: signal.Signals) -> int:
    worker.send_signal(number)
    try:
        return worker.wait(GRACE)
    except subprocess.TimeoutExpired:  # it waits for the others within a collective
        worker.kill()
        return 128 + number


def _died(number: int, log: Path) -> int:
    """Says why a signal ended the worker."""
    said = log.read_text(errors="replace") if log.exists() else ""
    if FATAL in said and REGISTER in said:
        message = f"not all processes came within {ARRIVAL} s: start all of them, with the same --coordinator"
    elif FATAL in said:
        message = "another process of this run has ended: start all of them again, they go on with what is done"
    else:
        message = f"{said}the worker was ended by {signal.Signals(number).name}: start all processes again"
    click.echo(f"Error: {message}", err=True)
    return LOST
