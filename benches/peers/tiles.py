"""How Reticle cuts a frame into tiles of one size (crates/segment/src/tile.rs)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

MARGIN = 20
EDGES = range(128, 385, 16)


class Span(NamedTuple):
    """Along one axis: where a tile begins, and the part `[first, end)` that it answers for."""

    start: int
    first: int
    end: int


def grid(width: int, height: int) -> tuple[int, list[Span], list[Span]]:
    """Tile edge, rows and columns: the fewest pixels over all tiles."""

    def tiles(edge: int) -> int:
        return _count(width, edge) * _count(height, edge)

    edge = min(EDGES, key=lambda edge: tiles(edge) * edge * edge)
    return edge, _spans(height, edge), _spans(width, edge)


def _count(length: int, edge: int) -> int:
    return 1 if length <= edge else -(-(length - 2 * MARGIN) // (edge - 2 * MARGIN))


def _spans(length: int, edge: int) -> list[Span]:
    count = _count(length, edge)
    if count == 1:
        return [Span(0, 0, length)]
    starts = [index * (length - edge) // (count - 1) for index in range(count)]
    borders = [(one + edge + other) // 2 for one, other in pairwise(starts)]
    return [
        Span(start, first, end)
        for start, first, end in zip(starts, [0, *borders], [*borders, length], strict=True)
    ]
