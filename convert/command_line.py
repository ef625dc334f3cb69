"""Running a command line: errors that people can read, and a clean end whatever stops it."""

import logging
import os
import signal
import sys
from threading import Timer
from typing import Any

import click

from qwen3vl_jax.errors import InputError, redact

UNRAISABLE = sys.unraisablehook


def run(command: click.Command, name: str) -> None:
    """Runs a command line; whatever a person did wrong becomes one sentence on stderr and exit status 2."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _unraisable
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the stack trace of an error before it raises it
    try:
        command(prog_name=name, standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)


def _unraisable(lost: Any) -> None:
    """Python drops what is raised within a callback of its garbage collector, where JAX has one: Ctrl-C is to come again."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        UNRAISABLE(lost)


def _terminate(*_: Any) -> None:
    # An exception, so that what is half-written is removed on the way out.
    sys.exit(128 + signal.SIGTERM)


def _fail(message: str, status: int) -> None:
    click.echo(f"Error: {redact(' '.join(message.splitlines()))}", err=True)
    sys.exit(status)
