"""Comics as they are kept: a folder of panels, the raw COMICS corpus, a data set of the hub. Opened one at a time."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click
import numpy as np
from PIL import Image
from pydantic import RootModel

from gaze.pictures.compose import arrange, compose
from gaze.pictures.strips import Strip
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.extras import extra
from qwen3vl_jax.files.read import read_bytes, read_json, read_text, reading
from qwen3vl_jax.images import MOST_PICTURE_BYTES, TURNS, ImageLike, open_image, orientation

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
END_PAGES = 5
"""Pages at each end of a longer comic that are covers and advertisements."""
PLENTY = 2
"""Times as many comics as strips wanted, from which on a comic serves for one strip only."""


class Captions(RootModel[list[str]]):
    """What `captions.json` holds."""


@runtime_checkable
class Comics(Protocol):
    """A collection that knows the names of its comics and reads a comic only when asked for it."""

    @property
    def names(self) -> Sequence[str]: ...

    def open(self, name: str) -> Strip:
        """The strip of one comic; InputError says what is wrong with it, at the latest when its pixels are read."""


class PanelFolders:
    """`comicN/p1.png` to `p6.png`, the layout of the paper's code; JPEG, WebP and BMP will do.

    Captions, if there are any, stand beside the panels: `captions.json`, a list of six, or `p1.txt` to `p6.txt`. Where
    `panels` is another number, exactly that many are wanted of each kind.
    """

    def __init__(self, root: Path, panels: int = 6) -> None:
        self._root, self._panels = root, panels
        self.names = subfolders(root, f"comicN/p1.png to p{panels}.png")

    def open(self, name: str) -> Strip:
        folder = self._root / name
        files = {path.name.lower(): path for path in _listed(folder)}
        for file in files:
            _within(file, r"p([0-9]{1,9})\.(png|jpe?g|webp|bmp|txt)", self._panels)
        panels: list[ImageLike] = []
        for number in range(1, self._panels + 1):
            found = [files[f"p{number}{suffix}"] for suffix in SUFFIXES if f"p{number}{suffix}" in files]
            if not found:
                raise InputError(f"it has no p{number}.png")
            panels.append(found[0])
        return arrange(name, panels, _captions(files, self._panels))


class RawPages:
    """The COMICS corpus of Iyyer et al. (2017): `COMIC/PAGE_PANEL.jpg`. A strip is `panels` panels in a row of one
    page.

    As in the paper's code the page is a random one with at least so many panels, not among the first or last five if the
    comic has more than ten, and the strip starts at a random panel. But where that code draws comics with replacement from
    one stream, here each comic has its own, and none of its pages is used twice.

    Attributes:
      names: the comics; if they are fewer than twice `wanted`, `COMIC#2` and so on for the strips of its other pages.
    """

    def __init__(self, root: Path, seed: int, wanted: int, panels: int = 6) -> None:
        self._root, self._seed, self._panels = root, seed, panels
        comics = subfolders(root, "COMIC/PAGE_PANEL.jpg")
        plenty = len(comics) >= PLENTY * wanted  # then 4,000 folders need not be listed
        self._which = {
            f"{comic}#{turn + 1}" if turn else comic: (comic, turn)
            for comic in comics
            for turn in range(1 if plenty else len(self._usable(comic)))
        }
        self.names = tuple(self._which)

    def open(self, name: str) -> Strip:
        comic, turn = self._which[name]
        pages = self._usable(comic)
        if len(pages) <= turn:
            raise InputError(f"it has no {'other ' if turn else ''}page with {self._panels} panels")
        rng = np.random.default_rng([self._seed, *comic.encode()])
        page = int(rng.permutation(list(pages))[turn])
        starts = {number: int(rng.integers(len(panels) - self._panels + 1)) for number, panels in pages.items()}
        window: list[ImageLike] = [*pages[page][starts[page] : starts[page] + self._panels]]
        return arrange(f"{comic}_page{page}_start{starts[page]}", window)

    def _usable(self, comic: str) -> dict[int, list[Path]]:
        """The panels of each page that may serve: the inner ones with enough panels, else any such page."""
        pages = _pages(_listed(self._root / comic))
        numbers = sorted(pages)
        full = [number for number in numbers if len(pages[number]) >= self._panels]
        outer = {*numbers[:END_PAGES], *numbers[-END_PAGES:]} if len(numbers) > 2 * END_PAGES else set()
        return {number: pages[number] for number in [n for n in full if n not in outer] or full}


class HubRows:
    """A data set with the columns of `baulab/openai-comic-strips`: `comic_id`, `panel_1` to 6 and, maybe, `caption_1` to 6.

    Comics are called as in a folder that the paper's code has exported, so both give the same strips to the same seed.
    Where `panels` is another number, that many columns are read; a row that has a panel in a further one is no such strip.
    """

    def __init__(self, name: str, split: str, panels: int = 6) -> None:
        data = _load(name, split)
        self._panels = [f"panel_{number}" for number in range(1, panels + 1)]
        missing = [column for column in ("comic_id", *self._panels) if column not in data.column_names]
        if missing:
            wanted = f"comic_id and panel_1 to panel_{panels}"
            raise InputError(f"the data set {name} has no column {missing[0]}: give one with {wanted}")
        with reading(f"the data set {name}", "a data set with pictures"):
            for column in self._panels:
                data = data.cast_column(column, _datasets().Image(decode=False))
            self._data, keys = data, [str(key).removeprefix("comic") for key in data["comic_id"]]
        self._rows = {f"comic{key}": row for row, key in enumerate(keys)}
        if len(self._rows) < len(data):
            raise InputError(f"the data set {name} has several comics of one comic_id: give each its own")
        self.names = tuple(self._rows)

    def open(self, name: str) -> Strip:
        with reading(name, "a row of the data set"):
            row: Mapping[str, Any] = self._data[self._rows[name]]
        for column in [column for column in row if row[column]]:
            _within(column, r"(?:panel|caption)_([0-9]{1,9})", len(self._panels))
        found = [row.get(column.replace("panel", "caption")) for column in self._panels]
        captions = [caption for caption in found if caption]
        if not all(isinstance(caption, str) for caption in captions):
            raise InputError("its captions are not texts")
        if captions and len(captions) < len(self._panels):
            raise InputError(f"{len(captions)} of its {len(self._panels)} panels have captions")
        return compose(name, [_decoded(row[column], column) for column in self._panels], captions)


def subfolders(root: Path, layout: str) -> tuple[str, ...]:
    """Names of the folders in a folder, hidden ones apart; InputError if there are none, naming the layout expected."""
    found = [path.name for path in _listed(root) if path.is_dir() and not path.name.startswith(".")]
    names = tuple(name for name in found if name.isprintable())
    for name in sorted({*found} - {*names}):
        click.echo(f"skipped {name!a}: its name is not printable UTF-8", err=True)
    if not names:
        raise InputError(f"there are no comics in {root}: give a folder that holds {layout}")
    return names


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({os.strerror(error.errno or 0)})") from None
    except ValueError as error:
        raise InputError(f"{str(folder)!r} cannot be the name of a folder ({error})") from None


def _within(name: str, pattern: str, panels: int) -> None:
    """Raises InputError for a name whose number is that of no panel: the rest would be another strip than was drawn."""
    found = re.fullmatch(pattern, name)
    if found and not 1 <= int(found[1]) <= panels:
        raise InputError(f"it has {name}, where a strip has {panels} panels")


def _captions(files: Mapping[str, Path], panels: int) -> list[str]:
    """The captions among a comic's files, by lower-case file name."""
    if "captions.json" in files:
        captions = read_json(files["captions.json"], "a list of captions", Captions).root
    else:
        texts = [files[f"p{n}.txt"] for n in range(1, panels + 1) if f"p{n}.txt" in files]
        captions = [read_text(text, "a caption").strip() for text in texts]
    if len(captions) not in (0, panels):
        raise InputError(f"it has {len(captions)} captions for {panels} panels")
    return captions


def _pages(files: Sequence[Path]) -> dict[int, list[Path]]:
    """The panels of each page in their order, from names like `12_3.jpg`; what is kept twice counts once."""
    pages: dict[int, dict[int, Path]] = {}
    for path in files:
        place = re.fullmatch(r"([0-9]{1,9})_([0-9]{1,9})", path.stem)
        if place and path.suffix.lower() in SUFFIXES:
            pages.setdefault(int(place[1]), {}).setdefault(int(place[2]), path)
    return _once({page: [panels[number] for number in sorted(panels)] for page, panels in sorted(pages.items())})


def _once(pages: Mapping[int, list[Path]]) -> dict[int, list[Path]]:
    """The pages without those whose files equal, byte by byte, the files of an earlier page."""
    sizes = {page: tuple(_bytes(path) for path in paths) for page, paths in pages.items()}
    often = Counter(sizes.values())
    first: dict[object, int] = {}
    for page, paths in pages.items():
        # Only files of equal sizes are read: a corpus has a million.
        first.setdefault((_digest(paths) if often[sizes[page]] > 1 else None) or page, page)
    return {page: pages[page] for page in first.values()}


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever opens the page says what is wrong with it
        return -1


def _digest(paths: Sequence[Path]) -> str | None:
    """A hash of what the files hold; None if one cannot be read, which whoever opens it will say."""
    try:
        each = [hashlib.sha256(read_bytes(path, "an image", most=MOST_PICTURE_BYTES)).digest() for path in paths]
    except InputError:
        return None
    return hashlib.sha256(b"".join(each)).hexdigest()


def _datasets() -> Any:
    """The module, which only this kind of source needs."""
    return extra("datasets", "hub", "reading a data set")


def _load(name: str, split: str) -> Any:
    """One split of a data set: saved to disk by `datasets`, a folder of its files, or on the hub."""
    datasets = _datasets()
    with reading(name, "a data set", "give hub:NAME or hub:NAME@SPLIT"):
        saved = Path(name, "dataset_dict.json").exists() or Path(name, "state.json").exists()
        if not saved:
            return datasets.load_dataset(name, split=split)
        data = datasets.load_from_disk(name)
    if isinstance(data, datasets.DatasetDict) and split not in data:
        raise InputError(f"the data set {name} has no split {split}: give one of {', '.join(data)}, as hub:NAME@SPLIT")
    return data[split] if isinstance(data, datasets.DatasetDict) else data


def _decoded(cell: Mapping[str, Any] | None, column: str) -> Image.Image:
    """The picture in a cell of a data set, as its bytes or as the path of its file."""
    if not cell or not (cell["bytes"] or cell["path"]):
        raise InputError(f"its {column} is empty")
    if not cell["bytes"]:
        return open_image(cell["path"])
    with reading(f"its {column}", "an image"), Image.open(BytesIO(cell["bytes"])) as file:
        turn = TURNS[orientation(file)]
        return open_image(file if turn is None else file.transpose(turn))
