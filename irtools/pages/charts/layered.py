"""A small graph in layers: what a node reads stands above it.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers by the longest path, long edges cut
into pieces of one layer, order within a layer by the mean of the neighbours, then places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from irtools.pages.charts.canvas import Canvas, Chart

__all__ = ["Box", "layered"]

_WIDE, _HIGH, _BEND = 124.0, 34.0, 14.0
_GAP, _PITCH = 12.0, 54.0
_SWEEPS = 6
_SIGNS = {"good": "+ ", "bad": "− ", "warning": "~ "}


@dataclass(frozen=True)
class Box:
    """A node.

    Attributes:
        name: In its box.
        detail: Below that, small.
        title: What the pointer shows.
        kind: Class of its mark; empty: nothing is to be said of it.
        inputs: Numbers of the boxes above that it reads, each smaller than its own.
    """

    name: str
    detail: str
    title: str
    kind: str
    inputs: tuple[int, ...]


@dataclass
class _Places:
    """Boxes and bends by number; bends come after the boxes.

    Attributes:
        layers: Numbers, layer by layer, in their order.
        above: What each reads in the layer above it.
        below: What reads each in the layer below it.
    """

    layers: list[list[int]]
    above: list[list[int]]
    below: list[list[int]]


def layered(
    caption: str, boxes: Sequence[Box], keys: Sequence[tuple[str, str]] = (), note: str = ""
) -> Chart:
    """Draw a graph of some dozens of boxes.

    Args:
        keys: Class and meaning of marks.
    """
    found = _in_layers(boxes)
    _order(found)
    across = _across(found, len(boxes))
    wide = max(x + _width(n, len(boxes)) / 2 for n, x in enumerate(across)) if across else _WIDE
    wide, height = wide + 2, _PITCH * len(found.layers)
    canvas = Canvas(caption, height, wide)
    down = {n: _PITCH * place for place, row in enumerate(found.layers) for n in row}
    for n, read in enumerate(found.above):
        for other in read:
            end = down[other] + _HIGH + 2
            canvas.line(across[other] / wide, end, across[n] / wide, down[n] + 2, "wire")
        if n >= len(boxes) and read:
            canvas.line(
                across[n] / wide, down[n] + 2, across[n] / wide, down[n] + _HIGH + 2, "wire"
            )
    for n, box in enumerate(boxes):
        _draw(canvas, box, across[n] / wide, down[n] + 2, _WIDE / wide)
    return Chart(caption, canvas.svg(), tuple(keys), note, scrolls=True)


def _draw(canvas: Canvas, box: Box, x: float, y: float, width: float) -> None:
    canvas.box(x - width / 2, y, width, _HIGH, f"box {box.kind}".strip(), box.title)
    middle = y + (15 if box.detail else 21)
    canvas.centred(x, middle, f"{_SIGNS.get(box.kind, '')}{box.name}", "", 18)
    if box.detail:
        canvas.centred(x, y + 28, box.detail, "tick", 21)


def _width(number: int, boxes: int) -> float:
    return _WIDE if number < boxes else _BEND


def _in_layers(boxes: Sequence[Box]) -> _Places:
    """Return layers by the longest path, with a bend wherever an edge passes a layer."""
    reads = [[n for n in box.inputs if 0 <= n < number] for number, box in enumerate(boxes)]
    level = [0] * len(boxes)
    for number, read in enumerate(reads):
        level[number] = 1 + max((level[n] for n in read), default=-1)
    _pull_down(level, reads)
    layers: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for number, at in enumerate(level):
        layers[at].append(number)
    above: list[list[int]] = [[] for _ in boxes]
    for number, read in enumerate(reads):
        for other in read:
            last = other
            for at in range(level[other] + 1, level[number]):
                above.append([last])
                last = len(above) - 1
                layers[at].append(last)
            above[number].append(last)
    below: list[list[int]] = [[] for _ in above]
    for number, read in enumerate(above):
        for other in read:
            below[other].append(number)
    return _Places(layers, above, below)


def _pull_down(level: list[int], reads: Sequence[Sequence[int]]) -> None:
    """Put what reads nothing next to what first reads it."""
    readers: dict[int, list[int]] = {}
    for number, read in enumerate(reads):
        for other in read:
            readers.setdefault(other, []).append(number)
    for number in reversed(range(len(level))):
        if not reads[number] and number in readers:
            level[number] = min(level[n] for n in readers[number]) - 1


def _order(found: _Places) -> None:
    """Order each layer by the mean place of the neighbours, first downwards, then upwards."""
    for sweep in range(_SWEEPS):
        neighbours = found.below if sweep % 2 else found.above
        rows = found.layers[::-1] if sweep % 2 else found.layers
        place: dict[int, float] = {}
        for row in rows:
            own = {n: float(at) for at, n in enumerate(row)}
            means = {n: _mean([place[m] for m in neighbours[n]], own[n]) for n in row}
            row.sort(key=lambda n: means[n])
            place.update((n, float(at)) for at, n in enumerate(row))


def _across(found: _Places, boxes: int) -> list[float]:
    """Return the middle of each, near the mean of its neighbours and without overlaps."""
    x = [0.0] * len(found.above)
    for row in found.layers:
        for n, at in zip(row, _spread(row, [0.0] * len(row), boxes), strict=True):
            x[n] = at
    for sweep in range(2 * _SWEEPS):
        neighbours = found.below if sweep % 2 else found.above
        for row in found.layers[::-1] if sweep % 2 else found.layers:
            wanted = [_mean([x[m] for m in neighbours[n]], x[n]) for n in row]
            for n, at in zip(row, _spread(row, wanted, boxes), strict=True):
                x[n] = at
    least = min((at - _width(n, boxes) / 2 for n, at in enumerate(x)), default=0.0)
    return [at - least + 2 for at in x]


def _spread(row: Sequence[int], wanted: Sequence[float], boxes: int) -> Iterator[float]:
    """Yield places in their order, apart enough: the mean of packing from either end."""
    apart = [(_width(a, boxes) + _width(b, boxes)) / 2 + _GAP for a, b in pairwise(row)]
    first, last = list(wanted), list(wanted)
    for n in range(1, len(row)):
        first[n] = max(first[n], first[n - 1] + apart[n - 1])
    for n in reversed(range(len(row) - 1)):
        last[n] = min(last[n], last[n + 1] - apart[n])
    return ((a + b) / 2 for a, b in zip(first, last, strict=True))


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise
