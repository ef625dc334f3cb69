"""Cutting a row of tensors into shards or batches."""

from collections.abc import Sequence


def cut(sizes: Sequence[int], most: int) -> list[slice]:
    """Cuts a row of things of these sizes into pieces of at most `most`; what is larger is a piece of its own."""
    starts, filled = [0], 0
    for number, size in enumerate(sizes):
        if filled and filled + size > most:
            starts.append(number)
            filled = 0
        filled += size
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(sizes)], strict=True)]
