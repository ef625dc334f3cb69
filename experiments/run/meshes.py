"""What `--mesh` means."""

import re

from jax.sharding import Mesh

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.sharding import AXES, make_mesh


def parse_mesh(text: str) -> dict[str, int]:
    """The sizes in `data=4,model=2`, by axis; an axis that is left out has size 1.

    Raises InputError for anything else, such as another axis, one named twice, or a size that is no positive number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (word.strip() for word in part.partition("="))
        if axis not in AXES or axis in sizes:
            raise InputError(f"--mesh {text} names {axis!r}: give each of {' and '.join(AXES)} once, as data=4,model=2")
        if not re.fullmatch("0*[1-9][0-9]*", size):
            raise InputError(f"--mesh {text} gives {axis} the size {size!r}: give a number from 1, as data=4,model=2")
        sizes[axis] = int(size)
    return sizes


def open_mesh(text: str | None) -> Mesh | None:
    """The mesh that `--mesh` describes, None for one device. Raises InputError if there are not so many devices."""
    if text is None:
        return None
    sizes = parse_mesh(text)
    return make_mesh(sizes.get("data", 1), sizes.get("model", 1))
