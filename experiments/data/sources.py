"""What `--strips` means, and which strips serve discovery, the selection of the number of heads, and evaluation."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import click
import numpy as np
from jaxtyping import Int

from experiments.data.comics import Comics, HubRows, PanelFolders, RawPages
from experiments.run.processes import shares, union
from experiments.testbed.testbeds import TESTBEDS
from gaze.pictures.strips import Picture, Strip
from gaze.prompts import LEAST_PANELS, MOST_PANELS
from qwen3vl_jax.checks import require_count
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import is_there, reading

Purpose = Literal["discovery", "selection", "evaluation"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
KINDS = "testbed, testbed-sparse, folder:PATH, comics:PATH or hub:NAME[@SPLIT]"


@runtime_checkable
class Source(Protocol):
    """Where strips come from. What is drawn depends on the seed and the purpose, never on what was drawn before.

    Attributes:
      spec: what `--strips` said.
      shared: discovery and evaluation draw the same strips, as they were told to; else no two purposes share a strip.
      skipped: comics that could not be used so far, each with the reason; others took their places.
    """

    spec: str
    shared: bool
    skipped: list[tuple[str, str]]

    def draw(self, purpose: Purpose, count: int) -> list[Strip]:
        """`count` strips, the first of those that a larger count would give; InputError if there are not so many."""


def open_source(spec: str, seed: int, counts: Mapping[Purpose, int], share: bool = False, panels: int = 6) -> Source:
    """The source that `--strips` names.

    Args:
      spec: the name of a testbed (drawn, without end), "folder:PATH" (`comicN/p1.png`), "comics:PATH" (`COMIC/PAGE_PANEL.jpg`) or
        "hub:NAME[@SPLIT]" (a data set of the hub, or saved in the folder NAME; the split is "train" unless given).
      counts: how many strips each purpose will want; a purpose that is not named still gets a share of the rest.
      share: let evaluation see the strips of discovery, for collections too small to do without.
      panels: how many panels a strip has, 2 to 12.

    Raises InputError for another spec, other numbers, an unreadable place, and fewer comics than `counts` add up to.
    """
    require_count("panels", panels, LEAST_PANELS, MOST_PANELS)
    require_count("seed", seed, 0)
    for purpose, count in counts.items():
        require_count(f"the number of strips for {purpose}", count, 0)
    kind, _, place = spec.partition(":")
    if spec in TESTBEDS:
        return Drawn(spec, seed, share, panels=panels)
    if not place or kind not in ("folder", "comics", "hub"):
        raise InputError(f"--strips {spec} names no source of strips: give {KINDS}")
    comics = _open_comics(kind, place, seed, sum(_wanted(counts, share).values()), panels)
    return Kept(spec, comics, deal(sorted(comics.names, key=natural), seed, counts, share), share, panels=panels)


@dataclass
class Drawn:
    """A testbed's strips: the seed and the purpose draw them, so there are as many as anyone wants."""

    spec: str
    seed: int
    shared: bool
    skipped: list[tuple[str, str]] = field(default_factory=list)
    panels: int = 6

    def draw(self, purpose: Purpose, count: int) -> list[Strip]:
        shared = self.shared and purpose == "discovery"
        draw_strips = TESTBEDS[self.spec].draw_strips
        return draw_strips(self.seed, "evaluation" if shared else purpose, count, panels=self.panels)


@dataclass
class Kept:
    """Comics from a collection, read when they are drawn; those that cannot be read are named, skipped and replaced."""

    spec: str
    comics: Comics
    lanes: Mapping[Purpose, Sequence[str]]
    shared: bool
    skipped: list[tuple[str, str]] = field(default_factory=list)
    panels: int = 6

    def draw(self, purpose: Purpose, count: int) -> list[Strip]:
        strips: list[Strip] = []
        lane = iter(self.lanes[purpose])
        while names := [*islice(lane, count - len(strips))]:
            strips += self._usable(names)
        if len(strips) < count:
            raise InputError(
                f"{self.spec} has {len(self.comics.names)} strips, of which {len(strips)} are left for {purpose} and "
                f"{len(self.skipped)} could not be used, too few for {count} strips: ask for fewer"
            )
        return strips

    def _usable(self, names: Sequence[str]) -> list[Strip]:
        """The strips that can be read; each of several processes has looked at the pixels of its share of them."""
        known = dict(self.skipped)
        strips, faults = {}, {}
        for name, mine in zip(names, shares(len(names)), strict=True):
            try:
                if name not in known:
                    strips[name] = self.comics.open(name)
                    if len(strips[name]) != self.panels:
                        raise InputError(f"it has {len(strips[name])} panels, not {self.panels}")
                    if mine:
                        strips[name].image.load()
            except InputError as error:
                faults[name] = str(error)
        faults = union(faults)
        for name in [name for name in names if name in faults]:
            self.skipped.append((name, faults[name]))
            click.echo(f"skipped {name}: {faults[name]}", err=True)
        return [strip for name, strip in strips.items() if name not in faults]


def deal(names: Sequence[str], seed: int, counts: Mapping[Purpose, int], share: bool) -> dict[Purpose, list[str]]:
    """The names that each purpose takes, in this order; no name goes to two purposes unless they share.

    A seeded permutation is cut: discovery's block from its start, then selection's, evaluation's from its end, so
    that a larger discovery leaves evaluation's strips alone. What lies between is dealt out in turns, to replace
    what cannot be read.

    Raises InputError if there are fewer names than wanted.
    """
    wanted = _wanted(counts, share)
    total = sum(wanted.values())
    if total > len(names):
        raise InputError(
            f"there are {len(names)} strips, too few for {' + '.join(map(str, wanted.values()))} "
            f"({', '.join(wanted)}): ask for fewer"
        )
    order: Int[np.ndarray, " name"] = np.random.default_rng(seed).permutation(len(names))
    first = wanted.get("discovery", 0)
    second, last = first + wanted["selection"], len(names) - wanted["evaluation"]
    blocks = {"discovery": order[:first], "selection": order[first:second], "evaluation": order[last:][::-1]}
    spare = order[second:last]
    lanes: dict[Purpose, list[str]] = {
        purpose: [names[index] for index in (*blocks[purpose], *spare[turn :: len(wanted)])]
        for turn, purpose in enumerate(wanted)
    }
    return {"discovery": lanes["evaluation"], **lanes}


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts comic2 before comic10."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", name)], name


def fingerprint(pictures: Sequence[Picture]) -> str:
    """Twelve hex digits for provenance: a hash of the pictures' names, sizes and captions, in their order."""
    told = [(picture.name, picture.size, len(picture), picture.captions) for picture in pictures]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def _wanted(counts: Mapping[Purpose, int], share: bool) -> dict[Purpose, int]:
    """How many comics each purpose needs for itself: discovery none if it shares evaluation's."""
    wanted: dict[Purpose, int] = {purpose: counts.get(purpose, 0) for purpose in PURPOSES}
    if share:
        wanted["evaluation"] = max(wanted["evaluation"], wanted.pop("discovery"))
    return wanted


def _open_comics(kind: str, place: str, seed: int, wanted: int, panels: int) -> Comics:
    with reading(place, "a place of strips"):
        path = Path(place).expanduser()
    if kind == "folder":
        return PanelFolders(path, panels)
    if kind == "comics":
        return RawPages(path, seed, wanted, panels)
    saved = is_there(path, "a data set")
    name, _, split = (str(path), "", "") if saved else place.partition("@")
    return HubRows(name, split or "train", panels)
