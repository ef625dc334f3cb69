"""Ties in the routers of a mixture of experts.

Where two experts are so close that rounding decides which of them a token goes through, two right models may take
different ones and differ from there on. Such differences are told apart from mistakes by transformers' own routers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@contextmanager
def watched(reference: Any) -> Iterator[list[list[Any]]]:
    """Collects per layer and pass, for each token, how far the last expert that it takes is above the next (in logits)."""
    blocks = [layer.mlp for layer in reference.model.language_model.layers]
    routers = [block.gate for block in blocks if hasattr(block, "gate") and block.gate.top_k < block.gate.num_experts]
    seen: list[list[Any]] = [[] for _ in routers]

    def hook(passes: list[Any]) -> Any:
        def keep(router: Any, _: Any, output: Any) -> None:
            best = output[0].topk(router.top_k + 1).values
            passes.append(best[:, -2] - best[:, -1])

        return keep

    hooks = [router.register_forward_hook(hook(passes)) for router, passes in zip(routers, seen, strict=True)]
    try:
        yield seen
    finally:
        for handle in hooks:
            handle.remove()


def margins(seen: list[list[Any]], batch: int, tokens: int) -> Float[np.ndarray, "batch token"]:
    """The smallest margin that a token has in any layer, over all passes in a row; infinite without routers."""
    layers = [np.concatenate([part.reshape(batch, -1).numpy() for part in passes], axis=1) for passes in seen]
    least: np.ndarray = np.min([np.full((batch, tokens), np.inf, np.float32), *layers], axis=0)
    return least


def comparable(
    off: Float[np.ndarray, "batch seq"], margin: Float[np.ndarray, "batch token"], tolerance: float
) -> Int[np.ndarray, " batch"]:
    """How many tokens of each row can be compared: those in front of the first that is off, if a tie explains that one.

    Args:
      off: by how much the models differ.
      margin: of the same tokens, and of those that follow.
      tolerance: for either.
    """
    length = off.shape[1]
    is_off = ~(off <= tolerance)
    first: np.ndarray = is_off.argmax(axis=1)
    tied = is_off.any(axis=1) & (np.take_along_axis(margin, first[:, None], axis=1)[:, 0] < tolerance)
    return np.where(tied, first, length)
