"""The chapter on text inertia."""

from collections.abc import Sequence

from experiments.hallucination.cells import INTERVALS, number_cell, share_cell
from experiments.hallucination.inertia import InertiaResults, InertiaRow
from experiments.run.formatting import percent
from gaze.report.html import Chapter, Table


def inertia_chapter(results: InertiaResults, untaught: Sequence[str]) -> Chapter:
    return Chapter(
        3,
        "inertia",
        "Text inertia: does a description go by the picture or by itself?",
        f"{results['captions']} descriptions of the plain model are read again, word by word. Where a model looks proves little, "
        "and a falling share of attention less: with every word there are more keys beside those of the picture. So beside the "
        "share stand what is left of it without sinks, and its ratio to an even look; and two causes: how much the next word "
        "would change without the picture, and how often the next object is another one once the picture is.",
        _findings(results),
        tables=[_words_table(results["rows"]), _swaps_table(results)],
        caveats=untaught,
    )


def _findings(results: InertiaResults) -> list[str]:
    by_part = {row["part"]: row for row in results["rows"] if row["words"] == "all"}
    parts = [part for part in by_part if part is not None]
    if len(parts) < 2:
        return []
    first, last = by_part[min(parts)], by_part[max(parts)]
    return [
        f"From the first quarter of a description to the last, attention to the picture goes from "
        f"{percent(first['share']['value'])} to {percent(last['share']['value'])}, and what the next word owes to it from "
        f"{first['dependence']['value']:.2f} to {last['dependence']['value']:.2f} nats."
    ]


def _words_table(rows: Sequence[InertiaRow]) -> Table:
    return Table(
        "By part and kind of word",
        ("part", "words", "n", "share", "without sinks", "over an even look", "gaze heads", "dependence, nats"),
        [
            (
                "all" if row["part"] is None else f"quarter {row['part']}",
                row["words"],
                row["n"],
                share_cell(row["share"]),
                share_cell(row["sink_free"]),
                number_cell(row["lift"]),
                share_cell(row["gaze"]),
                number_cell(row["dependence"]),
            )
            for row in rows
        ],
        "Attention to the picture from the row that predicts a word's first token: the mean over all heads, or over the gaze "
        f"heads if they are known. Dependence: KL of the next token with the picture from that with its keys masked. {INTERVALS}",
    )


def _swaps_table(results: InertiaResults) -> Table:
    return Table(
        "Another picture in mid-answer",
        ("from", "the next object is another one"),
        [(percent(row["at"]), share_cell(row["changed"])) for row in results["swaps"]],
        f"Of the descriptions that name an object within the next words. {INTERVALS}",
    )
