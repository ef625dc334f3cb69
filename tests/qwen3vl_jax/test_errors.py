"""No secret of the environment, whole or in part, in what a person reads."""

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
