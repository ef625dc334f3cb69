"""Head sets and the replies of chat models, spoiled at random: a value, or a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaze.heads import HeadSet
from gaze.judges.chat import parse
from gaze.judges.judge import Failed

from ..spoiling import Edit, edits, fuzz, mutations, spoiled

HEADS = HeadSet(((3, 1), (0, 2), (3, 0)), (0.5, 0.25, 0.125), "gaze", "org/model", "abc", {"strips": 20, "kind": "x"})
FILES = ("set.json", "bare.json", "ranking.json")
REPLIES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"\s*[0-9]{1,5}\.?\s*", fullmatch=True),
    st.from_regex(r"[\s0-9٣²½.,+-]{0,12}", fullmatch=True),
    st.tuples(st.sampled_from(["0", "1", "12", "Panel 3", ""]), edits()).map(
        lambda pair: pair[1](pair[0].encode()).decode("utf-8", "surrogateescape")
    ),
    st.integers().map(str),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    HEADS.save(folder / "set.json")
    HeadSet(HEADS.heads).save(folder / "bare.json")
    HEADS.save_ranking(folder / "ranking.json")
    return folder


def use(path: Path) -> HeadSet:
    found = HeadSet.load(path)
    assert all(type(number) is int and number >= 0 for head in found.heads for number in head)
    assert len({*found.heads}) == len(found) >= 1
    assert len(found.scores) in (0, len(found))
    assert np.isfinite(np.array(found.scores, np.float64)).all()
    assert found.top(1).heads == found.heads[:1]
    found.save(path)
    assert HeadSet.load(path) == found
    return found


def test_the_sound_files_are_read(folder: Path) -> None:
    assert use(folder / "set.json") == HEADS
    assert [HeadSet.load(folder / name).heads for name in FILES] == [HEADS.heads] * 3


@fuzz(250, nightly=3_000)
@given(st.sampled_from(FILES), edits())
def test_any_byte_of_a_head_set(folder: Path, name: str, edit: Edit) -> None:
    spoiled(folder, folder / name, edit, lambda _: use(folder / name))


@fuzz(250, nightly=3_000)
@given(st.sampled_from(FILES), mutations())
def test_any_value_of_a_head_set(folder: Path, name: str, mutate: Callable[[Any], Any]) -> None:
    change = lambda raw: json.dumps(mutate(json.loads(raw))).encode()  # noqa: E731
    spoiled(folder, folder / name, change, lambda _: use(folder / name))


@fuzz(500, nightly=5_000)
@given(REPLIES, st.integers(1, 12))
def test_any_reply(reply: str, count: int) -> None:
    said = parse(reply, count)
    if isinstance(said, Failed):
        assert said.reason.isprintable()
        assert len(said.reason) < 200
    elif said is None:
        assert int(reply.strip().removesuffix(".")) == 0
    else:
        assert 0 <= said < count
        assert int(reply.strip().removesuffix(".")) == said + 1
