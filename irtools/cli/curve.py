"""How fast decoders write as their texts grow, drawn in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from irtools.words import printable

if TYPE_CHECKING:
    from irtools.measure.base import LatencyResult

__all__ = ["decode_curve"]

_PAST = re.compile(r"\bpast=(\d+)")
_WIDTH = 40
_BAR = "\N{FULL BLOCK}"


def decode_curve(results: Sequence[LatencyResult]) -> Iterator[str]:
    """Yield lines that show tokens per second over the tokens in the cache, model by model.

    Nothing where decoding was timed at fewer than two lengths. All bars have one scale.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for result in results:
        found = _PAST.search(result.shape)
        if result.phase == "decode" and found and result.tokens_per_second is not None:
            points.setdefault(result.name, []).append((int(found[1]), result.tokens_per_second))
    lengths = {length for curve in points.values() for length, _ in curve}
    if len(lengths) < 2:
        return
    fastest = max(rate for curve in points.values() for _, rate in curve)
    digits = max(len(f"{length:,}") for length in lengths)
    yield "tokens/s by tokens in the cache"
    for name, curve in points.items():
        yield printable(name)
        for length, rate in sorted(curve):
            bar = _BAR * max(1, round(_WIDTH * rate / fastest))
            yield f"  {length:>{digits},}  {bar} {rate:.1f}"
