"""Which part of a model a node belongs to, and whether a pattern selects it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from irtools.analysis.provenance import module_of, selects
from irtools.passes.quantization.sites.find import Weight
from irtools.words import counted, tallied

__all__ = ["is_telling", "left_alone", "names_of", "nothing_found", "selects"]

_ALREADY = "num-already-quantized"

_ANONYMOUS = re.compile(r"(val|onnx::\w+|_v)_\d+|")


def is_telling(name: str) -> bool:
    """Whether a name is more than a number that an exporter has counted."""
    return _ANONYMOUS.fullmatch(name) is None


def names_of(weight: Weight) -> Iterator[str]:
    """Yield every name by which a user may know a weight, the most specific first."""
    for use in weight.uses:
        if module := module_of(use.node):
            yield module
    if is_telling(weight.name):
        yield weight.name
    for use in weight.uses:
        if use.bias is not None:
            yield use.bias.node.inputs[use.bias.index].name or ""  # type: ignore[union-attr]
        yield use.node.name or ""
        yield use.output.name or ""
    yield weight.name


def left_alone(skipped: Mapping[str, int], phrases: Mapping[str, str]) -> Iterator[str]:
    """Say which weights stayed as they were next to those that a pass quantized, and why."""
    ordered = sorted(skipped.items(), key=lambda item: -item[1])
    reasons = [tallied(n, phrases[name]) for name, n in ordered if n and name != _ALREADY]
    if reasons:
        yield f"not quantized: {'; '.join(reasons)}"
    if before := skipped.get(_ALREADY):
        yield f"left as quantized before: {counted(before, 'node')}"


def nothing_found(skipped: Mapping[str, int], phrases: Mapping[str, str], instead: str = "") -> str:
    """Say why a pass quantizes nothing.

    Args:
        skipped: What it left alone, by counter.
        phrases: What the counters mean.
        instead: What to use in its place, or ''.
    """
    reasons = [tallied(count, phrases[name]) for name, count in skipped.items() if count]
    found = "; ".join(reasons) or "no constant is multiplied by or looked up in"
    return f"nothing was quantized: {found}{f'; {instead}' if instead else ''}"
