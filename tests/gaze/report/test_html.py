"""`write_report`: what a made-up run looks like on the page, that the page stands alone, and what it does with bad input."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gaze.report import html as report_html
from gaze.report import plots, style
from gaze.report.html import Chapter, Compared, Cover, Example, Plot, Table, interval, percent, write_report
from qwen3vl_jax.errors import InputError

HOSTILE = "<script>alert(\"1\" & '2')</script>"
PANELS = 3
TITLES = {1: "Finding the heads", 2: "Which layers?", 3: "Where it looks", 4: "A question: “What?”", 9: "Other sizes"}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the words, and whether every tag is closed."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


def titles(html):
    """Number and title of the chapters: as the contents have them, and as their headings do."""
    headings = re.findall(r'<section class="chapter" id="e(\d+)">.*?<h2>(.*?)</h2>', html, re.DOTALL)
    return re.findall(r'<a href="#e(\d+)">(.*?)</a>', html), headings


def drawing():
    return plots.conditions([plots.Measure("gaze heads", "gaze", 0.9, 0.8, 0.95)], 1 / PANELS)


def chapters():
    photo = Figure(figsize=(2, 1))
    photo.subplots().imshow(np.full((4, 8, 3), 90, np.uint8))
    return [
        Chapter(
            4, "vqa", TITLES[4], "Can its answer be moved?", ["It can, in 90.0% of the answers."],
            [Plot("conditions", drawing(), "Dots are shares.", "Fig. 6"), Plot("a/../photo", photo, "A picture.")],
            [Table("Answers", ["steered", "hits", "interval", "score", "judge"],
                   [["gaze", 1234, "80.0 to 95.0%", 0.5, HOSTILE], ["random", 5, "–", float("nan"), "a, \"b\""]], "Counts.")],
            [Compared("gaze heads", "83.1%", "90.0%")], ["Small strips."], "If any heads would do.", "Answers follow the gaze.",
        ),
        Chapter(1, "discovery", TITLES[1], HOSTILE, [HOSTILE], caveats=[HOSTILE],
                tables=[Table("All heads", ["head", "score"], [[f"L0H{head}", head / 100] for head in range(40)]),
                        Table("All heads", ["head"], [])]),
    ]  # fmt: skip


def cover():
    image = Image.linear_gradient("L").resize((60 * PANELS, 60))
    example = Example(image, HOSTILE, ["one.", "two.", "three."], "", [("one.", True), ("", False), ("three.", True)])
    facts = [("Model", HOSTILE), ("Heads", 1152), ("Strength", 10_000.0), ("Unmeasured", float("nan"))]
    absent = {number: title for number, title in TITLES.items() if number not in (1, 4)}
    return Cover(HOSTILE, "Two experiments.", facts, ["Four heads decide."], example, absent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("run") / "book", cover(), chapters()).parent


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_stands_alone(html, page):
    assert page.open == []
    sources = [tag.get("src") or tag.get("href", "") for tag in page.all("img", "image", "use", "a", "link", "script")]
    assert len(sources) > 10
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "url(" not in html
    assert "@import" not in html


def test_every_link_leads_somewhere_and_every_anchor_is_one(page):
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    links = {tag["href"].removeprefix("#") for tag in page.all("a", "use")}
    assert links <= set(anchors)
    assert {"e1", "e4", "e4-figure-1", "words", "run"} <= links


def test_files_beside_the_page(folder):
    stems = ("e4_a_photo", "e4_conditions")
    expected = {f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    tables = {f"tables/{name}.csv" for name in ("e1_all_heads", "e1_all_heads_2", "e4_answers", "paper")}
    assert set(files(folder)) == expected | tables | {"report.html"}


def test_csv_has_the_values_as_they_were(folder):
    def read(name):
        with (folder / "tables" / name).open(newline="") as file:
            return list(csv.reader(file))

    header, first, second = read("e4_answers.csv")
    assert header == ["steered", "hits", "interval", "score", "judge"]
    assert first == ["gaze", "1234", "80.0 to 95.0%", "0.5", HOSTILE]
    assert second == ["random", "5", "–", "nan", 'a, "b"']
    assert read("paper.csv")[1:] == [["4", "gaze heads", "83.1%", "90.0%"]]
    assert read("e1_all_heads_2.csv") == [["head"]]
    assert len(read("e1_all_heads.csv")) == 41


def test_words_of_others_are_never_markup(html, page):
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 6
    assert HOSTILE in [tag.get("aria-label") for tag in page.all("div")] or 'alert("1"' not in html


def test_chapters_stand_in_order_and_absent_ones_are_named(page):
    assert page.text.index("Experiment 1") < page.text.index("Experiment 4")
    absent = page.text.split("Not part of this run: ")[1].split(".")[0]
    assert absent == "; ".join(f"{number} {title}" for number, title in TITLES.items() if number not in (1, 4))


def test_no_chapter_is_named_absent_when_all_are_there(tmp_path):
    whole = [Chapter(number, f"e{number}", title, "Story.", []) for number, title in TITLES.items()]
    html = write_report(tmp_path, replace(cover(), absent={}), whole).read_text()
    assert "Not part of this run" not in Page(html).text
    assert titles(html) == ([(str(number), title) for number, title in TITLES.items()],) * 2


def test_titles_in_the_contents_are_those_of_the_chapters(html):
    assert titles(html) == ([("1", TITLES[1]), ("4", TITLES[4])],) * 2


def test_a_chapter_says_what_could_have_failed_and_the_one_sentence_that_matters(page):
    assert "What could have failed. If any heads would do. Answers follow the gaze." in page.text
    assert "4 A question: “What?” Answers follow the gaze." in page.text


def test_many_findings_are_folded(tmp_path):
    many = [Chapter(1, "a", "A", "Story.", [f"Finding {number}." for number in range(11)])]
    page = Page(write_report(tmp_path, cover(), many).read_text())
    assert "Finding 3. More numbers (7) Finding 4." in page.text


def test_the_papers_values_are_marked_as_another_models(page):
    assert "In the paper another model Here gaze heads 83.1% 90.0%" in page.text
    assert "on other pictures and with another judge" in page.text
    assert "Fig. 6 Figure 4.1" in page.text


def test_figures_and_tables_are_for_everyone(page):
    conditions, photo = page.all("img")
    assert "gaze heads: 90.0% (80.0% to 95.0%)" in " ".join(conditions["alt"].split())
    assert (conditions["class"], photo["class"]) == ("plot", "plot photo")
    assert photo["alt"] == "A picture."
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in page.all("div") if "role" in region)
    strips = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert len(strips) == 1 + PANELS
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in strips)


def test_long_tables_are_folded(page):
    assert len(page.all("details")) == 1
    assert "All heads (40 rows)" in page.text


def test_numbers_look_like_numbers(page):
    assert "gaze 1,234 80.0 to 95.0% 0.500" in page.text
    assert "Heads 1,152 Strength 10,000 Unmeasured –" in page.text


def test_no_number_of_the_page_has_a_hyphen_for_a_minus_sign(tmp_path):
    below = [
        Chapter(1, "a", "From -1", "-0.5.", ["ρ = -0.15 (-0.24 to -0.05)"], [Plot("p", drawing(), "At -3.")],
                [Table("-2", ["-4"], [["-5"], [-6.0]], "-7", [["-8", HOSTILE]] * 2)], [Compared("-9", "-1.5", "-2e-05")],
                ["-.5"], "-1", "-2"),
    ]  # fmt: skip
    page = Page(write_report(tmp_path, replace(cover(), summary=["-1"], facts=[("-1", -1.0)]), below).read_text())
    assert page.text.count("−") >= 16
    assert not re.search(r"(?<![\w-])-\.?\d", page.text)
    assert (tmp_path / "tables" / "e1_2.csv").read_text().startswith("-4,made with")


def test_what_a_table_was_made_with_stands_under_it_and_in_its_file(tmp_path):
    made = [["model@1", "heads a", "seed 0"], ["model@1", "heads b", "seed 0"], ["model@1", "heads b", "seed 0"]]
    table = Table("T", ["heads", "hits"], [["gaze", 1], ["random", 2], ["others", 3]], made_with=made)
    page = Page(write_report(tmp_path, cover(), [Chapter(1, "a", "A", "", [], tables=[table])]).read_text())
    assert "Made with model@1, seed 0. What differs: gaze: heads a random; others: heads b" in page.text
    assert (tmp_path / "tables" / "e1_t.csv").read_text().splitlines()[:2] == [
        "heads,hits,made with", 'gaze,1,"model@1, heads a, seed 0"',
    ]  # fmt: skip


def test_the_same_input_gives_the_same_bytes(tmp_path, folder):
    write_report(tmp_path / "again", cover(), chapters())
    assert files(tmp_path / "again") == files(folder)


def test_figures_may_be_drawn_twice(tmp_path):
    same = chapters()
    write_report(tmp_path / "one", cover(), same)
    write_report(tmp_path / "two", cover(), same)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_what_an_earlier_run_left_is_gone(tmp_path):
    write_report(tmp_path, cover(), chapters())
    write_report(tmp_path, cover(), [])
    assert set(files(tmp_path)) == {"report.html", "tables/paper.csv"}


def test_a_run_killed_while_drawing_leaves_the_earlier_page(tmp_path, monkeypatch):
    write_report(tmp_path, cover(), chapters())
    before = files(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(style, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, cover(), chapters())
    assert {name: content for name, content in files(tmp_path).items() if ".partial" not in name} == before
    monkeypatch.undo()
    write_report(tmp_path, cover(), chapters())
    assert files(tmp_path) == before


def test_bad_chapters_are_refused_before_anything_is_written(tmp_path):
    twice = [Chapter(1, "a", "A", "", []), Chapter(1, "b", "B", "", [])]
    with pytest.raises(InputError, match="same number"):
        write_report(tmp_path, cover(), twice)
    ragged = [Chapter(1, "a", "A", "", [], tables=[Table("Odd", ["a", "b"], [[1]])])]
    with pytest.raises(InputError, match="'Odd' does not have 2 cells"):
        write_report(tmp_path, cover(), ragged)
    unsaid = [Chapter(1, "a", "A", "", [], tables=[Table("Odd", ["a"], [[1], [2]], made_with=[["model"]])])]
    with pytest.raises(InputError, match="'Odd' has 2 rows, but says of 1 what they were made with"):
        write_report(tmp_path, cover(), unsaid)
    assert not files(tmp_path)


def test_panels_of_the_example_may_differ_in_width():
    image = Image.new("L", (100, 10))
    steered = [("a", True), ("b", True)]
    assert report_html._edges(Example(image, "", (), "", steered, (25, 75))) == [(0.0, 0.25), (0.25, 1.0)]
    assert report_html._edges(Example(image, "", (), "", steered)) == [(0.0, 0.5), (0.5, 1.0)]


def test_shares_and_intervals_read_well():
    assert (percent(0.925), percent(1), percent(float("nan"))) == ("92.5%", "100.0%", "–")
    assert interval([0, 0.0471]) == "0.0 to 4.7%"
