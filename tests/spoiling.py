"""What the fuzzers share: how much they try, and how they spoil bytes and JSON. HYPOTHESIS_PROFILE=nightly tries far more."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from qwen3vl_jax.errors import InputError

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def fuzz(examples: int, nightly: int) -> settings:
    """The same examples in every run, but for the nightly one."""
    return settings(
        max_examples=nightly if NIGHTLY else examples,
        derandomize=not NIGHTLY,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


WORDS = [
    b"",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"18446744073709551616",
    b"F64",
    b'"',
    b"../../x",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"true",
    b"[0,0]",
    b"2147483648",
    b"model.safetensors",
]
Edit = Callable[[bytes], bytes]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Bits flipped, a piece cut out, a word put in, the end cut off: up to three of these, many of them near the front."""
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.floats(0, 1), st.floats(0, 1e-3), st.floats(0, 1).map(lambda x: x**8)))
        kind = draw(st.sampled_from(["flip", "cut", "word", "end", "number"]))
        size = draw(st.integers(1, 64))
        steps.append((kind, place, size, draw(st.sampled_from(WORDS)), draw(st.integers(0, 255))))

    def edit(raw: bytes) -> bytes:
        for kind, place, size, word, value in steps:
            at = int(place * len(raw))
            if kind == "flip" and at < len(raw):
                raw = raw[:at] + bytes([raw[at] ^ (1 << value % 8)]) + raw[at + 1 :]
            elif kind == "cut":
                raw = raw[:at] + raw[at + size :]
            elif kind == "word":
                raw = raw[:at] + word + raw[at + value % 3 * len(word) :]
            elif kind == "end":
                raw = raw[:at]
            elif kind == "number":
                raw = raw[:at] + value.to_bytes(8, "little") + raw[at + 8 :]
        return raw

    return edit


def spoiled(folder: Path, path: Path, edit: Edit, use: Callable[[Path], object]) -> object:
    """What `use` makes of the folder while a file in it is spoiled; None for InputError, the whole is restored."""
    before = path.read_bytes()
    try:
        path.write_bytes(edit(before))
        return use(folder)
    except InputError as error:
        if "\n" in str(error):
            raise
        return None
    finally:
        path.write_bytes(before)


VALUES: list[object] = [
    *(
        None,
        True,
        False,
        "",
        "false",
        "\ud800",
        -1,
        0,
        1,
        2,
        3,
        7,
        6.9,
        1e-320,
        1e300,
        -1e300,
        float("nan"),
        float("inf"),
    ),
    *("../1.jpg", "/1.jpg", ".", "1.jpg/", "a\0", "9" * 5000),
    *(2**31, 2**63, 10**9, 10**400, [], {}, [[]], [0], [1, 1, 1], [0.5, 0.0, 0.5], {"default": "{{ x"}, "{{ 1 // 0 }}"),
]


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[Any], Any]:
    """Values replaced by others of any type, keys taken out or doubled under another name: up to three of these."""
    steps = draw(
        st.lists(st.tuples(st.integers(0, 2**20), st.sampled_from(VALUES), st.integers(0, 5)), min_size=1, max_size=3)
    )

    def mutate(raw: Any) -> Any:
        raw = copy.deepcopy(raw)
        for number, value, way in steps:
            places = list(_places(raw))
            if not places:
                return value
            box, key = places[number % len(places)]
            value = copy.deepcopy(value)
            if way == 0:
                del box[key]
            elif way == 1 and isinstance(box, dict):
                box[f"{key}_"] = box.pop(key)
            elif way == 2:
                box[key] = [box[key]]
            elif way == 3:
                box[key] = {"default": box[key]}
            else:
                box[key] = value
        return raw

    return mutate


def _places(raw: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a parsed JSON."""
    found = []
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ():
        found += [(raw, key), *_places(value)]
    return found
