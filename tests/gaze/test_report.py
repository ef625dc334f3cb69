"""`write_report`: what a made-up run looks like on the page, and that the page stands alone."""

import copy
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gaze import figures
from gaze.report import MODES, PRECISIONS, Example, Run, interval, percent, separated, write_report
from gaze.score import rank
from gaze.steer import MODES as STEERING_MODES
from gaze.steer import PRECISIONS as STEERING_PRECISIONS

PANELS = 6
FIGURES = ("score_map", "matrices", "head_count", "controls", "per_panel")
WARNING = "proves nothing about Qwen's own weights"
HOSTILE = "<script>alert('&')</script>"


def measured(rng, rate, per_panel, spread=0.04):
    def estimate(rate, answers, spread):
        hits = int(rng.binomial(answers, rate))
        low, high = max(0, hits / answers - spread), min(1, hits / answers + spread)
        return {"accuracy": hits / answers, "interval": [low, high], "n": answers, "strips": 60}

    rows = [{"panel": panel + 1, **estimate(rate, per_panel, 1.5 * spread)} for panel in range(PANELS)]
    return {**estimate(rate, per_panel * PANELS, spread), "per_panel": rows}


def condition(rng, rate, per_panel=60):
    found = measured(rng, rate, per_panel)
    hit = round(found["accuracy"] * found["n"])
    wrong = (found["n"] - hit) // 3
    lost = found["n"] - hit - wrong
    outcomes = {"hit": hit, "wrong": wrong, "unattributable": lost, "empty": lost // 3, "baseline": 17}
    return {**found, "outcomes": outcomes, "picks": rng.multinomial(hit + wrong, [1 / PANELS] * PANELS).tolist()}


def results(rng, scores, k):
    layers, heads = scores.shape
    draws = [
        {"accuracy": float(rng.uniform(0, 0.07)), "heads": rng.integers(0, [layers, heads], (k, 2)).tolist()}
        for _ in range(10)
    ]
    counts = sorted(
        {n for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 75, 100, 200, 500) if n <= layers * heads}
    )
    curve = [{"k": n, **measured(rng, 0.93 * np.exp(-2 * np.log(n / k) ** 2), 24, 0.06)} for n in counts]
    return {
        "model": "testbed",
        "testbed": True,
        "revision": "",
        "seed": 0,
        "k": k,
        "heads": [[layer, head] for layer, head, _ in rank(scores)[:k]],
        "heads_total": layers * heads,
        "layers": layers,
        "heads_per_layer": heads,
        "question": "What is happening in this panel of the comic strip?",
        "strength": 10_000.0,
        "mode": "boost_suppress",
        "precision": "ordered",
        "strips": {"discovery": 60, "selection": 24, "evaluation": 60},
        "panel_questions": measured(rng, 0.99, 60, 0.01),
        "baseline": {"picks": [36, 6, 5, 4, 5, 2], "unattributable": 2, "n": 60},
        "conditions": {
            "gaze": condition(rng, 0.92),
            "random": {**condition(rng, 0.03, 600), "draws": draws},
            "all": condition(rng, 0.0),
        },
        "curve": curve,
        "seconds": {"load": 2.1, "discovery": 9.4, "selection": 31.0, "panel questions": 6.2, "steering": 44.7},
    }


def example(rng):
    captions = [f"red star jumps over blue box {panel}." for panel in range(PANELS)]
    image = Image.fromarray(rng.integers(150, 255, (64, 64 * PANELS, 3), dtype=np.uint8))
    return Example(
        image, captions, HOSTILE, [*((text, True) for text in captions[:4]), ("", False), ("red red", False)]
    )


def made_up(folder, layers=6, heads=8, k=4):
    rng = np.random.default_rng(0)
    scores = rng.exponential(0.006, (layers, heads))
    scores.flat[rng.choice(scores.size, k, replace=False)] = np.linspace(0.99, 0.6, k)
    top = rank(scores)[:8]
    matrices = np.stack([score * np.eye(PANELS) for *_, score in top]) + rng.exponential(
        0.004, (len(top), PANELS, PANELS)
    )
    return Run(folder, results(rng, scores, k), scores, matrices, top, [example(rng) for _ in range(3)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(run):
    return write_report(run).read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


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


def test_the_page_stands_alone(run, html, page):
    assert (run.folder / "report.html").read_text() == html
    assert not list(run.folder.glob("*.partial"))
    assert page.open == []
    assert len(html) < 1_500_000
    sources = [tag.get("src") or tag.get("href", "") for tag in page.all("img", "image", "use", "a", "link", "script")]
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "url(" not in html
    assert "@import" not in html


def test_figures_are_files_and_have_words_for_those_who_cannot_see_them(run, page):
    files = {file.name for file in (run.folder / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    images = page.all("img")
    assert len(images) == len(FIGURES)
    assert all(len(image["alt"]) > 40 for image in images)
    strips = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert len(strips) == 3 * (1 + PANELS)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in strips)
    for name in FIGURES:
        with Image.open(run.folder / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_every_number_is_on_the_page(run, page):
    for found in (*run.results["conditions"].values(), run.results["panel_questions"]):
        assert f"{percent(found['accuracy'])} {interval(found['interval'])} {found['n']:,}" in page.text
        for row in found["per_panel"]:
            assert f"{percent(row['accuracy'])} {interval(row['interval'])}" in page.text
    for layer, head in run.results["heads"]:
        assert f"L{layer}H{head} {run.scores[layer, head]:.3f}" in page.text
    for words in ("described panel 1 in 60.0% of them", "60 discovery, 24 selection, 60 evaluation", "by 10,000;"):
        assert words in page.text


def test_words_of_a_model_are_never_markup(html, page):
    assert "<script" not in html
    assert HOSTILE in page.text


def test_marks_are_words_too(page):
    assert page.text.count("✓ hit") == 3 * 4
    assert page.text.count("✗ miss") == 3 * 2
    assert "(no text)" in page.text
    assert "it shows “red star jumps over blue box 5.”" in page.text


def test_the_story_claims_no_more_than_the_controls_allow(tmp_path, run, page):
    special, doubtful = "so it is these heads", "does not show that the chosen heads are special"
    assert special in page.text
    results = copy.deepcopy(run.results)
    results["conditions"]["all"]["interval"] = [0.4, 0.95]
    text = Page(write_report(replace(run, folder=tmp_path, results=results)).read_text()).text
    assert doubtful in text
    assert special not in text


@pytest.mark.parametrize("control", ["random", "all", "draw"])
def test_one_good_control_is_enough_to_doubt(run, control):
    conditions = copy.deepcopy(run.results["conditions"])
    assert separated(conditions)
    if control == "draw":
        conditions["random"]["draws"][3]["accuracy"] = 0.95
    else:
        conditions[control]["interval"] = [0.0, 0.95]
    assert not separated(conditions)


def test_a_large_model_fits_and_lacks_the_testbeds_caveat(tmp_path, page):
    run = made_up(tmp_path, layers=64, heads=64, k=500)
    photo = Image.effect_noise((1536, 256), 60).convert("RGB")
    examples = [replace(example, image=photo, captions=()) for example in run.examples]
    name = {"model": "Qwen/Qwen3-VL-32B-Instruct", "testbed": False}
    html = write_report(replace(run, examples=examples, results=run.results | name)).read_text()
    text = Page(html).text
    assert len(html) < 1_500_000
    assert "Gaze heads of Qwen/Qwen3-VL-32B-Instruct" in text
    assert "it shows" not in text
    assert WARNING not in text
    assert WARNING in page.text


def test_the_same_run_gives_the_same_page(tmp_path, run, html):
    assert write_report(replace(run, folder=tmp_path)).read_text() == html


def test_colours_mean_the_same_in_figures_and_page(run, html):
    assert f"--gaze: {figures.PALETTE['gaze']}" in html
    assert figures.PALETTE["gaze"] in (run.folder / "figures" / "controls.svg").read_text()


def test_every_way_of_steering_has_words():
    assert set(MODES) == set(STEERING_MODES)
    assert set(PRECISIONS) == set(STEERING_PRECISIONS)


def test_shares_and_intervals_read_well():
    assert (percent(0.925), percent(1), interval([0, 0.0471])) == ("92.5%", "100.0%", "0.0 to 4.7%")


def test_tick_labels_do_not_crowd():
    curve = [{"k": k, "accuracy": 0.5, "interval": [0.4, 0.6]} for k in range(1, 101)]
    (axes,) = figures.head_count(curve, 97, 1 / PANELS).axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"1", "97"} <= set(shown)
    assert len(shown) < 30


@pytest.mark.parametrize(("layers", "heads", "k"), [(1, 2, 1), (2, 4, 8), (3, 4, 2)])
def test_small_models_have_figures_too(tmp_path, layers, heads, k):
    run = made_up(tmp_path, layers, heads, k)
    assert (tmp_path / "report.html") == write_report(run)
