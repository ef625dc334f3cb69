"""Tables on the page: their numbers, their signs, and that none is wider than the page, asked of a browser where there is one."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from gaze.report.html import Chapter, Cover, Table, write_report
from gaze.report.tables import Column, decimals, grid, made_with
from gaze.report.typography import typeset, unbroken

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHARE = "100.0% (100.0 to 100.0)"
NAME = "random heads of the same layers, even attention on the target"

WIDE = {
    "per panel": (["heads", "counting", *(f"panel {n}" for n in range(1, 7))], [[NAME, "as judged", *[SHARE] * 6]] * 9),
    "twelve panels": (["heads", *(f"panel {n}" for n in range(1, 13))], [[NAME, *[SHARE] * 12]] * 14),
    "many columns": ([f"what was counted {n}" for n in range(20)], [[NAME, *range(1_000_000, 1_000_019)]] * 3),
    "paths": (["checkpoint", "score"], [["/a/path/to/a/checkpoint" * 20, 0.5]] * 2),
    "prose": (["question", "answer"], [["word " * 60, "word " * 90]] * 4),
    "one row": ([f"column {n}" for n in range(30)], [[SHARE] * 30]),
}


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ([0.5, 0.25], ["0.500", "0.250"]),
        ([12.34, 0.1], ["12.3", "0.1"]),
        ([-1.0, float("nan"), 3], ["-1.00", "–", "3"]),
        ([0.0, 0.0], ["0.000", "0.000"]),
        ([2e-6], ["2.0e-06"]),
        ([0.0012, 0.0], ["0.00120", "0.00000"]),
        ([1e6, float("inf")], ["1,000,000", "–"]),
        ([np.float32(0.5), np.int64(1000)], ["0.500", "1,000"]),
    ],
)
def test_numbers_of_a_column_have_as_many_decimals(cells, shown):
    assert decimals(cells) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-1", "−1"),
        ("ρ = -0.15 (-0.24 to -.05)", "ρ = −0.15 (−0.24 to −.05)"),
        ("2.0e-06", "2.0e−06"),
        ("-2e-5", "−2e−5"),
        ("-0.000 and -0", "0.000 and 0"),
        ("Qwen3-VL-8B of 2026-01-31, strip 0-3", "Qwen3-VL-8B of 2026-01-31, strip 0-3"),
        ("--full-sequence, a - b, x-1", "--full-sequence, a - b, x-1"),
        ("95 % of 4", "95% of 4"),
    ],
)
def test_signs_are_set(text, shown):
    assert typeset(text) == shown
    assert typeset(shown) == shown


def test_ranges_are_not_broken_but_where_an_interval_begins():
    assert unbroken("12.5% (-1.0 to 40.0%), 3 of 4 to be") == "12.5% (-1.0\xa0to\xa040.0%), 3\xa0of\xa04 to be"


def test_numbers_stand_right_and_words_left():
    rows = [["x", 1, "9.1 to 12.0%", 0.5, "1 of 2 judges", -1.0], ["y", 2, "–", 0.25, "3", -2.0]]
    columns = grid([*"abcdef"], rows).columns
    assert [column.numeric for column in columns] == [False, True, True, True, False, True]
    assert columns[5].cells == ["−1.00", "−2.00"]


def test_a_table_that_fits_is_left_alone():
    laid = grid(["head", "score"], [["L0H1", 0.5], ["L0H2", 0.25]])
    assert laid.columns == [Column("head", ["L0H1", "L0H2"], False), Column("score", ["0.500", "0.250"], True)]
    assert not laid.dense


def test_a_wide_table_of_few_rows_is_turned():
    names = ["judge", *(f"what was counted {n}" for n in range(12))]
    laid = grid(names, [["exact", *range(12)], ["caption", *([0.5] * 12)]])
    assert [column.name for column in laid.columns] == ["judge", "exact", "caption"]
    assert laid.columns[0].cells == names[1:]
    assert laid.columns[2].cells == ["0.500"] * 12
    assert not laid.dense


def test_a_table_too_wide_either_way_has_small_letters_and_breaks_ranges_where_it_must():
    laid, wider = grid(*WIDE["per panel"]), grid(*WIDE["twelve panels"])
    assert laid.dense
    assert wider.dense
    assert laid.columns[2].cells[0] == SHARE.replace(" to ", "\xa0to\xa0")
    assert wider.columns[2].cells[0] == SHARE


def test_what_rows_share_is_said_once():
    parts = [["m", "a", "s"], ["m", "b", "s"], ["m", "b", "s"], ["m", "s"]]
    assert made_with([["one"], ["two"], ["two"], ["three"]], parts) == (["m", "s"], {"a": ["one"], "b": ["two"]})
    assert made_with([["one"]], [["m", "a"]]) == (["m", "a"], {})
    assert made_with([], []) == ([], {})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    tables = [
        Table(title, names, rows, made_with=[["model", str(n)] for n in range(len(rows))])
        for title, (names, rows) in WIDE.items()
    ]
    chapter = Chapter(1, "wide", "Wide tables", "Story.", [], tables=tables)
    return write_report(tmp_path_factory.mktemp("wide"), Cover("T", "", [], []), [chapter])


def test_every_table_stands_in_a_box_that_scrolls(page):
    html = page.read_text()
    boxed = re.findall(r'<div class="wide"[^>]*>\s*<table', html)
    assert len(boxed) == html.count("<table") == len(WIDE)
    assert re.search(r"\.wide {[^}]*overflow-x: auto", html)


@pytest.mark.skipif(BROWSER is None, reason="no browser to lay the page out")
@pytest.mark.parametrize("width", [1200, 800])
def test_no_table_is_wider_than_the_page_in_a_browser(page, width, tmp_path):
    measured = tmp_path / "page.html"
    script = (
        "<script>document.querySelectorAll('details').forEach(one => one.open = true);"
        "document.title = [document.documentElement.scrollWidth - innerWidth,"
        "...[...document.querySelectorAll('.wide')].map(one => one.scrollWidth - one.clientWidth)].join(' ')</script>"
    )
    measured.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},1000",
        f"--user-data-dir={tmp_path}/user",
    ]
    shown = subprocess.run(
        [BROWSER, *options, "--dump-dom", measured.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    beyond = [int(number) for number in re.search("<title>(.*?)</title>", shown)[1].split()]
    assert len(beyond) == 1 + len(WIDE)
    assert max(beyond) <= 0, dict(zip(["page", *WIDE], beyond, strict=True))
