"""What a command's `--model` may be: a folder of either format, or the name of a repository on the Hugging Face hub."""

import os
import re
from pathlib import Path

from qwen3vl_jax.errors import InputError, redact
from qwen3vl_jax.files.read import reason
from qwen3vl_jax.load.checkpoint import SIDE_FILES, Checkpoint
from qwen3vl_jax.load.orbax_files import is_orbax, open_orbax
from qwen3vl_jax.load.safetensors_files import INDEX, open_safetensors

HUB_FILES = ["config.json", *SIDE_FILES, "model*.safetensors", INDEX]


class MissingCheckpoint(InputError):
    """There is no checkpoint of that name here, and the hub has none or cannot be reached."""


def resolve(src: str | Path) -> Path:
    """The local folder of `src`: an existing folder, or `org/name` on the hub, downloaded unless it is cached.

    Raises MissingCheckpoint if it is neither or the hub cannot be reached, InputError if the hub fails to give it.
    """
    folder = Path(os.path.expanduser(src))
    if os.path.isdir(folder):
        return folder
    if os.path.lexists(folder):
        raise InputError(f"{src} is no folder; give the folder that a checkpoint lies in.")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(src)):
        raise MissingCheckpoint(
            f"there is no folder {src}; give a checkpoint's folder or a hub name like Qwen/Qwen3-VL-2B-Instruct."
        )
    return _download(str(src))


def open_checkpoint(src: str | Path) -> Checkpoint:
    """Opens and checks a checkpoint of either format; raises InputError if it is not a whole Qwen3-VL."""
    folder = resolve(src)
    return open_orbax(folder) if is_orbax(folder) else open_safetensors(folder)


def _download(name: str) -> Path:
    # A network client, and only needed here.
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except errors.RepositoryNotFoundError:
        said = "no public repository on the hub has that name"
        raise MissingCheckpoint(f"there is no folder {name}, and {said}; check the spelling or log in.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        said = "the hub cannot be reached to download it"
        raise MissingCheckpoint(f"there is no folder {name}, and {said}; give a local folder.") from None
    except Exception as error:  # whatever else a network client and a full disk may raise
        said = redact(reason(error))
        raise InputError(f"there is no folder {name}, and downloading it failed ({said}).") from None
