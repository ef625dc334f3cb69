"""No secret of the environment, whole or in part, in what a person reads."""

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl_jax.errors import redact

SECRET = "sk-proj-Zq9/xY+7abcdEFGH1234"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": SECRET,
        "hf_token": "hf_ABCDEFGHIJKL",
        "MY_SECRET": "1",
        "USE_TOKENS": "",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.upper(),
        SECRET[:8],
        SECRET[-9:],
        SECRET[5:20],
        quote(SECRET, safe=""),
        "hf_ABCDEFGHIJKL",
        SECRET * 2,
        "sk-p************1234",
        "sk-***",
        "***1234",
    ],
)
def test_a_secret_is_hidden(form: str) -> None:
    shown = redact(f"401: bad header 'Bearer {form}' was sent")
    assert shown == "401: bad header 'Bearer ***' was sent"


def each(form: str, text: str = SECRET) -> str:
    return "".join(form.format(ord(sign)) for sign in text)


ESCAPES = {
    "url": each("%{:02X}"),
    "url in a url": each("%25{:02x}"),
    "JSON": each("\\u{:04x}"),
    "JSON in JSON": json.dumps(each("\\u{:04x}"))[1:-1],
    "slashes": SECRET.replace("/", "\\/"),
    "Python": each("\\x{:02x}"),
    "HTML": each("&#{};"),
    "HTML in hexadecimal": each("&#x{:x};"),
    "named in HTML": html.escape(SECRET.replace("+", "&plus;")),
    "a part in a url": SECRET[:6] + each("%{:02x}", SECRET[6:9]) + SECRET[9:],
    "hexadecimal": SECRET.encode().hex(),
    "capital hexadecimal": SECRET.encode().hex().upper(),
    "bytes": SECRET.encode().hex(" "),
    "a fingerprint": SECRET.encode().hex(":").upper(),
    "masked with dots": "sk-p...1234",
    "masked with an ellipsis": "sk-p\N{HORIZONTAL ELLIPSIS}",
}


@pytest.mark.parametrize("form", ESCAPES.values(), ids=ESCAPES)
def test_an_encoded_secret_is_hidden(form: str) -> None:
    assert redact(f"bad header 'Bearer {form}' was sent") == "bad header 'Bearer ***' was sent"


@pytest.mark.parametrize("before", ["", "u", "me", "you", "Basic me:"])
@pytest.mark.parametrize("after", ["", "x", ":xy"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_secret_is_hidden(before: str, after: str, encode: Callable[[bytes], bytes]) -> None:
    form = encode(f"{before}{SECRET}{after}".encode()).decode()
    shown = redact(f"sent {form}")
    assert shown.startswith("sent ")
    assert "***" in shown
    # At most the signs around the secret, and one that it shares with each of them, are left.
    assert len(shown) <= len("sent ***") + 4 * (len(before) + len(after) + 4) // 3
    first = -(-8 * len(before) // 6)
    assert redact(f"sent {form[first : first + 8]} and more") == "sent *** and more"


@pytest.mark.parametrize("text", ["a", ".", "a.", "%", "&a", "\\", "*"])
def test_long_texts_take_no_longer_than_their_length(text: str) -> None:
    start = time.monotonic()
    redact(text * 10_000)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "text", ["", "there is no file at 1/x", "5 *** stars", "ab\u0130c sk-proj but no more", "a" * 1000]
)
def test_anything_else_stays(text: str) -> None:
    assert redact(text) == text


def test_the_path_of_a_key_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_KEY_FILE", __file__)
    assert redact(f"cannot read {__file__}") == f"cannot read {__file__}"


@given(st.text(max_size=40), st.integers(0, 20), st.integers(8, 28), st.text(max_size=40))
def test_no_piece_of_eight_survives(before: str, start: int, length: int, after: str) -> None:
    shown = redact(before + SECRET[start : start + length] + after).lower()
    pieces = {SECRET[place : place + 8].lower() for place in range(len(SECRET) - 7)}
    assert not any(piece in shown for piece in pieces)
