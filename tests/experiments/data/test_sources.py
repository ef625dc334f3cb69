"""`sources` and `comics`: what `--strips` reads, how it is dealt out, and what happens to comics that cannot be read."""

import json
import os
import sys
from itertools import chain, combinations

import datasets
import numpy as np
import pytest
from PIL import Image

from experiments.data.comics import PanelFolders, RawPages
from experiments.data.sources import PURPOSES, deal, fingerprint, natural, open_source
from experiments.testbed.strips import draw_strips
from gaze.pictures.compose import arrange, compose
from qwen3vl_jax.errors import InputError

COUNTS = {"discovery": 3, "selection": 2, "evaluation": 4}


def shade(number, panel):
    """A small panel that tells which it is; sizes are odd."""
    return Image.new("RGB", (9 + panel, 7 + number % 3), (number * 9 % 256, panel * 40, 7))


def write_comic(folder, number=0, suffix=".png"):
    folder.mkdir(parents=True)
    for panel in range(1, 7):
        shade(number, panel).save(folder / f"p{panel}{suffix}")
    return folder


@pytest.fixture
def comics(tmp_path):
    for number in range(1, 13):
        write_comic(tmp_path / "comics" / f"comic{number}", number)
    return tmp_path / "comics"


def names(strips):
    return [strip.name for strip in strips]


def draw_all(source, counts=COUNTS, purposes=PURPOSES):
    return {purpose: names(source.draw(purpose, counts[purpose])) for purpose in purposes}


# Who gets which comic


def test_natural_order_puts_comic2_before_comic10():
    mixed = ["comic10", "Comic3", "comic2", "a1b20", "a1b3", "", "7", "comic02"]
    assert sorted(mixed, key=natural) == ["", "7", "a1b3", "a1b20", "comic02", "comic2", "Comic3", "comic10"]


@pytest.mark.parametrize("counts", [{}, COUNTS, {"discovery": 20}, {"discovery": 5, "selection": 5, "evaluation": 10}])
def test_purposes_share_no_name_and_leave_none_out(counts):
    everyone = [f"c{number}" for number in range(20)]
    lanes = deal(everyone, 3, counts, share=False)
    assert sorted(chain(*lanes.values())) == sorted(everyone)
    assert all(len(lanes[purpose]) >= count for purpose, count in counts.items())
    assert lanes == deal(everyone, 3, counts, share=False)
    assert lanes != deal(everyone, 4, counts, share=False)


def test_more_discovery_leaves_evaluation_alone():
    everyone = [f"c{number}" for number in range(30)]
    small, large = (deal(everyone, 0, {**COUNTS, "discovery": count}, share=False) for count in (3, 20))
    assert small["evaluation"][:4] == large["evaluation"][:4]
    assert small["discovery"][:3] == large["discovery"][:3]


def test_sharing_is_told(comics):
    counts = {"discovery": 9, "selection": 2, "evaluation": 10}
    with pytest.raises(InputError, match=r"there are 12 strips, too few for 9 \+ 2 \+ 10"):
        open_source(f"folder:{comics}", 0, counts)
    source = open_source(f"folder:{comics}", 0, counts, share=True)
    drawn = draw_all(source, counts)
    assert source.shared
    assert drawn["discovery"] == drawn["evaluation"][:9]
    assert not set(drawn["selection"]) & set(drawn["evaluation"])
    assert not open_source(f"folder:{comics}", 0, COUNTS).shared


def test_the_order_of_calls_does_not_matter(comics):
    one, other = (open_source(f"folder:{comics}", 5, COUNTS) for _ in range(2))
    assert draw_all(one) == draw_all(other, purposes=PURPOSES[::-1])
    assert names(other.draw("evaluation", 2)) == names(one.draw("evaluation", 4))[:2]
    assert one.skipped == []


def test_too_few_comics_say_how_many_there_are(comics):
    with pytest.raises(InputError, match=r"there are 12 strips, too few for 3 \+ 2 \+ 8"):
        open_source(f"folder:{comics}", 0, {**COUNTS, "evaluation": 8})
    source = open_source(f"folder:{comics}", 0, COUNTS)
    with pytest.raises(InputError, match="has 12 strips, of which 5 are left for evaluation and 0 could not be used"):
        source.draw("evaluation", 6)


# Comics that cannot be read


def spoil(comic, how):
    match how:
        case "corrupt":
            path = comic / "p2.png"
            path.write_bytes(path.read_bytes()[:40])
        case "no picture":
            (comic / "p6.png").write_text("hello")
        case "missing":
            (comic / "p4.png").unlink()
        case "sixteen bits":
            Image.fromarray(np.zeros((8, 8), np.uint16)).save(comic / "p1.png")
        case "flat":
            Image.new("RGB", (4000, 1)).save(comic / "p1.png")
        case "five captions":
            (comic / "captions.json").write_text(json.dumps(list("abcde")))
        case "no list":
            (comic / "captions.json").write_text('{"p1": "a"}')
        case "no json":
            (comic / "captions.json").write_text("[")
        case "two texts":
            (comic / "p1.txt").write_text("a")
            (comic / "p2.txt").write_text("b")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("corrupt", "p2.png cannot be read as an image"),
        ("no picture", "p6.png cannot be read as an image"),
        ("missing", "it has no p4.png"),
        ("sixteen bits", "8 bits per channel"),
        ("flat", "too flat"),
        ("five captions", "5 captions for 6 panels"),
        ("no list", "is not a list of captions"),
        ("no json", "cannot be read as a list of captions"),
        ("two texts", "2 captions for 6 panels"),
    ],
)
def test_what_cannot_be_read_is_named_skipped_counted_and_replaced(comics, capsys, how, reason):
    before = draw_all(open_source(f"folder:{comics}", 1, COUNTS))
    bad = before["evaluation"][1]
    spoil(comics / bad, how)
    source = open_source(f"folder:{comics}", 1, COUNTS)
    after = draw_all(source)
    kept = [name for name in before["evaluation"] if name != bad]
    assert after["evaluation"][:3] == kept
    assert len(after["evaluation"]) == 4
    assert not {after["evaluation"][3]} & set(chain(*before.values()))
    assert {purpose: after[purpose] for purpose in PURPOSES[:2]} == {p: before[p] for p in PURPOSES[:2]}
    ((name, why),) = source.skipped
    assert name == bad
    assert reason in why
    assert f"skipped {bad}: {why}" in capsys.readouterr().err
    source.draw("evaluation", 4)
    assert len(source.skipped) == 1
    assert capsys.readouterr().err == ""


def test_nothing_is_read_before_it_is_drawn(comics, monkeypatch):
    read = []
    wrapped = PanelFolders.open
    monkeypatch.setattr(PanelFolders, "open", lambda self, name: read.append(name) or wrapped(self, name))
    source = open_source(f"folder:{comics}", 0, COUNTS)
    assert read == []
    assert names(source.draw("selection", 2)) == read


# The kinds of sources


def test_a_folder_gives_the_papers_strips_with_their_captions(tmp_path):
    write_comic(tmp_path / "comic1")
    (tmp_path / "comic1" / "captions.json").write_text(json.dumps(list("abcdef")))
    write_comic(tmp_path / "comic2", suffix=".webp")
    for panel in range(1, 7):
        (tmp_path / "comic2" / f"p{panel}.txt").write_text(f" text {panel}\n")
    write_comic(tmp_path / "comic3", suffix=".JPG")
    (tmp_path / ".hidden").mkdir()
    folder = PanelFolders(tmp_path)
    assert sorted(folder.names) == ["comic1", "comic2", "comic3"]
    want = arrange("comic1", [shade(0, panel) for panel in range(1, 7)], list("abcdef"))
    assert folder.open("comic1") == want
    assert folder.open("comic2").captions == tuple(f"text {panel}" for panel in range(1, 7))
    assert folder.open("comic3").captions == ()


def test_pictures_of_every_mode_become_rgb(tmp_path):
    comic = write_comic(tmp_path / "comic1")
    grey = Image.new("L", (20, 10), 90)
    grey.save(comic / "p1.png")
    Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(comic / "p2.png")
    Image.new("RGB", (20, 10), (0, 0, 250)).quantize(2).save(comic / "p3.png")
    Image.new("1", (20, 10), 1).save(comic / "p4.png")
    Image.new("LA", (20, 10), (90, 255)).save(comic / "p5.png")
    Image.new("CMYK", (20, 10)).save(comic / "p6.png".replace("png", "jpg"))
    (comic / "p6.png").unlink()
    strip = PanelFolders(tmp_path).open("comic1")
    assert strip.image.mode == "RGB"
    middles = [strip.crop(panel).getpixel((100, 100)) for panel in range(5)]
    assert middles == [(90,) * 3, (255,) * 3, (0, 0, 250), (255,) * 3, (90,) * 3]


@pytest.fixture
def corpus(tmp_path):
    """Three long comics, one short, and one without a page of six panels."""
    root = tmp_path / "raw"
    pages = {"0": [8] * 14, "1": [6] * 12, "2": [3] * 6 + [7, 2, 1] + [9] * 5, "3": [6, 5], "4": [5, 4]}
    for comic, counts in pages.items():
        (root / comic).mkdir(parents=True)
        for page, count in enumerate(counts):
            for panel in range(count):
                Image.new("RGB", (4, 4), (int(comic), page, panel)).save(root / comic / f"{page}_{panel}.png")
        (root / comic / "notes_1_2.png").write_text("no panel")
    return root


def shown(strip):
    """(comic, page, panel) that each panel of a strip was painted with."""
    return [strip.crop(panel).getpixel((60, 60)) for panel in range(len(strip))]


@pytest.mark.parametrize("seed", range(12))
def test_windows_are_six_panels_in_a_row_of_an_inner_page(corpus, seed):
    pages = RawPages(corpus, seed, wanted=1)
    inner = {"0": range(5, 9), "1": range(5, 7), "2": [6], "3": [0]}
    for comic, allowed in inner.items():
        strip = pages.open(comic)
        panels = shown(strip)
        (_, page, start) = panels[0]
        assert panels == [(int(comic), page, start + number) for number in range(6)]
        assert page in allowed
        assert strip.name == f"{comic}_page{page}_start{start}"
        assert strip == RawPages(corpus, seed, wanted=9).open(comic)
    with pytest.raises(InputError, match="it has no page with 6 panels"):
        pages.open("4")


def test_a_page_kept_twice_byte_by_byte_counts_once(tmp_path):
    comic = tmp_path / "raw" / "7"
    comic.mkdir(parents=True)
    for page, shown_as in enumerate([0, 1, 0, 2]):
        for panel in range(6):
            Image.new("RGB", (4, 4), (9, shown_as, panel)).save(comic / f"{page}_{panel}.png")
    pages = RawPages(tmp_path / "raw", 0, wanted=3)
    assert pages.names == ("7", "7#2", "7#3")
    assert sorted(shown(pages.open(name))[0][1] for name in pages.names) == [0, 1, 2]
    for panel in range(6):
        (comic / f"1_{panel}.png").unlink()
    with pytest.raises(InputError, match="it has no other page with 6 panels"):
        pages.open("7#3")


def test_windows_vary_with_the_seed(corpus):
    strips = [RawPages(corpus, seed, wanted=9).open("0") for seed in range(30)]
    assert {shown(strip)[0][1] for strip in strips} == {5, 6, 7, 8}
    assert {shown(strip)[0][2] for strip in strips} == {0, 1, 2}


def test_few_comics_give_several_strips_each_from_another_page(corpus):
    counts = {"discovery": 3, "selection": 1, "evaluation": 4}  # all there are: four, two, one and one
    source = open_source(f"comics:{corpus}", 0, counts)
    used = [shown(strip)[0][:2] for purpose in PURPOSES for strip in source.draw(purpose, counts[purpose])]
    assert sorted(used) == [(0, 5), (0, 6), (0, 7), (0, 8), (1, 5), (1, 6), (2, 6), (3, 0)]
    with pytest.raises(InputError, match=r"there are 8 strips, too few for 3 \+ 1 \+ 5"):
        open_source(f"comics:{corpus}", 0, {**counts, "evaluation": 5})


def test_many_comics_are_listed_only_when_drawn(corpus, capsys):
    source = open_source(f"comics:{corpus}", 0, {"evaluation": 2})
    (corpus / "1").rename(corpus.parent / "elsewhere")
    assert [name.split("_")[0] for name in names(source.draw("evaluation", 2))] == ["0", "3"]
    assert "skipped 1: the folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="5 strips, of which 0 are left for selection"):
        source.draw("selection", 1)
    assert dict(source.skipped)["4"] == "it has no page with 6 panels"


def panel_table(count, captions=True):
    rows = range(1, count + 1)
    table = {"comic_id": list(rows)}
    table |= {f"panel_{panel}": [shade(number, panel) for number in rows] for panel in range(1, 7)}
    if captions:
        table |= {f"caption_{panel}": [f"{number} does {panel}" for number in rows] for panel in range(1, 7)}
    return table


def saved_table(path, table):
    features = datasets.Features(
        {name: datasets.Image() if name[:5] == "panel" else datasets.Value("string") for name in table}
    )
    features["comic_id"] = datasets.Value("int64")
    return datasets.Dataset.from_dict(table, features=features).save_to_disk(path)


def test_a_data_set_gives_the_strips_of_its_exported_folder(tmp_path, comics):
    saved_table(tmp_path / "saved", panel_table(12))
    hub = open_source(f"hub:{tmp_path / 'saved'}", 2, COUNTS)
    folder = open_source(f"folder:{comics}", 2, COUNTS)
    for purpose, count in COUNTS.items():
        ours, theirs = hub.draw(purpose, count), folder.draw(purpose, count)
        assert [(strip.name, strip.image, strip.widths) for strip in ours] == [
            (strip.name, strip.image, strip.widths) for strip in theirs
        ]
        number = ours[0].name.removeprefix("comic")
        assert ours[0].captions == tuple(f"{number} does {panel}" for panel in range(1, 7))


def test_a_split_is_chosen_by_name(tmp_path):
    table = datasets.Dataset.from_dict(panel_table(3, captions=False)).cast_column("panel_1", datasets.Image())
    datasets.DatasetDict({"test": table}).save_to_disk(tmp_path / "both")
    source = open_source(f"hub:{tmp_path / 'both'}@test", 0, {"evaluation": 3})
    assert {strip.captions for strip in source.draw("evaluation", 3)} == {()}
    with pytest.raises(InputError, match="has no split train: give one of test"):
        open_source(f"hub:{tmp_path / 'both'}", 0, COUNTS)


def test_a_corrupt_cell_of_a_data_set_is_skipped(tmp_path):
    table = panel_table(4)
    table["panel_3"][1] = {"bytes": b"nothing", "path": None}
    table["panel_5"][2] = None
    table["caption_2"][3] = None
    saved_table(tmp_path / "saved", table)
    source = open_source(f"hub:{tmp_path / 'saved'}", 0, {})
    with pytest.raises(InputError, match="too few"):
        source.draw("evaluation", 4)
    for purpose in PURPOSES:
        source.draw(purpose, 0)
    everyone = open_source(f"hub:{tmp_path / 'saved'}", 0, {"evaluation": 4})
    with pytest.raises(InputError, match="4 strips, of which 1 are left for evaluation and 3 could not be used"):
        everyone.draw("evaluation", 2)
    assert {name: why.split("(")[0].strip() for name, why in everyone.skipped} == {
        "comic2": "its panel_3 cannot be read as an image",
        "comic3": "its panel_5 is empty",
        "comic4": "5 of its 6 panels have captions",
    }


def test_a_data_set_of_other_columns_or_twice_the_same_comic_is_an_error(tmp_path):
    table = panel_table(2)
    saved_table(tmp_path / "other", {name: column for name, column in table.items() if name != "panel_4"})
    with pytest.raises(InputError, match="has no column panel_4"):
        open_source(f"hub:{tmp_path / 'other'}", 0, {})
    saved_table(tmp_path / "twice", {**table, "comic_id": [1, 1]})
    with pytest.raises(InputError, match="several comics of one comic_id"):
        open_source(f"hub:{tmp_path / 'twice'}", 0, {})


def test_a_data_set_that_cannot_be_reached_is_an_error(monkeypatch):
    def unreachable(name, split):
        raise ConnectionError(f"Couldn't reach {name} {split}\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"some/where cannot be read as a data set \(Couldn't reach some/where odd\)"):
        open_source("hub:some/where@odd", 0, {})


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="needs the extra `hub`"):
        open_source("hub:some/where", 0, {})


class Spoiled:
    """A data set whose ids cannot be read, though its columns are there."""

    column_names = ("comic_id", *(f"panel_{number}" for number in range(1, 7)))

    def cast_column(self, *_):
        return self

    def __getitem__(self, _):
        raise OSError("the file was cut off")


def test_ids_that_cannot_be_read_are_one_sentence(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Spoiled())
    with pytest.raises(InputError, match=r"the data set some/where cannot be read .*cut off"):
        open_source("hub:some/where", 0, {})


def test_the_testbed_draws_its_own():
    source = open_source("testbed", 4, COUNTS)
    strips = {purpose: source.draw(purpose, 2) for purpose in PURPOSES}
    assert strips["selection"] == draw_strips(4, "selection", 2)
    for one, other in combinations(PURPOSES, 2):
        assert not set(names(strips[one])) & set(names(strips[other]))
        assert strips[one][0].image != strips[other][0].image
    shared = open_source("testbed", 4, COUNTS, share=True)
    assert shared.shared
    assert names(shared.draw("discovery", 2)) == names(shared.draw("evaluation", 2))


@pytest.mark.parametrize("spec", ["", "folder", "folder:", "pile:/tmp", "testbed:5", "/some/where", "comics"])
def test_a_wrong_spec_says_what_would_be_right(spec):
    with pytest.raises(
        InputError, match=r"give testbed, testbed-sparse, folder:PATH, comics:PATH or hub:NAME\[@SPLIT\]"
    ):
        open_source(spec, 0, {})


@pytest.mark.parametrize("spec", ["testbed", "folder:{}", "comics:{}", "hub:{}"])
@pytest.mark.parametrize("panels", [10**9, 13, 1, 0, -6, True])
def test_a_wrong_number_of_panels_is_refused_before_anything_is_read(tmp_path, spec, panels):
    with pytest.raises(InputError, match=f"panels is {panels}, but should be a whole number from 2 to 12"):
        open_source(spec.format(tmp_path / "nowhere"), 0, {}, panels=panels)


@pytest.mark.parametrize(("seed", "counts"), [(-1, {}), (0, {"evaluation": -1}), (0, {"selection": True})])
def test_other_numbers_are_refused_too(comics, seed, counts):
    with pytest.raises(InputError, match="should be a whole number from 0"):
        open_source(f"folder:{comics}", seed, counts)


@pytest.mark.parametrize("name", ["p7.png", "P8.JPG", "p12.webp", "p0.png", "p7.txt", "p0000.bmp"])
def test_a_folder_of_more_panels_is_no_shorter_strip(comics, name):
    (comics / "comic4" / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"it has {name.lower()}, where a strip has 6 panels"):
        PanelFolders(comics).open("comic4")
    source = open_source(f"folder:{comics}", 0, {"evaluation": 12})
    with pytest.raises(InputError, match="11 are left for evaluation and 1 could not be used"):
        source.draw("evaluation", 12)
    assert [skipped for skipped, _ in source.skipped] == ["comic4"]


def test_other_files_beside_the_panels_do_not_matter(comics):
    for name in ("p7.pdf", "panel7.png", "p7_old.png", "notes.txt", "p.png"):
        (comics / "comic4" / name).write_bytes(b"")
    assert len(PanelFolders(comics).open("comic4")) == 6


def test_a_row_of_more_panels_is_no_shorter_strip(tmp_path):
    table = panel_table(3)
    table["panel_6"][1] = None
    table["caption_6"][1] = None
    saved_table(tmp_path / "saved", table)
    source = open_source(f"hub:{tmp_path / 'saved'}", 0, {"evaluation": 1}, panels=5)
    assert names(source.draw("evaluation", 1)) == ["comic2"]
    for _, why in source.skipped:
        assert "where a strip has 5 panels" in why


@pytest.mark.parametrize("kind", ["folder", "comics", "hub"])
@pytest.mark.parametrize("place", ["x" * 5000, "~no-such-user-here/x", "a\0b"])
def test_a_place_that_cannot_be_one_is_an_error(kind, place, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError) as refused:
        open_source(f"{kind}:{place}", 0, {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "comics"])
def test_a_place_without_comics_is_an_error(tmp_path, kind):
    with pytest.raises(InputError, match="there are no comics in"):
        open_source(f"{kind}:{tmp_path}", 0, {})
    with pytest.raises(InputError, match="cannot be read"):
        open_source(f"{kind}:{tmp_path / 'nowhere'}", 0, {})


def test_a_fingerprint_tells_what_was_drawn():
    strips = draw_strips(0, "test", 3)
    assert fingerprint(strips) == fingerprint(draw_strips(0, "test", 3))
    prints = {fingerprint(strips), fingerprint(strips[:2]), fingerprint(strips[::-1]), fingerprint([])}
    assert len(prints) == 4
    assert fingerprint([compose("a", [shade(0, 1)] * 2)]) != fingerprint([compose("a", [shade(0, 1)] * 3)])


@pytest.mark.parametrize("panels", [2, 5, 12])
def test_other_numbers_of_panels_from_every_kind_of_source(tmp_path, panels):
    comic, raw = tmp_path / "folder" / "comic1", tmp_path / "raw" / "1"
    comic.mkdir(parents=True)
    raw.mkdir(parents=True)
    for number in range(1, panels + 1):
        shade(1, number).save(comic / f"p{number}.png")
        (comic / f"p{number}.txt").write_bytes(b"\xef\xbb\xbfit is %d\r\n" % number)
        shade(1, number).save(raw / f"0_{number}.png")
    row = {"comic_id": [1]} | {f"panel_{number}": [shade(1, number)] for number in range(1, panels + 1)}
    saved_table(tmp_path / "saved", row)
    for spec in (f"folder:{tmp_path / 'folder'}", f"comics:{tmp_path / 'raw'}", f"hub:{tmp_path / 'saved'}", "testbed"):
        [strip] = open_source(spec, 0, {"evaluation": 1}, panels=panels).draw("evaluation", 1)
        assert len(strip) == panels
        assert len(strip.captions) in (0, panels)
    assert PanelFolders(tmp_path / "folder", panels).open("comic1").captions[0] == "it is 1"


def test_a_page_kept_twice_counts_once(tmp_path):
    folder = tmp_path / "raw" / "1"
    folder.mkdir(parents=True)
    for panel in range(5):
        for name in (f"1_{panel}.jpg", f"1_{panel}.png", f"001_{panel}.png", f"1_00{panel}.png"):
            Image.new("RGB", (4, 4), (panel, 0, 0)).save(folder / name)
    with pytest.raises(InputError, match="no page with 6 panels"):
        RawPages(tmp_path / "raw", 0, 0).open("1")
    assert len(RawPages(tmp_path / "raw", 0, 0, panels=5).open("1")) == 5


@pytest.mark.parametrize("name", ["captions.json", "p3.txt", "p3.png"])
def test_a_pipe_among_a_comics_files_is_skipped(comics, name):
    path = comics / "comic1" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file"):
        PanelFolders(comics).open("comic1").image.load()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 99_999, b'{"a": "b"}', b"[1, 2, 3, 4, 5, 6]", b"NaN", b""])
def test_spoiled_captions_are_one_sentence(comics, content):
    (comics / "comic1" / "captions.json").write_bytes(content)
    with pytest.raises(InputError, match=r"captions\.json"):
        PanelFolders(comics).open("comic1")


def test_a_folder_whose_name_is_not_utf8_is_named_and_left_out(comics, capsys):
    os.rename(comics / "comic3", os.fsencode(comics) + b"/comic\xff")
    assert len(PanelFolders(comics).names) == 11
    assert r"skipped 'comic\udcff': its name" in capsys.readouterr().err
