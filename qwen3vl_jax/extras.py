"""Packages that only some uses need: the extras of the installation."""

from importlib import import_module
from typing import Any

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reason


def extra(module: str, name: str, purpose: str) -> Any:
    """A module of an extra, imported when it is needed.

    Args:
      name: of the extra.
      purpose: what needs it, to begin a sentence with.

    Raises InputError if the module is missing, or broken: then its import raises whatever its parts make of it.
    """
    install = f"pip install 'gaze-jax[{name}]'"
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"{purpose} needs the extra `{name}`: {install}") from None
    except Exception as error:
        raise InputError(
            f"{purpose} needs {module}, which cannot be imported ({reason(error)}): install it anew, {install}"
        ) from None
