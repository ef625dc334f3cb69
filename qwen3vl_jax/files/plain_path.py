"""Paths for libraries that take them for something else: a URL, a pattern, or a path of another system."""

import os
import re
import tempfile
import weakref
from pathlib import Path

from qwen3vl_jax.errors import InputError

PLAIN = re.compile(r"[\w./+=,@~ -]*", re.ASCII)


class PlainPath:
    """A name for a folder in which `%`, `#`, `?`, `*`, brackets, backslashes and bytes that are no UTF-8 do not occur.

    Tensorstore reads a backslash as a slash, and Orbax looks for its own files by patterns. Where the folder's own path has
    such characters, this is a symbolic link elsewhere, which goes with the object.

    Attributes:
      path: the name, absolute.
    """

    def __init__(self, folder: Path) -> None:
        real = folder.resolve()
        if PLAIN.fullmatch(str(real)):
            self.path = real
            return
        place = next((place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if PLAIN.fullmatch(place)), None)
        if place is None:
            raise InputError(
                f"{folder} needs a link to it, but TMPDIR has such a name itself: set it to another folder"
            )
        link = Path(tempfile.mkdtemp(prefix="qwen3vl-", dir=place))
        self._remove = weakref.finalize(self, _remove, link)
        self.path = link / "folder"
        self.path.symlink_to(real, target_is_directory=True)


def _remove(link: Path) -> None:
    (link / "folder").unlink(missing_ok=True)
    os.rmdir(link)
